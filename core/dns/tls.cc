#include "core/dns/tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/wire/ip_address.h"

namespace netstack {
namespace {

constexpr size_t kSha256Size = 32;

// The oldest error of the thread's queue, which is emptied.
std::string TakeOpenSslError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown error";
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : absl::StrCat("OpenSSL error ", code);
}

}  // namespace

struct TlsCallbacks {
  // 1: the session is ours from here on.
  static int OnSession(SSL* ssl, SSL_SESSION* session) {
    static_cast<TlsStream*>(SSL_get_app_data(ssl))->session_.reset(session);
    return 1;
  }
};

void OpenSslFree::operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
void OpenSslFree::operator()(SSL* p) const { SSL_free(p); }
void OpenSslFree::operator()(SSL_SESSION* p) const { SSL_SESSION_free(p); }

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(
    const std::string& ca_file) {
  std::unique_ptr<TlsContext> made = CreateTrustingNobody();
  SSL_CTX* ctx = made->context();
  const int ok = ca_file.empty() ? SSL_CTX_set_default_verify_paths(ctx)
                                 : SSL_CTX_load_verify_locations(
                                       ctx, ca_file.c_str(), nullptr);
  if (ok == 1) return made;
  return absl::InvalidArgumentError(
      absl::StrCat("cannot read certificates from ",
                   ca_file.empty() ? "the system's store" : ca_file, ": ",
                   TakeOpenSslError()));
}

std::unique_ptr<TlsContext> TlsContext::CreateTrustingNobody() {
  SSL_CTX* ctx = SSL_CTX_new(TLS_client_method());
  if (ctx == nullptr) throw std::bad_alloc();
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
  // Sessions are kept by who connects, per upstream, not by OpenSSL.
  SSL_CTX_set_session_cache_mode(
      ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ctx, &TlsCallbacks::OnSession);
  return std::unique_ptr<TlsContext>(
      new TlsContext(std::unique_ptr<SSL_CTX, OpenSslFree>(ctx)));
}

X509_STORE* TlsContext::store() const {
  return SSL_CTX_get_cert_store(context_.get());
}

std::string DecodePin(absl::string_view base64) {
  std::string pin;
  if (!absl::Base64Unescape(base64, &pin) || pin.size() != kSha256Size) {
    return "";
  }
  return pin;
}

std::unique_ptr<TlsStream> TlsStream::Create(const TlsContext& context,
                                             const Peer& peer,
                                             SSL_SESSION* resume) {
  SSL* ssl = SSL_new(context.context());
  if (ssl == nullptr) return nullptr;
  std::unique_ptr<TlsStream> stream(new TlsStream(ssl));
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, in, out);  // owns both
  if (in == nullptr || out == nullptr) return nullptr;
  SSL_set_app_data(ssl, stream.get());
  SSL_set_connect_state(ssl);
  stream->pins_ = peer.pins;
  if (IpAddress::Parse(peer.name).has_value()) {
    // No SNI for addresses (RFC 6066, section 3).
    // What our parser takes and OpenSSL's does not must not go unchecked.
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), peer.name.c_str()) !=
        1) {
      return nullptr;
    }
  } else {
    SSL_set_tlsext_host_name(ssl, peer.name.c_str());
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (SSL_set1_host(ssl, peer.name.c_str()) != 1) return nullptr;
  }
  // RFC 7858's ALPN token in IANA's registry.
  static constexpr std::array<unsigned char, 4> kAlpn = {3, 'd', 'o', 't'};
  SSL_set_alpn_protos(ssl, kAlpn.data(), kAlpn.size());
  if (resume != nullptr) SSL_set_session(ssl, resume);
  stream->Handshake();
  return stream;
}

TlsStream::~TlsStream() = default;

TlsStream::State TlsStream::Feed(Bytes cipher) {
  if (state_ == State::kFailed || state_ == State::kClosed) return state_;
  // A memory BIO takes all.
  BIO_write(SSL_get_rbio(ssl_.get()), cipher.data(),
            static_cast<int>(cipher.size()));
  if (state_ == State::kHandshake) Handshake();
  return state_;
}

void TlsStream::Handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  Collect();  // an alert of ours too
  if (result == 1) {
    if (PinMatches()) {
      state_ = State::kOpen;
    } else {
      Fail("no configured pin matches the server's key");
    }
    return;
  }
  const int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
  const long verified = SSL_get_verify_result(ssl_.get());
  Fail(verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                             : TakeOpenSslError());
}

bool TlsStream::PinMatches() const {
  if (pins_.empty()) return true;
  X509* certificate = SSL_get0_peer_certificate(ssl_.get());
  if (certificate == nullptr) return false;
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (size <= 0) return false;
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int digest_size = 0;
  EVP_Digest(der, static_cast<size_t>(size), digest.data(), &digest_size,
             EVP_sha256(), nullptr);
  OPENSSL_free(der);
  const std::string ours(reinterpret_cast<const char*>(digest.data()),
                         digest_size);
  return std::find(pins_.begin(), pins_.end(), ours) != pins_.end();
}

bool TlsStream::resumed() const { return SSL_session_reused(ssl_.get()) == 1; }

void TlsStream::Fail(std::string why) {
  state_ = State::kFailed;
  error_ = std::move(why);
  session_.reset();
}

void TlsStream::Write(Bytes plain) {
  if (plain.empty() || state_ != State::kOpen) return;
  ERR_clear_error();
  const int n =
      SSL_write(ssl_.get(), plain.data(), static_cast<int>(plain.size()));
  Collect();
  if (n <= 0) Fail(TakeOpenSslError());
}

size_t TlsStream::Read(MutableBytes into) {
  if (state_ != State::kOpen) return 0;
  ERR_clear_error();
  const int n =
      SSL_read(ssl_.get(), into.data(), static_cast<int>(into.size()));
  Collect();  // key updates and alerts
  if (n > 0) return static_cast<size_t>(n);
  const int error = SSL_get_error(ssl_.get(), n);
  if (error == SSL_ERROR_ZERO_RETURN) {
    state_ = State::kClosed;
  } else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
    Fail(TakeOpenSslError());
  }
  return 0;
}

void TlsStream::Shutdown() {
  if (state_ != State::kOpen) return;
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
  Collect();
  state_ = State::kClosed;
}

void TlsStream::Collect() {
  std::array<char, 4096> chunk;
  int n;
  while ((n = BIO_read(SSL_get_wbio(ssl_.get()), chunk.data(),
                       static_cast<int>(chunk.size()))) > 0) {
    output_.append(chunk.data(), static_cast<size_t>(n));
  }
}

Bytes TlsStream::output() const {
  return {reinterpret_cast<const std::byte*>(output_.data()) + output_at_,
          output_.size() - output_at_};
}

void TlsStream::ConsumeOutput(size_t n) {
  output_at_ += n;
  if (output_at_ < output_.size()) return;
  output_.clear();
  output_at_ = 0;
}

}  // namespace netstack
