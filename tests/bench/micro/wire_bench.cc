// Parsing and checksums.
#include <benchmark/benchmark.h>

#include <vector>

#include "core/wire/checksum.h"
#include "core/wire/headers.h"
#include "core/wire/packet.h"

namespace netstack::bench {
namespace {

// A valid TCP packet with `payload` zeros.
std::vector<std::byte> MakePacket(bool v4, size_t payload) {
  IpHeaderFields ip;
  if (v4) {
    ip.source = IpAddress::V4(10, 10, 0, 2);
    ip.destination = IpAddress::V4(10, 77, 1, 2);
  } else {
    ip.source = *IpAddress::Parse("fd10::2");
    ip.destination = *IpAddress::Parse("fd77:1::2");
  }
  ip.protocol = ip_protocol::kTcp;
  const size_t tcp_size = kTcpHeaderSize + payload;
  std::vector<std::byte> packet(IpHeaderSize(v4) + tcp_size);
  std::byte* tcp = packet.data() + WriteIpHeader(ip, tcp_size, packet.data());
  Store16(tcp, 40000);
  Store16(tcp + 2, 80);
  Store8(tcp + 12, 0x50);
  Store8(tcp + 13, tcp_flag::kAck);
  ChecksumAccumulator sum =
      PseudoHeader(ip.source, ip.destination, ip_protocol::kTcp,
                   static_cast<uint32_t>(tcp_size));
  sum.Add({tcp, tcp_size});
  Store16(tcp + 16, sum.Finish());
  return packet;
}

void Parse(benchmark::State& state, bool v4, ChecksumTrust trust) {
  const std::vector<std::byte> packet = MakePacket(v4, 1400);
  for (auto _ : state) {
    const OrDrop<Packet> parsed = ParsePacket(packet);
    const OrDrop<TcpSegment> tcp = ParseTcp(*parsed, trust);
    if (!tcp) return state.SkipWithError("the packet is not valid");
    benchmark::DoNotOptimize(tcp->seq);
  }
}
BENCHMARK_CAPTURE(Parse, V4, true, ChecksumTrust::kTrusted);
BENCHMARK_CAPTURE(Parse, V6, false, ChecksumTrust::kTrusted);
BENCHMARK_CAPTURE(Parse, V4Verify1440, true, ChecksumTrust::kVerify);
BENCHMARK_CAPTURE(Parse, V6Verify1460, false, ChecksumTrust::kVerify);

void Sum(benchmark::State& state) {
  const std::vector<std::byte> bytes(static_cast<size_t>(state.range(0)),
                                     std::byte{0x5A});
  for (auto _ : state) benchmark::DoNotOptimize(Checksum(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(Sum)->Name("Checksum")->Arg(20)->Arg(1460)->Arg(65536);

}  // namespace
}  // namespace netstack::bench
