// A TUN in memory: the test is the apps' kernel.
//
//   ScriptedTun tun;
//   tun.Push(MakeTcpPacket(kV4, {.flags = tcp_flag::kSyn}));
//   ... the code under test reads it and writes ...
//   ASSERT_EQ(tun.written().size(), 1u);
#ifndef TESTS_SUPPORT_SCRIPTED_TUN_H_
#define TESTS_SUPPORT_SCRIPTED_TUN_H_

#include <cerrno>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/platform/tun.h"

namespace netstack::test {

class ScriptedTun final : public Tun {
 public:
  // The number that fd() tells; no descriptor of that number is used.
  static constexpr int kFd = 50;

  struct Written {
    std::vector<std::byte> bytes;
    TunWrite how;
  };

  struct Options {
    bool offload = false;
    bool udp_offload = false;
    uint32_t mtu = 1500;
  };
  ScriptedTun() : ScriptedTun(Options{}) {}
  explicit ScriptedTun(const Options& options) : options_(options) {}

  // Queues a packet for Read(). More than the MTU only with offload.
  void Push(Bytes packet, bool checksum_trusted = false,
            uint16_t udp_segment = 0);
  // From now on Read() returns -error once the queue is empty; 0: nothing to
  // read, as at the beginning.
  void FailReads(int error) { read_error_ = error; }
  // The next `count` writes return -error and store nothing.
  void FailWrites(int error, size_t count = SIZE_MAX) {
    write_error_ = error;
    write_failures_ = count;
  }
  // As FailWrites(EAGAIN), until AllowWrites().
  void BlockWrites() { FailWrites(EAGAIN); }
  void AllowWrites() { write_failures_ = 0; }
  // Takes `count` writes, and is full again.
  void AllowWrites(size_t count) { write_room_ = count; }

  size_t unread() const { return packets_.size(); }
  size_t failed_writes() const { return failed_writes_; }
  const std::vector<Written>& written() const { return written_; }
  // What was written since the last call.
  std::vector<Written> TakeWritten() { return std::exchange(written_, {}); }

  int fd() const override { return kFd; }
  const std::string& name() const override { return name_; }
  uint32_t mtu() const override { return options_.mtu; }
  bool offload() const override { return options_.offload; }
  bool udp_offload() const override { return options_.udp_offload; }
  TunRead Read(std::span<const MutableBytes> parts) override;
  // Fails the test when the kernel would refuse: too many parts, a packet
  // beyond the MTU that is not to be cut, offload where there is none.
  int Write(std::span<const Bytes> parts, const TunWrite& how) override;

 private:
  struct Packet {
    std::vector<std::byte> bytes;
    bool checksum_trusted = false;
    uint16_t udp_segment = 0;
  };

  const Options options_;
  const std::string name_ = "scripted0";
  std::deque<Packet> packets_;
  std::vector<Written> written_;
  int read_error_ = 0;
  int write_error_ = 0;
  size_t write_failures_ = 0;
  size_t write_room_ = 0;  // before those
  size_t failed_writes_ = 0;
};

}  // namespace netstack::test

#endif  // TESTS_SUPPORT_SCRIPTED_TUN_H_
