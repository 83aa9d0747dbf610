// stats: the counters, once or again and again.
#include <memory>
#include <optional>

#include "clients/cli/context.h"
#include "clients/cli/format.h"
#include "clients/cli/stats_view.h"

namespace netstack::cli {
namespace {

using netstack::v1::GetStatsRequest;
using netstack::v1::GetStatsResponse;
using netstack::v1::NetstackService;
using netstack::v1::WatchStatsRequest;
using netstack::v1::WatchStatsResponse;

// GetStatsResponse and WatchStatsResponse have the same fields.
template <typename Response>
StatsSample Sample(const Response& response) {
  return {.stats = response.stats(),
          .epoch = response.epoch(),
          .time = ToAbsl(response.time())};
}

void RunOnce(Context& context) {
  CallAndPrint<NetstackService::Stub, GetStatsRequest, GetStatsResponse>(
      context, &NetstackService::Stub::GetStats, {},
      [&](const GetStatsResponse& response) {
        context.out() << RenderStats(Sample(response), nullptr,
                                     context.layout());
      });
}

// Prints one reading of a watch in the manner that fits the output.
void PrintReading(Context& context, const StatsSample& now,
                  const StatsSample* before) {
  const bool first = before == nullptr;
  if (context.console->tty) {
    const std::string text = RenderStats(now, before, context.layout());
    context.out() << RedrawFrame(text, context.console->size().height, first);
  } else {
    Layout layout = context.layout();
    layout.header = first;
    context.out() << RenderStatsLine(now, before, context.console->zone,
                                     layout);
  }
}

void RunWatch(Context& context, absl::Duration interval) {
  Interrupt interrupt(context.console->out_fd);
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  // The stream itself has no deadline; this finds a service that hangs.
  const auto probe =
      (*client)->Call(&NetstackService::Stub::GetStats, GetStatsRequest());
  if (!probe.ok()) return context.Fail(probe.status());
  WatchStatsRequest request;
  *request.mutable_interval() = ToProto(interval);
  std::optional<StatsSample> before;
  const absl::Status status =
      (*client)
          ->Watch<NetstackService::Stub, WatchStatsRequest, WatchStatsResponse>(
              &NetstackService::Stub::WatchStats, request, interrupt,
              [&](const WatchStatsResponse& response) {
                if (context.json) {
                  context.out() << JsonLine(response);
                } else {
                  StatsSample now = Sample(response);
                  PrintReading(context, now, before ? &*before : nullptr);
                  before = std::move(now);
                }
                context.out().flush();
                return context.out().good();
              });
  if (!status.ok()) context.Fail(status);
}

}  // namespace

void AddStatsCommand(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("stats", "Show the counters of the stack, in groups");
  const auto watch = std::make_shared<WatchOption>();
  watch->AddTo(*command);
  command->footer(
      "Drops are shown only where there are any, with what they mean.\n"
      "On a terminal --watch redraws in place and adds rates per second; into\n"
      "a pipe it writes one line for every reading.\n\n"
      "Examples:\n"
      "  netstackctl stats\n"
      "  netstackctl stats --watch\n"
      "  netstackctl stats --watch 5s | tee stats.log\n"
      "  netstackctl stats --json | jq .stats.tcp.active");
  command->callback([&context, watch] {
    if (!watch->given()) return RunOnce(context);
    const absl::StatusOr<absl::Duration> interval = watch->interval();
    if (!interval.ok()) {
      return context.FailUsage(interval.status().message());
    }
    RunWatch(context, *interval);
  });
}

}  // namespace netstack::cli
