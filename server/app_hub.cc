#include "server/app_hub.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert.h"
#include "server/errors.h"

namespace netstack::server {
namespace {

constexpr int kMaxText = 255;
constexpr int kMaxDnsServers = 16;
constexpr size_t kMaxInterface = 15;

absl::Status Bad(const std::string& field, const std::string& problem) {
  return InvalidFields("INVALID_REQUEST", {{field, problem}});
}

// Names the texts that are too long.
absl::Status CheckTexts(const v1::AppHello& hello) {
  std::vector<ConfigProblem> problems;
  const auto* r = hello.GetReflection();
  const auto* type = hello.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto* f = type->field(i);
    if (f->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
      continue;
    }
    const auto size = r->GetString(hello, f).size();
    if (size <= kMaxText) continue;
    problems.push_back({absl::StrCat("hello.", f->name()),
                        absl::StrCat("it has ", size, " bytes, but at most ",
                                     kMaxText, " are possible.")});
  }
  if (!hello.lan_address().empty() &&
      !IpAddress::Parse(hello.lan_address())) {
    problems.push_back({"hello.lan_address", "not an address."});
  }
  if (problems.empty()) return absl::OkStatus();
  return InvalidFields("INVALID_REQUEST", problems);
}

v1::AttachResponse ExitMessage(v1::ExitReason reason, std::string why) {
  v1::AttachResponse out;
  out.mutable_exit()->set_reason(reason);
  out.mutable_exit()->set_message(std::move(why));
  return out;
}

}  // namespace

// --- one stream -------------------------------------------------------------

void AppStream::Begin() {
  self_ = shared_from_this();
  StartRead(&in_);
}

void AppStream::OnReadDone(bool ok) {
  if (!ok) return End(absl::OkStatus());
  const absl::Status status = Handle();
  if (!status.ok()) return End(status);
  StartRead(&in_);
}

absl::Status AppStream::Handle() {
  bool attached = false;
  {
    MutexLock lock(mu_);
    attached = attached_;
  }
  if (in_.has_hello() == attached) {
    return attached ? Bad("hello", "it was sent before.")
                    : Bad("hello", "the first message must be one.");
  }
  switch (in_.payload_case()) {
    case v1::AttachRequest::kHello:
      return HandleHello(in_.hello());
    case v1::AttachRequest::kNetworkChanged:
      return HandleNetwork(in_.network_changed());
    case v1::AttachRequest::kPowerChanged:
      hub_->Power(in_.power_changed());
      return absl::OkStatus();
    case v1::AttachRequest::kOwnerAnswer:
      HandleOwner(in_.owner_answer());
      return absl::OkStatus();
    case v1::AttachRequest::kGoodbye: {
      MutexLock lock(mu_);
      goodbye_ = true;
      return absl::OkStatus();
    }
    case v1::AttachRequest::PAYLOAD_NOT_SET:
      // Of a newer app: something that we need not know.
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status AppStream::HandleHello(const v1::AppHello& hello) {
  if (absl::Status s = CheckTexts(hello); !s.ok()) return s;
  hello_ = hello;
  // Before the hub may send anything else.
  v1::AttachResponse welcome;
  welcome.mutable_welcome()->set_version(NETSTACK_VERSION);
  welcome.mutable_welcome()->set_attachment(id_);
  Send(std::move(welcome));
  if (absl::Status s = hub_->Attached(shared_from_this()); !s.ok()) return s;
  MutexLock lock(mu_);
  attached_ = true;
  return absl::OkStatus();
}

absl::Status AppStream::HandleNetwork(const v1::NetworkChanged& changed) {
  NetworkChange change;
  if (changed.interface().size() > kMaxInterface) {
    return Bad("network_changed.interface",
               absl::StrCat("it has more than ", kMaxInterface, " bytes."));
  }
  change.interface = changed.interface();
  if (changed.dns_servers_size() > kMaxDnsServers) {
    return Bad("network_changed.dns_servers",
               absl::StrCat("more than ", kMaxDnsServers, "."));
  }
  for (int i = 0; i < changed.dns_servers_size(); ++i) {
    const auto ip = IpAddress::Parse(changed.dns_servers(i));
    if (!ip) {
      return Bad(absl::StrCat("network_changed.dns_servers[", i, "]"),
                 "not an address.");
    }
    change.dns_servers.push_back(*ip);
  }
  change.none = changed.kind() == v1::NETWORK_KIND_NONE;
  change.reset_all = changed.reset_all_flows();
  hub_->Network(shared_from_this(), change);
  return absl::OkStatus();
}

void AppStream::HandleOwner(const v1::OwnerAnswer& answer) {
  FlowOwner owner;
  if (answer.owner().has_uid()) owner.uid = answer.owner().uid();
  owner.package = answer.owner().package().substr(0, kMaxText);
  if (answer.owner().has_pid()) owner.pid = answer.owner().pid();
  owner.process = answer.owner().process().substr(0, kMaxText);
  hub_->Owner(answer.id(), owner);
}

void AppStream::Send(v1::AttachResponse message) {
  {
    MutexLock lock(mu_);
    if (end_) return;
    if (queue_.size() >= kQueue) {
      ++lost_;
      return;
    }
    if (lost_ != 0) {
      v1::AttachResponse loss;
      loss.mutable_loss()->set_messages(std::exchange(lost_, 0));
      queue_.push_back(std::move(loss));
    }
    queue_.push_back(std::move(message));
  }
  Pump();
}

void AppStream::End(const absl::Status& why) {
  {
    MutexLock lock(mu_);
    if (!end_) {
      end_ = why;
      ended_by_us_ = !why.ok();
    }
  }
  Pump();
}

void AppStream::OnWriteDone(bool ok) {
  {
    MutexLock lock(mu_);
    writing_ = false;
    if (!ok) broken_ = true;
  }
  Pump();
}

void AppStream::OnCancel() {
  {
    MutexLock lock(mu_);
    broken_ = true;
    if (!end_) end_ = absl::CancelledError("the call is gone");
  }
  Pump();
}

void AppStream::Pump() {
  // Finish() below may let OnDone() run at once on another thread.
  const std::shared_ptr<AppStream> keep = shared_from_this();
  mu_.Lock();
  if (writing_ || finished_) {
    mu_.Unlock();
    return;
  }
  if (!broken_ && !queue_.empty()) {
    out_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    mu_.Unlock();
    StartWrite(&out_);
    return;
  }
  if (end_) {
    finished_ = true;
    const absl::Status end = *end_;
    mu_.Unlock();
    Finish(ToGrpc(end));
    return;
  }
  mu_.Unlock();
}

void AppStream::OnDone() {
  bool attached = false;
  bool goodbye = false;
  bool by_us = false;
  {
    MutexLock lock(mu_);
    attached = attached_;
    goodbye = goodbye_;
    by_us = ended_by_us_;
  }
  hub_->Gone(this, attached, goodbye, by_us);
  const std::shared_ptr<AppStream> last = std::move(self_);
}

// --- all of them ------------------------------------------------------------

AppHub::AppHub(Stack* stack, EventLog* events, ControlCounters* counters,
               Worker* worker)
    : stack_(stack),
      events_(events),
      counters_(counters),
      worker_(worker),
      seen_(events->newest()) {
  events_->Subscribe(this, [this] {
    worker_->Post([this, alive = alive_] {
      if (*alive) FollowEvents();
    });
  });
}

AppHub::~AppHub() {
  *alive_ = false;
  events_->Unsubscribe(this);
}

grpc::ServerBidiReactor<v1::AttachRequest, v1::AttachResponse>*
AppHub::Attach() {
  uint64_t id = 0;
  {
    MutexLock lock(mu_);
    id = next_id_++;
  }
  auto stream = std::make_shared<AppStream>(this, id);
  stream->Begin();
  return stream.get();
}

absl::Status AppHub::Attached(const std::shared_ptr<AppStream>& app) {
  {
    MutexLock lock(mu_);
    if (shut_down_) return ShuttingDown();
    if (apps_.size() >= kMaxApps) {
      return Refusal(absl::StatusCode::kResourceExhausted, "TOO_MANY_APPS",
                     absl::StrCat(kMaxApps, " apps are attached already."));
    }
    apps_[app->id()] = app;
    counters_->apps = static_cast<uint32_t>(apps_.size());
  }
  if (app->hello().owns_tun()) stack_->OwnerIsBack();
  events_->Add(v1::EVENT_TYPE_APP_ATTACHED,
               absl::StrCat("App ", app->hello().package(),
                            " attached (attachment ", app->id(), ")."));
  return absl::OkStatus();
}

void AppHub::Gone(AppStream* app, bool attached, bool goodbye, bool by_us) {
  if (!attached) return;
  {
    MutexLock lock(mu_);
    apps_.erase(app->id());
    counters_->apps = static_cast<uint32_t>(apps_.size());
  }
  const std::string who = absl::StrCat("App ", app->hello().package(),
                                       " (attachment ", app->id(), ")");
  if (!goodbye && !by_us && app->hello().owns_tun()) {
    stack_->OwnerGone(
        absl::StrCat(who, " is gone: its stream ended without a goodbye."));
    return;
  }
  events_->Add(v1::EVENT_TYPE_APP_DETACHED,
               absl::StrCat(who, goodbye  ? " said goodbye."
                                 : by_us ? " was let go."
                                         : " is gone."));
}

void AppHub::OnOwnerWanted(uint64_t flow_id, const FlowKey& key) {
  ++counters_->owner_queries;
  std::shared_ptr<AppStream> app;
  {
    MutexLock lock(mu_);
    for (auto it = apps_.rbegin(); it != apps_.rend() && !app; ++it) {
      if (it->second->hello().answers_owners()) app = it->second;
    }
  }
  v1::AttachResponse query;
  query.mutable_owner_query()->set_id(flow_id);
  ToProto(key, query.mutable_owner_query()->mutable_key());
  // On the worker: nothing of gRPC's runs on the loop thread.
  worker_->Post([this, alive = alive_, app = std::move(app), flow_id,
                 query = std::move(query)]() mutable {
    if (!*alive) return;
    if (app == nullptr) return Owner(flow_id, {});
    app->Send(std::move(query));
  });
}

void AppHub::Owner(uint64_t flow_id, const FlowOwner& owner) {
  if (owner.known()) ++counters_->owner_answers;
  stack_->Ask(
      [flow_id, owner](Engine& engine, FlowHub&) {
        engine.SetOwner(flow_id, owner);
        return true;
      },
      [](const absl::StatusOr<bool>&, uint64_t) {});
}

void AppHub::Network(const std::shared_ptr<AppStream>& app,
                     const NetworkChange& change) {
  {
    MutexLock lock(mu_);
    network_ = change;
    network_->reset_all = false;
  }
  stack_->Ask(
      [change](Engine& engine, FlowHub&) {
        return engine.OnNetworkChanged(change);
      },
      [app](const absl::StatusOr<NetworkHandled>& handled, uint64_t) {
        v1::AttachResponse out;
        v1::NetworkHandled* h = out.mutable_network_handled();
        if (handled.ok()) {
          h->set_flows_reset(handled->reset);
          h->set_flows_kept(handled->kept);
        }
        app->Send(std::move(out));
      });
}

void AppHub::Power(const v1::PowerChanged& changed) {
  bool saving = false;
  {
    MutexLock lock(mu_);
    if (changed.has_doze()) doze_ = changed.doze();
    if (changed.has_battery_saver()) battery_saver_ = changed.battery_saver();
    saving = doze_ || battery_saver_;
  }
  stack_->Ask(
      [saving](Engine& engine, FlowHub&) {
        engine.SetPowerSaving(saving);
        return true;
      },
      [](const absl::StatusOr<bool>&, uint64_t) {});
}

// What apps have said holds for the next run of the stack, too.
void AppHub::ApplyAgain() {
  std::optional<NetworkChange> network;
  {
    MutexLock lock(mu_);
    network = network_;
  }
  Power({});
  if (!network) return;
  stack_->Ask(
      [change = *network](Engine& engine, FlowHub&) {
        return engine.OnNetworkChanged(change);
      },
      [](const absl::StatusOr<NetworkHandled>&, uint64_t) {});
}

void AppHub::FollowEvents() {
  for (;;) {
    const EventLog::Read read = events_->After(seen_);
    if (!read.event) return;
    seen_ = read.event->sequence();
    v1::AttachResponse out;
    switch (read.event->type()) {
      case v1::EVENT_TYPE_LOOP_DETECTED:
        out.mutable_loop_found()->set_message(read.event->message());
        break;
      case v1::EVENT_TYPE_UPSTREAM_DOWN:
        out.mutable_upstream_down()->set_message(read.event->message());
        break;
      case v1::EVENT_TYPE_DEVICE_GONE:
        out = ExitMessage(v1::EXIT_REASON_DEVICE_REMOVED,
                          read.event->message());
        break;
      case v1::EVENT_TYPE_STACK_STOPPED:
        out = ExitMessage(v1::EXIT_REASON_STACK_STOPPED,
                          read.event->message());
        break;
      case v1::EVENT_TYPE_STACK_FAILED:
        out = ExitMessage(v1::EXIT_REASON_STACK_FAILED, read.event->message());
        break;
      case v1::EVENT_TYPE_STACK_STARTED:
        ApplyAgain();
        continue;
      default:
        continue;
    }
    Tell(out);
  }
}

void AppHub::Tell(const v1::AttachResponse& message) {
  std::vector<std::shared_ptr<AppStream>> apps;
  {
    MutexLock lock(mu_);
    for (const auto& [id, app] : apps_) apps.push_back(app);
  }
  for (const auto& app : apps) app->Send(message);
}

void AppHub::Shutdown() {
  std::vector<std::shared_ptr<AppStream>> apps;
  {
    MutexLock lock(mu_);
    shut_down_ = true;
    for (const auto& [id, app] : apps_) apps.push_back(app);
  }
  for (const auto& app : apps) {
    app->Send(ExitMessage(v1::EXIT_REASON_SERVICE_STOPPED,
                          "The service is shutting down."));
    app->End(ShuttingDown());
  }
}

}  // namespace netstack::server
