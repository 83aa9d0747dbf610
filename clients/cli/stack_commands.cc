// start, stop and status.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/context.h"
#include "clients/cli/format.h"
#include "clients/cli/status_view.h"

namespace netstack::cli {
namespace {

using netstack::v1::GetStatsRequest;
using netstack::v1::GetStatusRequest;
using netstack::v1::GetStatusResponse;
using netstack::v1::NetstackService;
using netstack::v1::StackStatus;
using netstack::v1::StartRequest;
using netstack::v1::StartResponse;
using netstack::v1::StopRequest;
using netstack::v1::StopResponse;

void RunStart(Context& context) {
  CallAndPrint<NetstackService::Stub, StartRequest, StartResponse>(
      context, &NetstackService::Stub::Start, {},
      [&](const StartResponse& response) {
        const StackStatus& status = response.status();
        context.out() << "Started on " << TunText(status.tun()) << ".\n"
                      << "Room for "
                      << Counted(status.flow_limit(), "flow", "flows")
                      << "; not carried: " << KindsText(status.unsupported())
                      << ".\n";
      });
}

void RunStop(Context& context, const std::string& pin, bool restart) {
  StopRequest request;
  request.set_pin(pin);
  request.set_restart(restart);
  CallAndPrint<NetstackService::Stub, StopRequest, StopResponse>(
      context, &NetstackService::Stub::Stop, request,
      [&](const StopResponse& response) {
        context.out() << (!response.stopped() ? "No stack was running.\n"
                          : restart           ? "Stopped and started.\n"
                                              : "Stopped.\n");
      });
}

void RunStatus(Context& context) {
  const auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto status =
      (*client)->Call(&NetstackService::Stub::GetStatus, GetStatusRequest());
  if (!status.ok()) return context.Fail(status.status());
  if (context.json) {
    context.out() << JsonDocument(*status);
    return;
  }
  const auto stats =
      (*client)->Call(&NetstackService::Stub::GetStats, GetStatsRequest());
  if (!stats.ok()) return context.Fail(stats.status());
  context.out() << RenderStatus(status->status(), stats->stats(),
                                (*client)->socket(), context.console->zone,
                                context.layout());
}

}  // namespace

void AddStackCommands(CLI::App& app, Context& context) {
  CLI::App* start =
      app.add_subcommand("start", "Open the TUN and start the stack");
  start->footer(
      "Starts with the config that \"config get\" shows. Refused (exit code\n"
      "1) while a stack runs.\n\n"
      "Examples:\n"
      "  netstackctl start\n"
      "  netstackctl config set tun.name=tun7 && netstackctl start");
  start->callback([&context] { RunStart(context); });

  CLI::App* stop =
      app.add_subcommand("stop", "Reset every flow and close the TUN");
  stop->footer(
      "No error when no stack runs. Where Control D has set a deactivation\n"
      "PIN, --pin is needed; a restart needs none.\n\n"
      "Examples:\n"
      "  netstackctl stop\n"
      "  netstackctl stop --pin 0042\n"
      "  netstackctl stop --restart");
  const auto pin = std::make_shared<std::string>();
  const auto restart = std::make_shared<bool>(false);
  stop->add_option("--pin", *pin, "The deactivation PIN")
      ->type_name("PIN")
      ->envname("NETSTACK_PIN");
  stop->add_flag("--restart", *restart, "Start again at once");
  stop->callback(
      [&context, pin, restart] { RunStop(context, *pin, *restart); });

  CLI::App* status =
      app.add_subcommand("status", "Tell what runs, on one screen");
  status->footer(
      "Exit code 0 whenever the service answers, stack or no stack.\n\n"
      "Examples:\n"
      "  netstackctl status\n"
      "  netstackctl status --json | jq -r .status.state");
  status->callback([&context] { RunStatus(context); });
}

}  // namespace netstack::cli
