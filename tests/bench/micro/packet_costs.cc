// What one packet costs the core, in units that no other program on the
// machine changes: heap allocations, counted here, and instructions, counted
// by callgrind around Loop::Turn (tests/bench/instructions).
//
//   packet_costs LOAD [ROUNDS] [--flows N] [--max-allocations F]
//
// LOAD is upload, download, upload_plain, download_plain or small (one byte
// each way). Prints one JSON line; exits with 1 when a packet cost more heap
// allocations than F on average, and with 2 when the arguments are wrong.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "core/base/sanitizers.h"
#include "tests/bench/micro/core_rig.h"

namespace {
uint64_t g_allocations = 0;
}  // namespace

// glibc's own names behind these: counting without a recursion. A sanitizer
// has its own malloc, and a count there would mean nothing.
#if defined(__GLIBC__) && !defined(NETSTACK_ASAN) && \
    !defined(NETSTACK_TSAN)
extern "C" {
void* __libc_malloc(size_t size);                // NOLINT
void* __libc_calloc(size_t count, size_t size);  // NOLINT
void* __libc_realloc(void* old, size_t size);    // NOLINT

void* malloc(size_t size) {
  ++g_allocations;
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  ++g_allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  ++g_allocations;
  return __libc_realloc(old, size);
}
}
#endif

namespace netstack::bench {
namespace {

constexpr uint32_t kBatch = 64;
constexpr size_t kMss = 1460;

struct Arguments {
  std::string load;
  uint32_t rounds = 200;
  uint32_t flows = 1000;
  double max_allocations = -1;  // no limit
};

bool Parse(int argc, char** argv, Arguments* arguments) {
  std::vector<absl::string_view> words(argv + 1, argv + argc);
  size_t plain = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool more = i + 1 < words.size();
    if (words[i] == "--flows" && more) {
      if (!absl::SimpleAtoi(words[++i], &arguments->flows)) return false;
    } else if (words[i] == "--max-allocations" && more) {
      if (!absl::SimpleAtod(words[++i], &arguments->max_allocations)) {
        return false;
      }
    } else if (plain == 0) {
      arguments->load = std::string(words[i]);
      ++plain;
    } else if (plain == 1) {
      if (!absl::SimpleAtoi(words[i], &arguments->rounds)) return false;
      ++plain;
    } else {
      return false;
    }
  }
  return plain > 0 && arguments->rounds > 0 && arguments->flows > 0;
}

// One batch, and everything that follows from it until all is quiet.
void Round(CoreRig& rig, const Arguments& a, Random& random) {
  const bool up = a.load.rfind("upload", 0) == 0;
  const bool small = a.load == "small";
  for (uint32_t i = 0; i < kBatch; ++i) {
    const uint32_t flow = random.Below(a.flows);
    if (up || small) rig.Send(flow, small ? 1 : kMss);
    if (!up) rig.HostSends(flow, small ? 1 : static_cast<uint32_t>(kMss));
  }
  rig.Settle();
}

int Run(const Arguments& a) {
  CoreRig::Options options;
  options.flows = a.flows;
  if (a.load == "upload_plain" || a.load == "download_plain") {
    options.offload = false;
  } else if (a.load != "upload" && a.load != "download" &&
             a.load != "small") {
    return 2;
  }
  CoreRig rig(options);
  rig.OpenAll();
  if (rig.established() != a.flows) {
    std::fprintf(stderr, "packet_costs: not every flow is established\n");
    return 1;
  }
  Random random;
  // Pools and vectors reach the size that the load needs.
  for (uint32_t i = 0; i < 100; ++i) Round(rig, a, random);
  const uint64_t before = g_allocations;
  for (uint32_t i = 0; i < a.rounds; ++i) Round(rig, a, random);
  const uint64_t packets = uint64_t{a.rounds} * kBatch;
  const double each = static_cast<double>(g_allocations - before) /
                      static_cast<double>(packets);
  std::printf("{\"load\": \"%s\", \"flows\": %u, \"packets\": %llu, "
              "\"allocations_per_packet\": %.4f}\n",
              a.load.c_str(), a.flows,
              static_cast<unsigned long long>(packets), each);
  if (a.max_allocations >= 0 && each > a.max_allocations) {
    std::fprintf(stderr,
                 "packet_costs: %.4f heap allocations per packet of %s, at "
                 "most %.4f are allowed\n",
                 each, a.load.c_str(), a.max_allocations);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace netstack::bench

int main(int argc, char** argv) {
  netstack::bench::Arguments arguments;
  const int code = netstack::bench::Parse(argc, argv, &arguments)
                       ? netstack::bench::Run(arguments)
                       : 2;
  if (code == 2) {
    std::fprintf(stderr,
                 "usage: packet_costs upload|download|upload_plain|"
                 "download_plain|small [ROUNDS] [--flows N] "
                 "[--max-allocations F]\n");
  }
  return code;
}
