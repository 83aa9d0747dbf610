#include "core/dns/exchange.h"

namespace netstack {
namespace {

uint8_t Lower(std::byte b) {
  const auto c = static_cast<uint8_t>(b);
  return c >= 'A' && c <= 'Z' ? static_cast<uint8_t>(c | 0x20) : c;
}

}  // namespace

QuestionMatch MatchQuestion(Bytes answer, const UpstreamQuery& query) {
  constexpr size_t kHeader = 12;
  if (answer.size() < kHeader + query.question_size) return QuestionMatch::kNo;
  // QR set and opcode QUERY (RFC 1035, section 4.1.1); one question.
  if ((Load8(&answer[2]) & 0xF8) != 0x80) return QuestionMatch::kNo;
  if (Load16(&answer[4]) != 1) return QuestionMatch::kNo;
  const Bytes asked = query.question();
  QuestionMatch match = QuestionMatch::kYes;
  // Length bytes of labels are below 64, so folding case does not touch them;
  // type and class behind the name are compared as they are.
  const size_t name = asked.size() - 4;
  for (size_t i = 0; i < asked.size(); ++i) {
    const std::byte a = answer[kHeader + i];
    if (a == asked[i]) continue;
    if (i >= name || Lower(a) != Lower(asked[i])) return QuestionMatch::kNo;
    match = QuestionMatch::kOtherCase;
  }
  return match;
}

}  // namespace netstack
