// Certificates that a test makes for itself.
#ifndef TESTS_CORE_DNS_TEST_CERTIFICATES_H_
#define TESTS_CORE_DNS_TEST_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace netstack::test {

struct KeyFree {
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(X509* p) const { X509_free(p); }
};

struct Certificate {
  std::unique_ptr<EVP_PKEY, KeyFree> key;
  std::unique_ptr<X509, KeyFree> x509;

  std::string CertificatePem() const;
  std::string KeyPem() const;
  // The base64 of the SHA-256 of its public key.
  std::string Pin() const;
};

struct CertificateOptions {
  // "DNS:dns.test,IP:127.0.0.1"; empty: none.
  std::string names;
  bool expired = false;
};

// Signs itself.
Certificate MakeAuthority();
Certificate MakeCertificate(const Certificate& authority,
                            const CertificateOptions& options);

}  // namespace netstack::test

#endif  // TESTS_CORE_DNS_TEST_CERTIFICATES_H_
