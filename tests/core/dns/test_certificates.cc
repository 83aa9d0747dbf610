#include "tests/core/dns/test_certificates.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"

namespace netstack::test {
namespace {

std::string Contents(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

void AddExtension(X509* x, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, x, nullptr, nullptr, 0);
  X509_EXTENSION* extension =
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  ASSERT_NE(extension, nullptr) << value;
  X509_add_ext(x, extension, -1);
  X509_EXTENSION_free(extension);
}

Certificate Make(const Certificate* authority, const std::string& subject,
                 const CertificateOptions& options) {
  static long serial = 1;
  Certificate c;
  c.key.reset(EVP_EC_gen("P-256"));
  c.x509.reset(X509_new());
  X509* x = c.x509.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
  const long day = 24 * 3600;
  X509_gmtime_adj(X509_getm_notBefore(x), -2 * day);
  X509_gmtime_adj(X509_getm_notAfter(x), options.expired ? -day : 2 * day);
  X509_set_pubkey(x, c.key.get());
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(x), "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>(subject.c_str()), -1, -1, 0);
  X509* issuer = authority == nullptr ? x : authority->x509.get();
  X509_set_issuer_name(x, X509_get_subject_name(issuer));
  AddExtension(x, issuer, NID_basic_constraints,
               authority == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
  if (!options.names.empty()) {
    AddExtension(x, issuer, NID_subject_alt_name, options.names);
  }
  EVP_PKEY* signer = authority == nullptr ? c.key.get() : authority->key.get();
  EXPECT_GT(X509_sign(x, signer, EVP_sha256()), 0);
  return c;
}

}  // namespace

std::string Certificate::CertificatePem() const {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, x509.get());
  return Contents(bio);
}

std::string Certificate::KeyPem() const {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr,
                           nullptr);
  return Contents(bio);
}

std::string Certificate::Pin() const {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key.get(), &der);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_size = 0;
  EVP_Digest(der, static_cast<size_t>(size), digest, &digest_size, EVP_sha256(),
             nullptr);
  OPENSSL_free(der);
  return absl::Base64Escape(
      absl::string_view(reinterpret_cast<const char*>(digest), digest_size));
}

Certificate MakeAuthority() { return Make(nullptr, "Test authority", {}); }

Certificate MakeCertificate(const Certificate& authority,
                            const CertificateOptions& options) {
  return Make(&authority, "Test server", options);
}

}  // namespace netstack::test
