// The one place that opens and connects sockets. Every one is protected
// first; a socket that cannot be protected is never connected.
//
// How this works. What the system can do at once (Protector) is done at once.
// Where an app has to be asked (AppProtector), nobody waits for it:
//
//   - A pool of protected sockets is held ready for each kind and family. A
//     dial takes one and connects it, and the pool asks for another.
//   - A TCP dial that finds the pool empty has its socket nevertheless
//     (kInProgress); it is connected when the app says yes. For its caller this
//     is a connect() that takes a little longer: FinishDial() says kInProgress
//     as long as the app has not answered, and TakeEvent() brings an event
//     under the caller's token when there is something to ask it about.
//   - An unconnected socket (UDP, echo) that finds the pool empty is kNotReady:
//     the packet is dropped and its app sends it again.
//
//   a fd's state      FinishDial()                    ends by
//   protecting        kInProgress                     the app's verdict, Close
//   failed            the outcome, once               FinishDial, Close
//   connecting        what SO_ERROR says              FinishDial, Close
#ifndef CORE_DIAL_DIALER_H_
#define CORE_DIAL_DIALER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "core/base/time.h"
#include "core/dial/app_protector.h"
#include "core/dial/protector.h"
#include "core/flow/stats.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"
#include "core/wire/ip_address.h"

namespace netstack {

// What became of a connect().
enum class DialOutcome : uint8_t {
  kConnected,
  kInProgress,
  kRefused,          // RST: nobody listens there
  kNetUnreachable,   // no route
  kHostUnreachable,  // an ICMP error from the way, or no neighbour
  kProhibited,       // a firewall of ours says no
  kTimedOut,         // the kernel gave up
  kProtectFailed,
  kNoDescriptor,  // EMFILE, ENFILE, or the limit for flows is reached
  kNoPort,        // EADDRNOTAVAIL: no local port left
  kNotReady,      // the pool of protected sockets is empty just now
  kOther,
};

struct Dial {
  DialOutcome outcome = DialOutcome::kOther;
  int fd = -1;  // open only with kConnected and kInProgress; the caller's
};

// What the dialer tells. Must not call it back.
class DialListener {
 public:
  virtual ~DialListener() = default;
  // The app that protects sockets does not answer; as often as it happens.
  virtual void OnProtectorDown() = 0;
};

class Dialer final : public AppProtector::Listener {
 public:
  struct Options {
    // Sockets that may be open at once; beyond: kNoDescriptor.
    uint32_t max_sockets = 1024;
    // TCP_USER_TIMEOUT; zero: not set.
    Duration user_timeout{};
  };

  // `sockets` outlives the dialer.
  Dialer(Sockets* sockets, const Options& options);
  // Closes the pool; what callers hold is theirs.
  ~Dialer() override;

  void Configure(const Options& options) { options_ = options; }
  // For sockets from now on, asked in this order. Empties the pool.
  void SetProtectors(std::vector<std::unique_ptr<Protector>> protectors);
  // Sockets of each family that are held ready.
  struct Pool {
    uint32_t tcp = 0;
    // Those cannot wait for the app: without any, no datagram gets out.
    uint32_t udp = 0;
    uint32_t echo = 0;
  };
  // Also asks an app about every socket, behind the protectors, and holds a
  // pool ready. What is under way with the one before fails. Null: none.
  // `listener` may be null and else outlives the dialer.
  void SetAppProtector(std::unique_ptr<AppProtector> app, const Pool& pool,
                       DialListener* listener);
  // The protector must be made for this listener.
  AppProtector* app_protector() { return app_.get(); }
  // Protected sockets of before are of no use any more.
  void FlushPool();

  // Opens, protects, connects without waiting. `ttl`: of what the socket
  // sends; 0: the system's own. `token`: for TakeEvent(), the same as the
  // caller's with the poller; a caller without one gets kNotReady where it
  // would have to wait for the app.
  Dial DialTcp(const Endpoint& to, uint8_t ttl = 0,
               std::optional<PollToken> token = {});
  // For a caller who has no token before he has the socket; in the same turn.
  void SetToken(int fd, PollToken token);
  // The app has not answered yet: the socket is not even connecting, which a
  // level-triggered poller would tell without end.
  bool IsProtecting(int fd) const;
  // The same for a datagram socket that talks to one remote only; such a
  // connect() is done at once.
  Dial DialUdp(const Endpoint& to);
  // A protected socket that is not connected (an unconnected UDP socket, a
  // ping socket, one that a library connects by itself): kConnected with its
  // descriptor, or what went wrong.
  // A `device` is what the socket is bound to (SO_BINDTODEVICE), whatever the
  // protectors chose; kNetUnreachable where there is none of that name.
  Dial Open(SocketKind kind, bool v4, const std::string& device = "");
  // What the socket says once it is writable or in error: kInProgress means
  // that it is not: ask again at the next event. Counts the result. Does not
  // close.
  DialOutcome FinishDial(int fd, bool v4);
  // Something is to be asked of FinishDial() that the poller does not tell.
  std::optional<PollEvent> TakeEvent();
  // Whether a packet that came in through the TUN is one of our own: then our
  // sockets are not protected, and it would go round in a circle. A SYN is
  // told as long as its dial is under way, which is when it can come in; what
  // DialUdp() made, as long as it is open.
  bool IsOwnDial(const Endpoint& source, const Endpoint& destination) const;

  // The time of the turn; first of all in each.
  void set_now(Instant now) { now_ = now; }
  // The loop's word about connections of the app protector, and what is to be
  // done once per turn.
  void OnPoll(const PollEvent& event, Instant now);
  void OnTurn(Instant now);
  Instant next_deadline(Instant now) const;
  // AppProtector::Listener.
  void OnVerdict(uint32_t ticket, ProtectVerdict verdict,
                 Instant now) override;
  // Counts a dial that the caller gave up for time.
  void GaveUp() { ++stats_.timed_out; }
  // The local address that a dial to `to` would have now; nothing when it
  // would fail. What `probe` holds is used for the next question, and closed
  // by the caller; -1 at first.
  std::optional<IpAddress> SourceTowards(const Endpoint& to, int* probe);
  // Gives a socket back, whatever became of it. `reset`: with RST.
  void Close(int fd, bool reset);

  Sockets* sockets() const { return sockets_; }
  uint32_t in_use() const { return in_use_; }
  DialStats stats() const;

 private:
  static constexpr size_t kKinds = 3;
  // What an app's verdict is waited for.
  struct Asked {
    int fd = -1;
    SocketKind kind = SocketKind::kTcp;
    bool v4 = true;
    bool pool = false;  // else a dial
  };
  // A dial that its caller was told is in progress.
  struct Under {
    Endpoint to;
    Endpoint from;  // port 0 until connect()
    PollToken token;
    uint8_t ttl = 0;
    uint32_t ticket = 0;          // protecting, while not 0
    std::optional<DialOutcome> failed;
  };
  struct DialKey {
    Endpoint from;
    Endpoint to;
    friend bool operator==(const DialKey&, const DialKey&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const DialKey& k) {
      h = H::combine_contiguous(
          std::move(h), reinterpret_cast<const char*>(k.from.ip.v6()), 16);
      h = H::combine_contiguous(
          std::move(h), reinterpret_cast<const char*>(k.to.ip.v6()), 16);
      return H::combine(std::move(h), k.from.port, k.to.port);
    }
  };

  DialOutcome Count(DialOutcome outcome);
  Dial OpenProtected(SocketKind kind, bool v4);
  // Without asking an app.
  Dial OpenLocally(SocketKind kind, bool v4);
  DialOutcome Begin(int fd, const Endpoint& to, uint8_t ttl);
  Dial Connect(int fd, const Endpoint& to, uint8_t ttl,
               std::optional<PollToken> token);
  std::optional<int> FromPool(SocketKind kind, bool v4);
  bool Ask(const Asked& what, uint32_t* ticket);
  void FillPool(Instant now);
  void Forget(int fd);
  std::vector<int>& Ready(SocketKind kind, bool v4) {
    return pool_[static_cast<size_t>(kind) * 2 + (v4 ? 0 : 1)];
  }
  size_t PoolTarget(SocketKind kind) const {
    switch (kind) {
      case SocketKind::kTcp:
        return wanted_.tcp;
      case SocketKind::kUdp:
        return wanted_.udp;
      case SocketKind::kEcho:
        return wanted_.echo;
    }
    return 0;
  }

  Sockets* const sockets_;
  Options options_;
  std::vector<std::unique_ptr<Protector>> protectors_;
  uint32_t in_use_ = 0;
  DialStats stats_;

  absl::flat_hash_map<int, Under> under_;  // by descriptor
  absl::flat_hash_set<DialKey> own_;       // of under_, once connected

  std::unique_ptr<AppProtector> app_;
  DialListener* listener_ = nullptr;
  Pool wanted_;
  uint32_t next_ticket_ = 1;
  absl::flat_hash_map<uint32_t, Asked> asked_;  // by ticket
  std::array<std::vector<int>, 2 * kKinds> pool_;
  std::array<uint32_t, 2 * kKinds> filling_{};  // being asked for, of each
  std::array<bool, 2 * kKinds> impossible_{};   // cannot be opened here
  bool fill_ = false;
  Instant fill_at_ = kNever;  // after a failure
  std::deque<PollEvent> events_;
  Instant now_{};
};

// The outcome that an errno of connect() or SO_ERROR means; 0 is kConnected.
DialOutcome DialOutcomeOf(int error);

}  // namespace netstack

#endif  // CORE_DIAL_DIALER_H_
