#include "tests/core/dns/tls_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "gtest/gtest.h"

namespace netstack::test {
namespace {

int ChooseAlpn(SSL* /*ssl*/, const unsigned char** out, unsigned char* size,
               const unsigned char* offered, unsigned int offered_size,
               void* user) {
  const auto& wanted = *static_cast<const std::string*>(user);
  for (unsigned int at = 0; at < offered_size; at += offered[at] + 1u) {
    if (wanted == std::string(reinterpret_cast<const char*>(offered) + at + 1,
                              offered[at])) {
      *out = offered + at + 1;
      *size = offered[at];
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_NOACK;
}

}  // namespace

TlsServer::TlsServer(const Certificate& certificate, std::string alpn,
                     Serve serve)
    : alpn_(std::move(alpn)), serve_(std::move(serve)) {
  signal(SIGPIPE, SIG_IGN);  // SSL_write() to who is gone
  context_ = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_certificate(context_, certificate.x509.get());
  SSL_CTX_use_PrivateKey(context_, certificate.key.get());
  SSL_CTX_set_alpn_select_cb(context_, &ChooseAlpn,
                             const_cast<std::string*>(&alpn_));
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(
      bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  EXPECT_EQ(listen(listener_, 64), 0);
  socklen_t size = sizeof(address);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  threads_.emplace_back([this] { Accept(); });
}

TlsServer::~TlsServer() {
  stop_ = true;
  shutdown(listener_, SHUT_RDWR);  // ends accept(2)
  std::vector<std::thread> threads;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
  }
  threads_[0].join();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    threads.swap(threads_);
  }
  for (size_t i = 1; i < threads.size(); ++i) threads[i].join();
  close(listener_);
  SSL_CTX_free(context_);
}

std::vector<std::string> TlsServer::names() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return names_;
}

void TlsServer::Accept() {
  while (!stop_) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    const std::lock_guard<std::mutex> lock(mutex_);
    open_.push_back(fd);
    threads_.emplace_back([this, fd] { Handle(fd); });
  }
}

void TlsServer::Handle(int fd) {
  SSL* ssl = SSL_new(context_);
  SSL_set_fd(ssl, fd);
  if (SSL_accept(ssl) == 1) {
    const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      names_.emplace_back(name == nullptr ? "" : name);
    }
    ++handshakes_;
    if (SSL_session_reused(ssl) == 1) ++resumed_;
    serve_(ssl);
    SSL_shutdown(ssl);
  } else {
    ++failed_;
  }
  ERR_clear_error();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_.erase(std::find(open_.begin(), open_.end(), fd));
  }
  SSL_free(ssl);
  close(fd);
}

bool ReadExactly(SSL* ssl, size_t n, std::string* into) {
  into->resize(n);
  for (size_t at = 0; at < n;) {
    const int got = SSL_read(ssl, into->data() + at, static_cast<int>(n - at));
    if (got <= 0) return false;
    at += static_cast<size_t>(got);
  }
  return true;
}

void WriteAll(SSL* ssl, const std::string& bytes) {
  if (!bytes.empty()) {
    SSL_write(ssl, bytes.data(), static_cast<int>(bytes.size()));
  }
}

TlsServer::Serve ServeDot(
    std::function<std::string(const std::string&)> answer) {
  return [answer = std::move(answer)](SSL* ssl) {
    std::string size;
    std::string message;
    while (ReadExactly(ssl, 2, &size)) {
      const auto n = static_cast<unsigned char>(size[0]) * size_t{256} +
                     static_cast<unsigned char>(size[1]);
      if (!ReadExactly(ssl, n, &message)) return;
      const std::string reply = answer(message);
      if (reply.empty()) continue;
      WriteAll(ssl, std::string{static_cast<char>(reply.size() >> 8),
                                static_cast<char>(reply.size() & 0xFF)} +
                        reply);
    }
  };
}

TlsServer::Serve ServeHttp(
    std::function<std::string(const std::string&, const std::string&)>
        respond) {
  return [respond = std::move(respond)](SSL* ssl) {
    std::string head;
    std::string one;
    while (ReadExactly(ssl, 1, &one)) {
      head += one;
      if (head.size() < 4 || head.substr(head.size() - 4) != "\r\n\r\n") {
        continue;
      }
      std::string body;
      const std::string lower = absl::AsciiStrToLower(head);
      const size_t at = lower.find("content-length: ");
      int n = 0;
      if (at != std::string::npos &&
          absl::SimpleAtoi(
              lower.substr(at + 16, lower.find('\r', at) - at - 16), &n)) {
        if (!ReadExactly(ssl, static_cast<size_t>(n), &body)) return;
      }
      WriteAll(ssl, respond(head, body));
      head.clear();
    }
  };
}

}  // namespace netstack::test
