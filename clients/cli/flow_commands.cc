// flows and close.
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "clients/cli/context.h"
#include "clients/cli/fields.h"
#include "clients/cli/flows_view.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using netstack::v1::CloseFlowsRequest;
using netstack::v1::CloseFlowsResponse;
using netstack::v1::Flow;
using netstack::v1::FlowFilter;
using netstack::v1::FlowService;
using netstack::v1::ListFlowsRequest;
using netstack::v1::ListFlowsResponse;
using netstack::v1::WatchFlowsRequest;
using netstack::v1::WatchFlowsResponse;

constexpr uint32_t kPageSize = 1000;  // The most that the service gives.

struct FlowsOptions {
  FilterText filter;
  std::string sort = "id";
  size_t limit = 0;
  WatchOption watch;

  FlowOrder order() const {
    if (sort == "bytes") return FlowOrder::kBytes;
    if (sort == "age") return FlowOrder::kAge;
    if (sort == "idle") return FlowOrder::kIdle;
    if (sort == "rate") return FlowOrder::kRate;
    return FlowOrder::kId;
  }
};

template <typename Enum>
CLI::IsMember Choices() {
  return CLI::IsMember(
      ShortNames(*google::protobuf::GetEnumDescriptor<Enum>()));
}

void AddFilterOptions(CLI::App& command, FilterText& filter) {
  command.add_option("--id", filter.id, "The flow with this number")
      ->type_name("ID");
  command.add_option("--protocol", filter.protocol, "Flows of this protocol")
      ->type_name("PROTOCOL")
      ->check(Choices<netstack::v1::Protocol>());
  command.add_option("--state", filter.state, "Flows in this state")
      ->type_name("STATE")
      ->check(Choices<netstack::v1::FlowState>());
  command.add_option("--app", filter.app, "The app's address or prefix")
      ->type_name("CIDR[:PORT]");
  command.add_option("--app-port", filter.app_port, "The app's port")
      ->type_name("PORT");
  command
      .add_option("--remote", filter.remote,
                  "The remote address or prefix; IPv6 with a port is "
                  "[ADDRESS]:PORT")
      ->type_name("CIDR[:PORT]");
  command.add_option("--remote-port", filter.remote_port, "The remote port")
      ->type_name("PORT");
  command
      .add_option("--name", filter.name,
                  "Flows whose address DNS answered for this name or one "
                  "below it")
      ->type_name("NAME");
  command
      .add_option("--active-within", filter.active_within,
                  "Flows with traffic within this time")
      ->type_name("DURATION");
  command.add_option("--uid", filter.uid, "Flows of this user")
      ->type_name("UID");
  command
      .add_option("--package", filter.package,
                  "Flows of this package, or of processes of this name")
      ->type_name("NAME");
}

// All pages as one answer. The pages may belong to two runs of the stack when
// it was restarted meanwhile; then they are fetched anew.
absl::StatusOr<ListFlowsResponse> ListAll(Client& client,
                                          const FlowFilter& filter) {
  ListFlowsResponse all;
  ListFlowsRequest request;
  *request.mutable_filter() = filter;
  request.set_page_size(kPageSize);
  do {
    const auto page = client.Call(&FlowService::Stub::ListFlows, request);
    if (!page.ok()) return page.status();
    if (request.after_id() != 0 && page->epoch() != all.epoch()) {
      all.Clear();
      request.set_after_id(0);
      continue;
    }
    all.set_epoch(page->epoch());
    all.mutable_flows()->MergeFrom(page->flows());
    // A page must lead forward; else we would ask for ever.
    if (page->next_after_id() <= request.after_id()) break;
    request.set_after_id(page->next_after_id());
  } while (request.after_id() != 0);
  return all;
}

std::vector<Flow> AsVector(const ListFlowsResponse& response) {
  return {response.flows().begin(), response.flows().end()};
}

void PrintFlows(Context& context, const FlowsOptions& options,
                const ListFlowsResponse& list, std::vector<FlowRow> rows) {
  SortFlows(options.order(), rows);
  if (!context.json) {
    const bool rates = options.order() == FlowOrder::kRate;
    context.out() << RenderFlows(rows, rates, options.limit, context.layout());
    return;
  }
  ListFlowsResponse answer;
  answer.set_epoch(list.epoch());
  for (const FlowRow& row : rows) {
    if (options.limit != 0 &&
        static_cast<size_t>(answer.flows_size()) >= options.limit) {
      break;
    }
    *answer.add_flows() = row.flow;
  }
  context.out() << JsonDocument(answer);
}

void RunList(Context& context, const FlowsOptions& options,
             const FlowFilter& filter) {
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  auto list = ListAll(**client, filter);
  if (!list.ok()) return context.Fail(list.status());
  FlowRates rates;
  std::vector<FlowRow> rows = rates.Measure(AsVector(*list), absl::Now());
  if (options.order() == FlowOrder::kRate) {  // Takes two looks.
    absl::SleepFor(absl::Seconds(1));
    list = ListAll(**client, filter);
    if (!list.ok()) return context.Fail(list.status());
    rows = rates.Measure(AsVector(*list), absl::Now());
  }
  PrintFlows(context, options, *list, std::move(rows));
}

// Into a pipe: JSON as it comes, or a line for every flow and change.
class FlowPrinter {
 public:
  explicit FlowPrinter(Context& context) : context_(context) {}

  bool Print(const WatchFlowsResponse& message) {
    if (context_.json) {
      context_.out() << JsonLine(message);
    } else {
      for (const Flow& flow : message.snapshot().flows()) Line("flow", flow);
      for (const auto& change : message.changes().changes()) {
        Line(ShortName(change.type()), change.flow());
      }
      if (message.has_loss()) {
        context_.out() << "lost " << message.loss().changes()
                       << " changes: this reader is too slow\n";
      }
    }
    context_.out().flush();
    return context_.out().good();
  }

 private:
  void Line(const std::string& what, const Flow& flow) {
    Layout layout = context_.layout();
    layout.header = first_;
    first_ = false;
    context_.out() << RenderFlowLine(what, flow, absl::Now(),
                                     context_.console->zone, layout);
  }

  Context& context_;  // Outlives the printer.
  bool first_ = true;
};

// On a terminal: one thread reads the stream into a model, this one draws it.
class FlowScreen {
 public:
  FlowScreen(Context& context, const FlowsOptions& options, FlowFilter filter)
      : context_(context),
        options_(options),
        filter_(std::move(filter)),
        model_(filter_) {}

  // Called by the reading thread.
  bool Apply(const WatchFlowsResponse& message) {
    const std::lock_guard<std::mutex> lock(mutex_);
    model_.Apply(message, absl::Now());
    return model_.lost() == 0;  // Else a fresh snapshot is needed.
  }

  // Called by the reading thread: begins anew after a loss.
  bool Restart() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool lost = model_.lost() > 0;
    model_ = FlowModel(filter_);
    return lost;
  }

  void Draw() {
    std::vector<Flow> flows;
    const absl::Time now = absl::Now();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!model_.complete()) return;  // The old picture is better.
      flows = model_.Flows(now);
    }
    std::vector<FlowRow> rows = rates_.Measure(flows, now);
    SortFlows(options_.order(), rows);
    const TerminalSize size = context_.console->size();
    // Three lines for the heading, the titles and what is left out.
    const size_t room = size.height > 8 ? size.height - 5 : 3;
    const size_t limit =
        options_.limit == 0 ? room : std::min(room, options_.limit);
    const std::string text = ShowClock(now, context_.console->zone) + "  " +
                             Counted(rows.size(), "flow", "flows") +
                             "  (Ctrl-C ends)\n\n" +
                             RenderFlows(rows, true, limit, context_.layout());
    context_.out() << RedrawFrame(text, size.height, first_);
    context_.out().flush();
    first_ = false;
  }

 private:
  Context& context_;             // Outlives the screen.
  const FlowsOptions& options_;  // Outlives the screen.
  const FlowFilter filter_;
  std::mutex mutex_;
  FlowModel model_;  // Guarded by mutex_.
  FlowRates rates_;  // Drawing thread only.
  bool first_ = true;
};

absl::Status Stream(Client& client, const WatchFlowsRequest& request,
                    Interrupt& interrupt,
                    const std::function<bool(const WatchFlowsResponse&)>& on) {
  return client.Watch<FlowService::Stub, WatchFlowsRequest, WatchFlowsResponse>(
      &FlowService::Stub::WatchFlows, request, interrupt, on);
}

absl::Status ShowScreen(Context& context, const FlowsOptions& options,
                        Client& client, const WatchFlowsRequest& request,
                        Interrupt& interrupt, absl::Duration interval) {
  FlowScreen screen(context, options, request.filter());
  absl::Status status;
  std::thread reader([&] {
    do {
      status = Stream(client, request, interrupt, [&](const auto& message) {
        return screen.Apply(message);
      });
    } while (status.ok() && screen.Restart() && !interrupt.raised());
    interrupt.Raise();
  });
  interrupt.WaitFor(absl::Milliseconds(100));  // For the snapshot.
  do {
    screen.Draw();
  } while (!interrupt.WaitFor(interval));
  reader.join();
  return status;
}

void RunWatch(Context& context, const FlowsOptions& options,
              const FlowFilter& filter, absl::Duration interval) {
  Interrupt interrupt(context.console->out_fd);
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  // The stream itself has no deadline; this finds a service that hangs.
  ListFlowsRequest probe;
  *probe.mutable_filter() = filter;
  probe.set_page_size(1);
  const auto answer = (*client)->Call(&FlowService::Stub::ListFlows, probe);
  if (!answer.ok()) return context.Fail(answer.status());
  WatchFlowsRequest request;
  *request.mutable_filter() = filter;
  *request.mutable_update_interval() = ToProto(interval);
  absl::Status status;
  if (context.console->tty && !context.json) {
    status =
        ShowScreen(context, options, **client, request, interrupt, interval);
  } else {
    FlowPrinter printer(context);
    status = Stream(**client, request, interrupt, [&](const auto& message) {
      return printer.Print(message);
    });
  }
  if (!status.ok()) context.Fail(status);
}

void RunFlows(Context& context, const FlowsOptions& options) {
  const absl::StatusOr<FlowFilter> filter = ParseFilter(options.filter);
  if (!filter.ok()) return context.FailUsage(filter.status().message());
  if (!options.watch.given()) return RunList(context, options, *filter);
  const absl::StatusOr<absl::Duration> interval = options.watch.interval();
  if (!interval.ok()) return context.FailUsage(interval.status().message());
  RunWatch(context, options, *filter, *interval);
}

void AddFlows(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("flows", "List the flows of this moment");
  const auto options = std::make_shared<FlowsOptions>();
  AddFilterOptions(*command, options->filter);
  options->watch.AddTo(*command);
  command->add_option("--limit,-n", options->limit, "Show at most N flows")
      ->type_name("N");
  command
      ->add_option("--sort", options->sort,
                   "Order; rate looks twice, one second apart")
      ->type_name("ORDER")
      ->check(CLI::IsMember({"id", "bytes", "age", "idle", "rate"}));
  command->footer(
      "All filters must match. Bytes are payload; outbound is from the app.\n"
      "On a terminal --watch redraws in place; into a pipe it writes a line\n"
      "for every flow and then for every change (--sort and --limit are for\n"
      "tables).\n\n"
      "Examples:\n"
      "  netstackctl flows --sort bytes --limit 10\n"
      "  netstackctl flows --watch --sort rate\n"
      "  netstackctl flows --remote 192.0.2.0/24:443 --state open\n"
      "  netstackctl flows --remote '[2001:db8::1]:443'\n"
      "  netstackctl flows --watch --json | jq -c .changes.changes[]?");
  command->callback([&context, options] { RunFlows(context, *options); });
}

void RunClose(Context& context, const FilterText& text, bool all) {
  if (text.empty() && !all) {
    return context.FailUsage(
        "close which flows? Name them (--id, --remote, …) or say --all");
  }
  if (!text.empty() && all) {
    return context.FailUsage("either a filter or --all, not both");
  }
  const absl::StatusOr<FlowFilter> filter = ParseFilter(text);
  if (!filter.ok()) return context.FailUsage(filter.status().message());
  CloseFlowsRequest request;
  if (all) {
    request.set_all(true);
  } else {
    *request.mutable_filter() = *filter;
  }
  CallAndPrint<FlowService::Stub, CloseFlowsRequest, CloseFlowsResponse>(
      context, &FlowService::Stub::CloseFlows, request,
      [&](const CloseFlowsResponse& response) {
        context.out() << "Closed "
                      << Counted(response.closed(), "flow", "flows") << ".\n";
      });
}

void AddClose(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("close", "Reset flows, on both sides, at once");
  const auto filter = std::make_shared<FilterText>();
  const auto all = std::make_shared<bool>(false);
  AddFilterOptions(*command, *filter);
  command->add_flag("--all", *all, "Every flow; needed without a filter");
  command->footer(
      "Asks nothing. Closing none is no error.\n\n"
      "Examples:\n"
      "  netstackctl close --id 4711\n"
      "  netstackctl close --remote 192.0.2.7\n"
      "  netstackctl close --all");
  command->callback(
      [&context, filter, all] { RunClose(context, *filter, *all); });
}

}  // namespace

void AddFlowCommands(CLI::App& app, Context& context) {
  AddFlows(app, context);
  AddClose(app, context);
}

}  // namespace netstack::cli
