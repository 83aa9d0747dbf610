// Asks an app to protect our sockets (VpnService.protect on Android) before
// they are connected, without ever waiting for it.
//
// How this works. A question is a socket's descriptor, sent to the app over
// its local socket; netstack.v1.ProtectProtocol describes the two protocols.
// Every question gets exactly one verdict, unless it is cancelled, and none
// from within Ask():
//
//   queued    waits for a connection, or for room on it
//   sent      the app has it; ends by its answer, by the end of the
//             connection, or after `timeout`
//
// kPipelined has one connection for all; the first question makes it, and the
// next one after it broke makes another. kProtectPath has a connection per
// question, kConnections of them at once.
//
// An app that is not there costs a question one connect() that fails, and the
// question fails: nothing is tried again, since an unprotected socket helps
// nobody and a late one hardly anybody.
#ifndef CORE_DIAL_APP_PROTECTOR_H_
#define CORE_DIAL_APP_PROTECTOR_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/time.h"
#include "core/platform/local_sockets.h"
#include "core/platform/poller.h"
#include "core/platform/sockets.h"

namespace netstack {

// The two protocols of netstack.v1.ProtectProtocol, which describes them.
enum class ProtectProtocol : uint8_t {
  kProtectPath,  // a connection and one byte per socket
  kPipelined,    // one connection, 8 bytes per question and answer
};

enum class ProtectVerdict : uint8_t { kYes, kNo, kUnanswered };

// Loop thread only.
class AppProtector {
 public:
  struct Options {
    std::string path;
    ProtectProtocol protocol = ProtectProtocol::kPipelined;
    // Who must listen there, beside root and ourselves.
    std::optional<uint32_t> uid;
    Duration timeout = std::chrono::seconds(2);
    // Of its poll tokens, kConnections from here on, so that several
    // protectors can share a loop.
    uint32_t first_index = 0;

    friend bool operator==(const Options&, const Options&) = default;
  };
  class Listener {
   public:
    virtual ~Listener() = default;
    // May Ask() and Cancel().
    virtual void OnVerdict(uint32_t ticket, ProtectVerdict verdict,
                           Instant now) = 0;
  };
  // Connections of kProtectPath at once; an app serves them one by one.
  static constexpr size_t kConnections = 16;
  // Questions at once; each is a flow's dial or a place in the pool.
  static constexpr size_t kMaxQuestions = 16384;

  // All outlive the protector. Events of PollToken::kProtect are its own.
  AppProtector(LocalSockets* sockets, Poller* poller, Listener* listener,
               Options options);
  ~AppProtector();
  AppProtector(const AppProtector&) = delete;
  AppProtector& operator=(const AppProtector&) = delete;

  const Options& options() const { return options_; }

  // Asks for `fd`, which stays open until the verdict or Cancel(). `ticket`
  // is the caller's, and of no other question at that time. False: too many
  // questions.
  bool Ask(uint32_t ticket, int fd, SocketKind kind, bool v4, Instant now);
  // There will be no verdict, and the descriptor may be closed.
  void Cancel(uint32_t ticket);

  void OnPoll(const PollEvent& event, Instant now);
  // Gives the verdicts that are due. Once per turn of the loop.
  void OnTurn(Instant now);
  Instant next_deadline(Instant now) const;

  size_t waiting() const { return questions_.size(); }

 private:
  struct Question {
    int fd = -1;
    SocketKind kind = SocketKind::kTcp;
    bool v4 = true;
    bool sent = false;
    Instant asked{};
  };
  struct Connection {
    int fd = -1;
    uint32_t generation = 0;
    uint32_t ticket = 0;                // of kProtectPath
    std::array<std::byte, 8> answer{};  // the part of one that has come
    size_t answered = 0;
  };

  // Sends what is queued, as far as it goes now.
  void Pump(Instant now);
  bool SendPipelined(uint32_t ticket, const Question& q);
  bool SendAlone(uint32_t ticket, const Question& q, Instant now);
  // The index of a new connection, or -errno.
  int Open();
  void CloseConnection(Connection& c);
  void ReadPipelined(Connection& c);
  void ReadAlone(Connection& c);
  // The connection is gone, and with it the answers that were to come.
  void Broken(Connection& c);
  void Give(uint32_t ticket, ProtectVerdict verdict);

  LocalSockets* const sockets_;
  Poller* const poller_;
  Listener* const listener_;
  const Options options_;
  // By ticket, which ascend, so that the oldest is first.
  std::map<uint32_t, Question> questions_;
  std::deque<uint32_t> queue_;  // tickets; may be stale
  std::array<Connection, kConnections> connections_;  // pipelined: the first
  size_t sent_ = 0;             // questions that the app has
  std::vector<std::pair<uint32_t, ProtectVerdict>> verdicts_;  // to be given
  Instant retry_at_ = kNever;   // the app's backlog was full
};

}  // namespace netstack

#endif  // CORE_DIAL_APP_PROTECTOR_H_
