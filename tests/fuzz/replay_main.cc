// Runs a fuzz target over the files of its corpus, as an ordinary test that
// any compiler can build:
//
//   ip4_replay tests/fuzz/corpus/ip4
//
// Fails when there is nothing to replay: an empty run would look green.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

std::vector<std::filesystem::path> Files(const char* corpus) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(corpus, error)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool Replay(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  const std::vector<char> content{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) return false;
  // In a block of exactly its size, so that ASan sees one byte too far.
  const auto data = std::make_unique<uint8_t[]>(content.size());
  std::copy(content.begin(), content.end(), data.get());
  LLVMFuzzerTestOneInput(data.get(), content.size());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s <corpus directory>\n", argv[0]);
    return 2;
  }
  const auto files = Files(argv[1]);
  for (const auto& file : files) {
    // Told before it runs: the last name is the one that crashed.
    std::printf("%s\n", file.filename().c_str());
    std::fflush(stdout);
    if (!Replay(file)) {
      std::fprintf(stderr, "cannot read %s\n", file.c_str());
      return 1;
    }
  }
  std::printf("%zu inputs\n", files.size());
  if (files.empty()) std::fprintf(stderr, "%s: no corpus\n", argv[1]);
  return files.empty() ? 1 : 0;
}
