// TCP towards the apps: unmodified lwIP, one connection at a time.
//
//   engine->Accept(conn, key, syn, now);            // SYN -> SYN-ACK
//   TcpEvents e = engine->Input(conn, key, segment, now);
//   taken = send(engine->received());               // straight from the packet
//   engine->Consumed(conn, taken);                  // and more as time goes by
//   engine->Finish(conn, key, now);                 // one ACK, and what it lets
//                                                   // us send
//
// Every method is for the loop thread, and none may be called from within a
// SegmentSink. A TcpConn has no thread, timer or memory of its own beyond its
// pcb and the chunks queued in it: the caller asks Deadline() after each call
// and calls Tick() then.
#ifndef CORE_LWIP_TCP_ENGINE_H_
#define CORE_LWIP_TCP_ENGINE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/drop_reason.h"
#include "core/base/siphash.h"
#include "core/base/time.h"
#include "core/flow/buffer_pool.h"
#include "core/flow/flow_key.h"
#include "core/lwip/segment_sink.h"
#include "core/wire/packet.h"

struct pbuf;
struct tcp_pcb;

namespace netstack {

// One connection. Plain data inside the flow record; only TcpEngine writes
// it. When `pcb` is null nothing else in it is owned either.
struct TcpConn {
  tcp_pcb* pcb = nullptr;

  // Inbound bytes: chunks that the app has not acknowledged, in order.
  // [tx_head, tx_next) is in lwIP, of tx_next the first tx_offset bytes too.
  Chunk* tx_head = nullptr;
  Chunk* tx_tail = nullptr;
  Chunk* tx_next = nullptr;
  uint32_t tx_offset = 0;
  uint32_t tx_bytes = 0;     // sum of the sizes of all of them
  uint32_t tx_base_seq = 0;  // sequence number of tx_head's first byte

  uint32_t rx_limit = 0;    // window that the app shall have
  uint32_t rx_pending = 0;  // delivered and not yet consumed
  uint32_t rx_unacked = 0;  // payload since our last ACK
  uint32_t rx_promised = 0;  // of rx_limit, taken from the memory budget

  uint64_t packets = 0;     // segments sent to the app

  uint16_t mss = 0;  // the app's MSS, at most the TUN's MTU allows
  bool established : 1 = false;
  bool app_fin : 1 = false;      // the app's FIN was delivered
  bool fin_wanted : 1 = false;   // Shutdown() was called
  bool fin_queued : 1 = false;   // and lwIP has the FIN
  bool ack_pending : 1 = false;  // Finish() owes the app an ACK
  bool blocked : 1 = false;      // the TUN took nothing; Retry() on writable
  bool starved : 1 = false;      // lwIP had no memory; the timer tries again

  Instant ack_due = kNever;   // delayed ACK
  Instant slow_due = kNever;  // lwIP's slow timer, while it is busy
};

// The SYN, as far as it matters to us.
struct SynFacts {
  uint32_t seq = 0;
  uint16_t window = 0;
  SynOptions options;
};

// What one call brought about.
struct TcpEvents {
  // The segment was not given to lwIP, for this reason.
  std::optional<DropReason> drop;
  bool established = false;  // the app's handshake is complete
  bool app_fin = false;      // no more payload will come
  bool gone = false;         // the pcb is free: reset, timed out or done
  bool reset = false;        // gone, by the app's RST
  bool timed_out = false;    // gone, the app did not acknowledge
  bool poisoned = false;     // an assertion failed: Abort() the connection
  uint32_t delivered = 0;    // bytes in received()
  uint32_t acknowledged = 0;  // inbound payload bytes the app acknowledged
};

class TcpEngine {
 public:
  struct Options {
    uint32_t mtu = 1500;  // of the TUN; decides the MSS that we announce
    uint32_t rx_floor = 64 * 1024;   // window always granted, 16 KiB - 4 MiB
    uint32_t rx_max = 1024 * 1024;   // and what it may grow to
    // Below Linux' minimum RTO of 200 ms, so that no app retransmits.
    Duration delayed_ack = std::chrono::milliseconds(40);
    SipHashKey isn_key;  // fresh random bits for every start (RFC 6528)
    // A failed lwIP assertion: abort the process (tests, fuzzers), or count
    // it and poison the flow.
    bool abort_on_assert = false;
  };
  struct Counters {
    uint64_t retransmits = 0;
    uint64_t asserts = 0;
    std::string last_assert;
  };

  // lwIP is process-global: FAILED_PRECONDITION while another engine lives.
  // `pool` and `sink` outlive the engine.
  static absl::StatusOr<std::unique_ptr<TcpEngine>> Create(
      const Options& options, BufferPool* pool, SegmentSink* sink);
  ~TcpEngine();  // every TcpConn was aborted or is gone
  TcpEngine(const TcpEngine&) = delete;
  TcpEngine& operator=(const TcpEngine&) = delete;

  // rx_floor, rx_max, delayed_ack; for connections from now on.
  void Configure(const Options& options);

  // --- outbound: what the app sends -------------------------------------

  // Answers the app's SYN with SYN-ACK. False when memory fails: the app's
  // next SYN may try again.
  bool Accept(TcpConn& c, const FlowKey& key, const SynFacts& syn,
              Instant now);

  // Takes one segment of the app, which may be a super-segment. The 20 bytes
  // before segment.payload belong to the caller's packet buffer, are mutable
  // and dead: the engine overwrites them. The buffer must stay as long as
  // received() is used, at most until Consumed(); Finish() has to follow, at
  // once or after more calls of Input().
  TcpEvents Input(TcpConn& c, const FlowKey& key, const TcpSegment& segment,
                  Instant now);
  // The in-order payload that the last Input() delivered; empty after
  // Consumed().
  std::span<const Bytes> received() const { return received_; }

  // `bytes` of what was delivered have left us: the window opens again.
  void Consumed(TcpConn& c, uint32_t bytes);

  // --- inbound: what the app is sent ------------------------------------

  // Takes ownership of `chunk`, whose bytes follow all queued before.
  void Queue(TcpConn& c, Chunk* chunk);
  // No more Queue(); FIN follows the last byte.
  void Shutdown(TcpConn& c) { c.fin_wanted = true; }
  // The best size of a chunk for this connection.
  uint32_t ChunkSize(const TcpConn& c) const;

  // Sends what may be sent now: payload, FIN, ACK.
  TcpEvents Finish(TcpConn& c, const FlowKey& key, Instant now);

  // --- life --------------------------------------------------------------

  // When Tick() is due; kNever for an idle connection.
  Instant Deadline(const TcpConn& c) const;
  TcpEvents Tick(TcpConn& c, const FlowKey& key, Instant now);

  // Resets the connection (silently in TIME_WAIT) and frees everything. No
  // effect when it is gone already.
  void Abort(TcpConn& c, const FlowKey& key);

  bool InTimeWait(const TcpConn& c) const;
  // Whether a SYN with this sequence number may replace a connection in
  // TIME_WAIT (RFC 1122, 4.2.2.13).
  bool MayReuse(const TcpConn& c, uint32_t syn_seq) const;

  const Counters& counters() const { return counters_; }
  // Of lwIP, since this engine was created.
  uint64_t allocation_failures() const;

 private:
  class Scope;
  friend struct LwipCallbacks;

  TcpEngine(const Options& options, BufferPool* pool, SegmentSink* sink);
  bool OpenListener();
  void Collect(TcpConn& c, Scope& scope, TcpEvents& events);
  void Write(TcpConn& c);
  bool SplitForWindow(TcpConn& c);
  static void TakeBackRetransmission(tcp_pcb* pcb);
  void ReplenishWindow(TcpConn& c);
  void GrowWindow(TcpConn& c, uint32_t consumed);
  void Release(TcpConn& c);
  void ReleaseAll(TcpConn& c);
  void ReleaseReceived();
  void SetTimers(TcpConn& c, Instant now);
  uint16_t OwnMss(const FlowKey& key) const;

  struct pbuf* WrapRx(std::byte* bytes, size_t size);

  // How lwIP reaches the call at hand.
  int OnOutput(struct pbuf* p);
  void OnReceive(struct pbuf* p);
  void OnRxFreed();
  void OnAssert(const char* message);
  uint32_t Isn(Bytes tuple) const;

  Options options_;
  BufferPool* const pool_;
  SegmentSink* const sink_;
  Counters counters_;
  const uint64_t failures_before_;

  // The call at hand: set by Scope, null outside.
  TcpConn* conn_ = nullptr;
  const FlowKey* key_ = nullptr;
  Instant now_{};
  TcpEvents* events_ = nullptr;
  bool hold_acks_ = false;
  bool output_blocked_ = false;
  bool poisoned_ = false;

  struct pbuf* received_chain_ = nullptr;  // owned until Consumed()
  std::vector<Bytes> received_;
  std::vector<Bytes> output_parts_;
  struct RxBuffer;
  std::unique_ptr<RxBuffer> rx_;  // the pbuf over the caller's packet
};

}  // namespace netstack

#endif  // CORE_LWIP_TCP_ENGINE_H_
