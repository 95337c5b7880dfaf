#include "brume/core/run_memory.h"

#include <utility>

namespace brume {
namespace {

thread_local RunMemory* innermost = nullptr;

}  // namespace

RunMemory::RunMemory(std::unique_ptr<Noise> noise, std::vector<double> sigmas)
    : noise_(std::move(noise)), sigmas_(std::move(sigmas)), outer_(std::exchange(innermost, this)) {}
RunMemory::~RunMemory() { innermost = outer_; }
RunMemory* RunMemory::current() { return innermost; }

int64_t RunMemory::step_at(double sigma) const {
  int64_t step = 0;
  while (step + 1 < steps() && sigmas_[size_t(step) + 1] >= sigma) ++step;
  return step;
}

}  // namespace brume
