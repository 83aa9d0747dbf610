// TLS as a client, over bytes: no sockets here, so that whoever owns the
// socket decides when to read and write.
//
// OpenSSL with memory BIOs. Certificates are verified against the system's
// store, the name or address is checked (RFC 6125, 9525), TLS is 1.2 or later
// (RFC 8310, RFC 9325), and a pin, where there is one, must match besides.
#ifndef CORE_DNS_TLS_H_
#define CORE_DNS_TLS_H_

#include <openssl/types.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/base/bytes.h"

// As openssl/ssl.h has it; types.h does not.
using SSL_SESSION = struct ssl_session_st;

namespace netstack {

struct OpenSslFree {
  void operator()(SSL_CTX* p) const;
  void operator()(SSL* p) const;
  void operator()(SSL_SESSION* p) const;
};
using SslSessionPtr = std::unique_ptr<SSL_SESSION, OpenSslFree>;

// What all connections share: the trusted certificates, read once.
class TlsContext {
 public:
  // `ca_file`: PEM; empty: the system's store, which OpenSSL looks up on disk
  // by name when it needs an issuer.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(
      const std::string& ca_file);
  // Every handshake fails.
  static std::unique_ptr<TlsContext> CreateTrustingNobody();

  SSL_CTX* context() const { return context_.get(); }
  // Lives as long as this.
  X509_STORE* store() const;

 private:
  explicit TlsContext(std::unique_ptr<SSL_CTX, OpenSslFree> context)
      : context_(std::move(context)) {}
  const std::unique_ptr<SSL_CTX, OpenSslFree> context_;
};

// SHA-256 of a public key from base64; empty when it is none.
std::string DecodePin(absl::string_view base64);

class TlsStream {
 public:
  struct Peer {
    std::string name;  // in SNI and in the certificate; may be an address
    std::vector<std::string> pins;  // of DecodePin()
  };
  enum class State { kHandshake, kOpen, kClosed, kFailed };

  // `resume`: a session of the same peer, or null. The context outlives this.
  // Null when malloc fails.
  static std::unique_ptr<TlsStream> Create(const TlsContext& context,
                                           const Peer& peer,
                                           SSL_SESSION* resume);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Bytes from the peer's socket, all taken; the state that they lead to.
  State Feed(Bytes cipher);
  State state() const { return state_; }
  // A sentence, with kFailed.
  const std::string& error() const { return error_; }
  bool resumed() const;

  // Only when kOpen. All of it is taken.
  void Write(Bytes plain);
  // Decrypted bytes; 0 when there are no more.
  size_t Read(MutableBytes into);
  // The end of our side, into output().
  void Shutdown();

  // To be written to the socket.
  Bytes output() const;
  void ConsumeOutput(size_t n);

  // The newest session to resume; null when none came since the last call.
  SslSessionPtr TakeSession() { return std::move(session_); }

 private:
  friend struct TlsCallbacks;
  explicit TlsStream(SSL* ssl) : ssl_(ssl) {}
  void Handshake();
  bool PinMatches() const;
  void Fail(std::string why);
  void Collect();

  const std::unique_ptr<SSL, OpenSslFree> ssl_;
  std::vector<std::string> pins_;
  State state_ = State::kHandshake;
  std::string error_;
  std::string output_;
  size_t output_at_ = 0;
  SslSessionPtr session_;
};

}  // namespace netstack

#endif  // CORE_DNS_TLS_H_
