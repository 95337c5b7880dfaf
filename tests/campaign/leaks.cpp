// Samples in one process, from the library, again and again, and prints the resident memory: leaks MODEL [SAMPLES]. Every hundredth sample
// opens the model again, is cancelled, or asks for something that is refused. Exit code 1 if the second half of the run needs more than 1 %
// above the first.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "brume/model.h"

namespace {

/// Returns the resident memory of this process in MB.
double resident() {
  std::ifstream in("/proc/self/statm");
  double whole = 0, pages = 0;
  in >> whole >> pages;
  return pages * double(sysconf(_SC_PAGESIZE)) / 1e6;
}

/// Makes a sample. Throws std::runtime_error if it fails, or if one that must fail does not.
void sample(const brume::Model& model, int64_t number) {
  brume::ImageRequest request{.count = 1, .seed = uint64_t(number), .steps = 2};
  if (number % 100 == 50) request.progress = [](const brume::SampleProgress&) { return false; };
  if (number % 100 == 51) request.height = -3;
  const bool fails = number % 100 == 50 || number % 100 == 51;
  try {
    model.sample(request);
  } catch (const std::exception&) {
    if (fails) return;
    throw;
  }
  if (fails) throw std::runtime_error("sample " + std::to_string(number) + " did not fail");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) return std::fputs("usage: leaks MODEL [SAMPLES]\n", stderr), 2;
  const int64_t count = argc > 2 ? std::atoll(argv[2]) : 1000;
  auto model = brume::Model::open(argv[1]);
  std::vector<double> memory;
  for (int64_t i = 0; i < count; ++i) {
    if (i % 100 == 99) model = brume::Model::open(argv[1]);
    sample(model, i);
    memory.push_back(resident());
    if (i % std::max<int64_t>(1, count / 10) == 0) std::printf("%6ld samples: %.1f MB\n", long(i + 1), memory.back());
  }
  const auto half = memory.begin() + int64_t(memory.size()) / 2, begin = memory.begin() + int64_t(memory.size()) / 10;
  const double first = *std::max_element(begin, half), second = *std::max_element(half, memory.end());
  std::printf("%6ld samples: largest %.1f MB up to the half, %.1f MB after it (%+.2f %%)\n", long(count), first, second,
              100 * (second / first - 1));
  return second > first * 1.01 ? 1 : 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "error: %s\n", e.what()), 1;
}
