#include "clients/embed/netstack.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "core/engine/runtime.h"
#include "core/platform/packet_tun.h"
#include "server/config_convert.h"
#include "server/config_file.h"
#include "server/control_server.h"

struct netstack_service {
  std::shared_ptr<netstack::PacketPipe> pipe;  // null: there is a descriptor
  std::unique_ptr<netstack::server::ControlServer> server;
};

namespace {

using netstack::Bytes;
using netstack::Runtime;
using netstack::server::CheckedConfig;
using netstack::server::ControlServer;

constexpr auto kShutdown = std::chrono::seconds(1);

// One at a time: lwIP's state and gRPC's are the process' own.
std::atomic<bool> running{false};

struct Failure {
  netstack_result result;
  std::string why;
};

netstack_result ResultOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return NETSTACK_INVALID;
    default:
      return NETSTACK_REFUSED;
  }
}

absl::StatusOr<CheckedConfig> ReadConfig(const char* text) {
  netstack::v1::Config proto;
  if (text != nullptr) {
    // The name only chooses the syntax: the first character tells.
    auto parsed = netstack::server::ParseConfig("config", text);
    if (!parsed.ok()) return parsed.status();
    proto = *std::move(parsed);
  }
  return netstack::server::CheckConfig(proto);
}

// Makes the engine with the app's callbacks around it.
netstack::server::Stack::Factory FactoryFor(
    const netstack_options& options,
    std::shared_ptr<netstack::PacketPipe> pipe) {
  return [options, pipe = std::move(pipe)](const netstack::Config& config,
                                           netstack::Observer* observer) {
    Runtime::Embedding embedding;
    if (options.protect != nullptr) {
      embedding.protect = [protect = options.protect,
                           context = options.context](int fd) {
        return protect(context, fd) == 0 ? 0 : -EPERM;
      };
    }
    // A TUN that Start or ReplaceTun names goes before.
    if (pipe != nullptr && config.tun.fd < 0) {
      embedding.tun = netstack::NewPacketTun(
          pipe, config.tun.mtu,
          [write = options.write_packet,
           context = options.context](Bytes packet) {
            return -write(context,
                          reinterpret_cast<const uint8_t*>(packet.data()),
                          packet.size());
          });
    }
    return Runtime::StartEmbedded(config, observer, std::move(embedding));
  };
}

absl::Status StartStack(ControlServer& server, int tun_fd, uint32_t mtu) {
  netstack::v1::StartRequest request;
  if (tun_fd >= 0) request.mutable_tun()->set_fd(tun_fd);
  if (mtu != 0) request.mutable_tun()->set_mtu(mtu);
  return server.StartStack(std::move(request));
}

Failure Start(const netstack_options& options, netstack_service** out) {
  if (options.socket_path == nullptr) {
    return {NETSTACK_INVALID, "socket_path is missing."};
  }
  if (options.tun_fd >= 0 && options.write_packet != nullptr) {
    return {NETSTACK_INVALID, "tun_fd and write_packet exclude each other."};
  }
  auto config = ReadConfig(options.config);
  if (!config.ok()) {
    return {NETSTACK_INVALID, std::string(config.status().message())};
  }
  auto made = std::make_unique<netstack_service>();
  if (options.write_packet != nullptr) {
    auto pipe = netstack::PacketPipe::Make();
    if (!pipe.ok()) {
      return {NETSTACK_REFUSED, std::string(pipe.status().message())};
    }
    made->pipe = *std::move(pipe);
  }
  ControlServer::Options server_options;
  server_options.socket_path = options.socket_path;
  server_options.config = *std::move(config);
  server_options.embedded = true;
  server_options.factory = FactoryFor(options, made->pipe);
  auto server = ControlServer::Start(std::move(server_options));
  if (!server.ok()) {
    return {ResultOf(server.status()),
            std::string(server.status().message())};
  }
  made->server = *std::move(server);
  if (options.tun_fd >= 0 || options.write_packet != nullptr) {
    const absl::Status started =
        StartStack(*made->server, options.tun_fd, options.mtu);
    if (!started.ok()) {
      made->server->Shutdown(kShutdown);
      return {ResultOf(started), std::string(started.message())};
    }
  }
  *out = made.release();
  return {NETSTACK_OK, ""};
}

}  // namespace

extern "C" {

void netstack_options_init(netstack_options* options) {
  std::memset(options, 0, sizeof *options);
  options->size = sizeof *options;
  options->tun_fd = -1;
}

netstack_result netstack_start(const netstack_options* options, netstack_service** out,
                               char* why, size_t why_size) {
  *out = nullptr;
  Failure failure = {NETSTACK_INVALID,
                     "options were not made by netstack_options_init()."};
  if (options->size == sizeof *options) {
    failure = {NETSTACK_BUSY, "a netstack runs in this process already."};
    if (!running.exchange(true)) {
      try {
        failure = Start(*options, out);
      } catch (const std::exception& e) {  // no memory, no thread
        failure = {NETSTACK_REFUSED, e.what()};
      }
      if (*out == nullptr) running = false;
    }
  }
  if (why != nullptr && why_size != 0) {
    const size_t n = std::min(failure.why.size(), why_size - 1);
    std::memcpy(why, failure.why.data(), n);
    why[n] = '\0';
  }
  return failure.result;
}

int netstack_input(netstack_service* n, const void* packet, size_t size) {
  if (n->pipe == nullptr || size == 0) return EINVAL;
  return -n->pipe->Input({static_cast<const std::byte*>(packet), size});
}

void netstack_stop(netstack_service* n) {
  if (n == nullptr) return;
  n->server->Shutdown(kShutdown);
  delete n;
  running = false;
}

const char* netstack_version(void) { return NETSTACK_VERSION; }

}  // extern "C"
