// dns: log, explain, flush, upstreams, reload.
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/context.h"
#include "clients/cli/dns_view.h"
#include "clients/cli/fields.h"
#include "clients/cli/flows_view.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

using netstack::v1::DnsListStatus;
using netstack::v1::DnsQuery;
using netstack::v1::DnsService;
using netstack::v1::ExplainRequest;
using netstack::v1::ExplainResponse;
using netstack::v1::FlushCacheRequest;
using netstack::v1::FlushCacheResponse;
using netstack::v1::GetUpstreamsRequest;
using netstack::v1::GetUpstreamsResponse;
using netstack::v1::ReloadListsRequest;
using netstack::v1::ReloadListsResponse;
using netstack::v1::WatchQueriesRequest;
using netstack::v1::WatchQueriesResponse;

struct LogOptions {
  std::string name;
  std::string app;
  bool filtered = false;
};

class LogPrinter {
 public:
  explicit LogPrinter(Context& context) : context_(context) {}

  bool Print(const WatchQueriesResponse& message) {
    if (context_.json) {
      context_.out() << JsonLine(message);
    } else {
      if (message.lost() > 0) {
        context_.out() << "lost " << Counted(message.lost(), "query", "queries")
                       << ": this reader is too slow\n";
      }
      for (const DnsQuery& query : message.queries()) {
        Layout layout = context_.layout();
        layout.header = first_;
        layout.width = 0;  // a name that is cut is worth nothing
        first_ = false;
        context_.out() << RenderQuery(query, context_.console->zone, layout);
      }
    }
    context_.out().flush();
    return context_.out().good();
  }

 private:
  Context& context_;  // Outlives the printer.
  bool first_ = true;
};

void RunLog(Context& context, const LogOptions& options) {
  Interrupt interrupt(context.console->out_fd);
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  // The stream itself has no deadline; this finds a service that hangs.
  const auto probe =
      (*client)->Call(&DnsService::Stub::GetUpstreams, GetUpstreamsRequest());
  if (!probe.ok()) return context.Fail(probe.status());
  WatchQueriesRequest request;
  request.set_name_suffix(options.name);
  request.set_app(options.app);
  request.set_only_filtered(options.filtered);
  LogPrinter printer(context);
  const absl::Status status =
      (*client)
          ->Watch<DnsService::Stub, WatchQueriesRequest, WatchQueriesResponse>(
              &DnsService::Stub::WatchQueries, request, interrupt,
              [&](const WatchQueriesResponse& message) {
                return printer.Print(message);
              });
  if (!status.ok()) context.Fail(status);
}

void AddLog(CLI::App& dns, Context& context) {
  CLI::App* command =
      dns.add_subcommand("log", "Show queries as they are answered");
  const auto options = std::make_shared<LogOptions>();
  command->add_option("name", options->name, "Only this name and those below")
      ->type_name("NAME");
  command->add_option("--app", options->app, "Only apps of this prefix")
      ->type_name("CIDR");
  command->add_flag("--filtered", options->filtered,
                    "Only what was blocked, rewritten or failed");
  command->footer(
      "Goes on until Ctrl-C. The service keeps no log: it begins now.\n\n"
      "Examples:\n"
      "  netstackctl dns log\n"
      "  netstackctl dns log example.com --filtered\n"
      "  netstackctl dns log --json | jq -r '.queries[]?.name'");
  command->callback([&context, options] { RunLog(context, *options); });
}

struct ExplainOptions {
  std::string what;
  std::string type = "A";
  std::string app;
  bool udp = false;
};

// "192.0.2.1", "192.0.2.1:443" or "[2001:db8::1]:443"; a name has letters
// beyond those of hexadecimal numbers, or no colon and something else.
bool IsAddress(const std::string& text) {
  if (absl::StrContains(text, ':')) return true;
  return text.find_first_not_of("0123456789.") == std::string::npos;
}

void RunExplain(Context& context, const ExplainOptions& options) {
  ExplainRequest request;
  const bool address = IsAddress(options.what);
  if (address) {
    request.set_address(options.what);
    request.set_protocol(options.udp ? netstack::v1::PROTOCOL_UDP
                                     : netstack::v1::PROTOCOL_TCP);
  } else {
    const auto type = ParseDnsType(options.type);
    if (!type.ok()) return context.FailUsage(type.status().message());
    request.set_name(options.what);
    request.set_type(*type);
  }
  request.set_app(options.app);
  CallAndPrint<DnsService::Stub, ExplainRequest, ExplainResponse>(
      context, &DnsService::Stub::Explain, request,
      [&](const ExplainResponse& response) {
        context.out() << RenderExplanation(options.what, address, response,
                                           context.layout());
      });
}

void AddExplain(CLI::App& dns, Context& context) {
  CLI::App* command = dns.add_subcommand(
      "explain", "Say what would happen to a name or an address, and why");
  const auto options = std::make_shared<ExplainOptions>();
  command->add_option("what", options->what, "The name, or ADDRESS[:PORT]")
      ->type_name("NAME")
      ->required();
  command->add_option("--type", options->type, "The record type (default A)")
      ->type_name("TYPE");
  command
      ->add_option("--app", options->app,
                   "The app's address, for rules that look at it")
      ->type_name("ADDRESS");
  command->add_flag("--udp", options->udp, "UDP to the address, not TCP");
  command->footer(
      "A dry run: nobody is asked, nothing is changed.\n\n"
      "Examples:\n"
      "  netstackctl dns explain www.example.com\n"
      "  netstackctl dns explain example.com --type HTTPS --app 10.10.0.2\n"
      "  netstackctl dns explain 192.0.2.7:443 --udp");
  command->callback([&context, options] { RunExplain(context, *options); });
}

void RunFlush(Context& context, const std::string& name, bool below, bool all) {
  if (name.empty() && !all) {
    return context.FailUsage("flush which answers? Name one, or say --all");
  }
  if (!name.empty() && all) {
    return context.FailUsage("either a name or --all, not both");
  }
  if (name.empty() && below) {
    return context.FailUsage("--subdomains of which name?");
  }
  FlushCacheRequest request;
  request.set_name(name);
  request.set_subdomains(below);
  request.set_all(all);
  CallAndPrint<DnsService::Stub, FlushCacheRequest, FlushCacheResponse>(
      context, &DnsService::Stub::FlushCache, request,
      [&](const FlushCacheResponse& response) {
        context.out() << "Forgot "
                      << Counted(response.answers(), "answer", "answers")
                      << ".\n";
      });
}

void AddFlush(CLI::App& dns, Context& context) {
  CLI::App* command = dns.add_subcommand("flush", "Forget kept answers");
  const auto name = std::make_shared<std::string>();
  const auto below = std::make_shared<bool>(false);
  const auto all = std::make_shared<bool>(false);
  command->add_option("name", *name, "Answers for this name")
      ->type_name("NAME");
  command->add_flag("--subdomains", *below, "And for all names below it");
  command->add_flag("--all", *all, "Everything; needed without a name");
  command->footer(
      "Forgetting none is no error.\n\n"
      "Examples:\n"
      "  netstackctl dns flush www.example.com\n"
      "  netstackctl dns flush example.com --subdomains\n"
      "  netstackctl dns flush --all");
  command->callback(
      [&context, name, below, all] { RunFlush(context, *name, *below, *all); });
}

void AddUpstreams(CLI::App& dns, Context& context) {
  CLI::App* command = dns.add_subcommand(
      "upstreams", "Show where answers come from, and how fast");
  command->footer(
      "Latencies are those of the last 256 answers. Below, the blocklists in\n"
      "use.\n\n"
      "Examples:\n"
      "  netstackctl dns upstreams\n"
      "  netstackctl dns upstreams --json | jq '.upstreams[].address'");
  command->callback([&context] {
    CallAndPrint<DnsService::Stub, GetUpstreamsRequest, GetUpstreamsResponse>(
        context, &DnsService::Stub::GetUpstreams, GetUpstreamsRequest(),
        [&](const GetUpstreamsResponse& response) {
          context.out() << RenderUpstreams(response, context.layout());
        });
  });
}

void AddReload(CLI::App& dns, Context& context) {
  CLI::App* command =
      dns.add_subcommand("reload", "Read the blocklists' files again");
  command->footer(
      "Answers when they are in use; until then the old ones are. When a file\n"
      "cannot be read the old ones stay, and the exit code is 1.\n\n"
      "Examples:\n"
      "  netstackctl dns reload");
  command->callback([&context] {
    CallAndPrint<DnsService::Stub, ReloadListsRequest, ReloadListsResponse>(
        context, &DnsService::Stub::ReloadLists, ReloadListsRequest(),
        [&](const ReloadListsResponse& response) {
          if (response.lists().empty()) {
            context.out() << "There are no blocklists.\n";
          }
          for (const DnsListStatus& list : response.lists()) {
            context.out() << list.name() << ": "
                          << Counted(list.names(), "name", "names") << ", "
                          << Counted(list.exceptions(), "exception",
                                     "exceptions")
                          << ", "
                          << Counted(list.skipped_lines(), "line", "lines")
                          << " skipped\n";
          }
        });
  });
}

}  // namespace

void AddDnsCommands(CLI::App& app, Context& context) {
  CLI::App* dns = app.add_subcommand("dns", "Names: log, cache, upstreams");
  dns->require_subcommand(1);
  dns->footer(
      "Examples:\n"
      "  netstackctl dns log --filtered\n"
      "  netstackctl dns explain ads.example.com");
  AddLog(*dns, context);
  AddExplain(*dns, context);
  AddFlush(*dns, context);
  AddUpstreams(*dns, context);
  AddReload(*dns, context);
}

}  // namespace netstack::cli
