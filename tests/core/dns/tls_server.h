// A TLS server on loopback for tests: real sockets, real handshakes, one
// thread per connection, and a script for what is said inside.
#ifndef TESTS_CORE_DNS_TLS_SERVER_H_
#define TESTS_CORE_DNS_TLS_SERVER_H_

#include <openssl/ssl.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/core/dns/test_certificates.h"

namespace netstack::test {

class TlsServer {
 public:
  // Runs on the connection's thread; returns when it is done with it.
  using Serve = std::function<void(SSL*)>;

  // Listens at 127.0.0.1. `alpn`: the protocol to choose, e.g. "dot".
  TlsServer(const Certificate& certificate, std::string alpn, Serve serve);
  ~TlsServer();
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  uint16_t port() const { return port_; }
  int handshakes() const { return handshakes_; }
  int resumed() const { return resumed_; }
  int failed() const { return failed_; }
  // What clients sent as SNI, in their order; "" without.
  std::vector<std::string> names() const;
  std::string alpn() const { return alpn_; }

 private:
  void Accept();
  void Handle(int fd);

  const std::string alpn_;
  const Serve serve_;
  SSL_CTX* context_ = nullptr;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> handshakes_{0};
  std::atomic<int> resumed_{0};
  std::atomic<int> failed_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> names_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
};

// Reads exactly, or false at the end.
bool ReadExactly(SSL* ssl, size_t n, std::string* into);
void WriteAll(SSL* ssl, const std::string& bytes);

// Serves DNS over TLS: `answer` makes a message of a message; empty: none.
TlsServer::Serve ServeDot(
    std::function<std::string(const std::string&)> answer);
// Serves HTTP/1.1: `respond` makes a whole response of head and body.
TlsServer::Serve ServeHttp(
    std::function<std::string(const std::string& head, const std::string& body)>
        respond);

}  // namespace netstack::test

#endif  // TESTS_CORE_DNS_TLS_SERVER_H_
