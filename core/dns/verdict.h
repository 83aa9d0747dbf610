// What a decision of the policy, or a reply, is called outside.
#ifndef CORE_DNS_VERDICT_H_
#define CORE_DNS_VERDICT_H_

#include "core/dns/policy.h"
#include "core/dns/query_log.h"
#include "core/dns/resolver.h"

namespace netstack::dns {

// `of_answer`: by what the answer led to, not by the name that was asked.
inline DnsVerdict VerdictOf(PolicyAction action, PolicySource source,
                            bool of_answer) {
  if (action == PolicyAction::kPass) return DnsVerdict::kResolved;
  if (action == PolicyAction::kRewrite) return DnsVerdict::kRewritten;
  switch (source) {
    case PolicySource::kRule:
      return of_answer ? DnsVerdict::kBlockedCname : DnsVerdict::kBlockedByRule;
    case PolicySource::kList:
      return of_answer ? DnsVerdict::kBlockedCname : DnsVerdict::kBlockedByList;
    case PolicySource::kDohName:
      return DnsVerdict::kBlockedDoh;
    case PolicySource::kRebinding:
      return DnsVerdict::kRebinding;
    case PolicySource::kCanary:
    case PolicySource::kPrivateRelay:
      return DnsVerdict::kLocal;
    case PolicySource::kNone:
      break;
  }
  return DnsVerdict::kResolved;
}

inline DnsVerdict VerdictOf(const DnsReply& reply) {
  switch (reply.source) {
    case DnsSource::kPolicy:
      return VerdictOf(reply.action, reply.policy, reply.of_answer);
    case DnsSource::kCache:
    case DnsSource::kUpstream:
      return DnsVerdict::kResolved;
    case DnsSource::kFailure:
      return reply.failure == DnsFailure::kMalformed ? DnsVerdict::kMalformed
                                                     : DnsVerdict::kFailed;
  }
  return DnsVerdict::kFailed;
}

}  // namespace netstack::dns

#endif  // CORE_DNS_VERDICT_H_
