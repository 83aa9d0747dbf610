// netstack.v1.Config and what the service works with: conversion both ways,
// limits of the control part, field masks and differences.
#ifndef SERVER_CONFIG_CONVERT_H_
#define SERVER_CONFIG_CONVERT_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/engine/config.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/field_mask.pb.h"
#include "netstack/v1/config.pb.h"
#include "server/control_d_config.h"

namespace netstack::server {

// The control part, checked. Meaning and limits: netstack/v1/config.proto.
struct ControlConfig {
  std::vector<uint32_t> allowed_uids;
  uint32_t max_connections = 64;
  uint32_t max_watchers = 64;
  uint32_t watch_queue = 1024;
  Duration stall_timeout = std::chrono::seconds(10);
};

// The app that the service works for. Meaning: netstack/v1/config.proto.
struct AppConfig {
  bool close_on_death = false;
  Duration descriptor_timeout = std::chrono::seconds(30);
  uint32_t max_descriptors = 8;
};

// A config that can be used.
struct CheckedConfig {
  v1::Config proto;  // as set
  Config core;
  ControlConfig control;
  ControlDConfig control_d;
  AppConfig app;
};

// Checks everything and names every problem: INVALID_CONFIG, see errors.h.
absl::StatusOr<CheckedConfig> CheckConfig(const v1::Config& proto);

// Every default written out, secrets hidden.
v1::Config Effective(const CheckedConfig& config);

// `current` after the change that UpdateConfigRequest describes; secrets that
// `change` leaves as they are are kept.
// INVALID_REQUEST names mask paths that do not exist.
absl::StatusOr<v1::Config> Merge(const v1::Config& current,
                                 const v1::Config& change,
                                 const google::protobuf::FieldMask& mask);

// Paths of leaf fields ("tcp.buffer_max") in which two effective configs
// differ, in the order of the proto.
std::vector<std::string> Difference(const v1::Config& a, const v1::Config& b);

// A protobuf Duration; false when it is not valid or beyond 292 years.
bool FromProto(const google::protobuf::Duration& d, Duration* out);
void ToProto(Duration d, google::protobuf::Duration* out);

}  // namespace netstack::server

#endif  // SERVER_CONFIG_CONVERT_H_
