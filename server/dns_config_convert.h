// netstack.v1.DnsConfig and the core's DnsConfig: conversion both ways. What
// the core's Validate() cannot see, because it is lost in the conversion, is
// checked here.
#ifndef SERVER_DNS_CONFIG_CONVERT_H_
#define SERVER_DNS_CONFIG_CONVERT_H_

#include <vector>

#include "core/engine/config.h"
#include "netstack/v1/dns_config.pb.h"

namespace netstack::server {

// Appends what is wrong to `problems`, by field path
// ("dns.rules[2].clients[0]").
void ReadDns(const v1::DnsConfig& in, DnsConfig& out,
             std::vector<ConfigProblem>& problems);

// Every default written out.
void WriteDns(const DnsConfig& in, v1::DnsConfig& out);

v1::DnsTransport ToProto(DnsUpstreamTransport transport);

}  // namespace netstack::server

#endif  // SERVER_DNS_CONFIG_CONVERT_H_
