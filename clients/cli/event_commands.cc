// events: what the service told of its own accord.
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/context.h"
#include "clients/cli/fields.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using netstack::v1::Event;
using netstack::v1::GetStatusRequest;
using netstack::v1::NetstackService;
using netstack::v1::WatchEventsRequest;
using netstack::v1::WatchEventsResponse;

struct EventsOptions {
  bool watch = false;
  std::optional<uint64_t> after;
};

Style StyleOf(netstack::v1::EventType type) {
  switch (type) {
    case netstack::v1::EVENT_TYPE_STACK_STARTED:
    case netstack::v1::EVENT_TYPE_UPSTREAM_UP:
    case netstack::v1::EVENT_TYPE_LISTS_LOADED:
    case netstack::v1::EVENT_TYPE_CONTROL_D_PROVISIONED:
      return Style::kGood;
    case netstack::v1::EVENT_TYPE_STACK_STOPPED:
    case netstack::v1::EVENT_TYPE_CONFIG_CHANGED:
      return Style::kPlain;
    case netstack::v1::EVENT_TYPE_STACK_FAILED:
    case netstack::v1::EVENT_TYPE_FLOW_POISONED:
    case netstack::v1::EVENT_TYPE_PROTECT_FAILED:
      return Style::kBad;
    default:
      return Style::kWarn;
  }
}

std::string EventLine(const Event& event, const Context& context) {
  Table table({{.title = "", .right = true, .min_width = 4},
               {.title = "", .min_width = 19},
               {.title = "", .min_width = 16},
               {.title = ""}});
  std::string message = event.message();
  if (event.has_flow_id()) {
    absl::StrAppend(&message, " (flow ", event.flow_id(), ")");
  }
  table.Row({{absl::StrCat(event.sequence()), Style::kDim},
             ShowTime(ToAbsl(event.time()), context.console->zone),
             {ShortName(event.type()), StyleOf(event.type())},
             message});
  // Never cut: the message is what matters.
  return table.Render({.colour = context.console->colour, .header = false});
}

// False when there is no more to print.
bool Print(Context& context, const EventsOptions& options,
           const WatchEventsResponse& message) {
  // A list of events that are kept needs no mark; a watch in JSON does.
  const bool at_end = message.has_end_of_replay() && !options.watch;
  if (context.json && !at_end) {
    context.out() << JsonLine(message);
  } else if (message.has_event()) {
    context.out() << EventLine(message.event(), context);
  } else if (message.has_loss()) {
    context.out() << "lost "
                  << Counted(message.loss().events(), "event", "events")
                  << "\n";
  }
  context.out().flush();
  return !at_end && context.out().good();
}

void Run(Context& context, const EventsOptions& options) {
  Interrupt interrupt(context.console->out_fd);
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  // The stream itself has no deadline; this finds a service that hangs.
  const auto probe =
      (*client)->Call(&NetstackService::Stub::GetStatus, GetStatusRequest());
  if (!probe.ok()) return context.Fail(probe.status());
  WatchEventsRequest request;
  if (options.after) request.set_after_sequence(*options.after);
  const absl::Status status =
      (*client)
          ->Watch<NetstackService::Stub, WatchEventsRequest,
                  WatchEventsResponse>(
              &NetstackService::Stub::WatchEvents, request, interrupt,
              [&](const WatchEventsResponse& message) {
                return Print(context, options, message);
              });
  if (!status.ok()) context.Fail(status);
}

}  // namespace

void AddEventsCommand(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "events", "Show what the service told of its own accord");
  const auto options = std::make_shared<EventsOptions>();
  command->add_flag("--watch,-w", options->watch, "Go on until Ctrl-C");
  command
      ->add_option("--after", options->after,
                   "Only events with a greater number")
      ->type_name("N");
  command->footer(
      "The service keeps the newest ones. --json gives one object per line.\n\n"
      "Examples:\n"
      "  netstackctl events\n"
      "  netstackctl events --watch\n"
      "  netstackctl events --watch --json | jq -r '.event.message // empty'");
  command->callback([&context, options] { Run(context, *options); });
}

}  // namespace netstack::cli
