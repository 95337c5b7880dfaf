#include "brume/core/run_memory.h"

#include <utility>

namespace brume {
namespace {

thread_local RunMemory* innermost = nullptr;

}  // namespace

RunMemory::RunMemory(std::unique_ptr<Noise> noise) : noise_(std::move(noise)), outer_(std::exchange(innermost, this)) {}
RunMemory::~RunMemory() { innermost = outer_; }
RunMemory* RunMemory::current() { return innermost; }

}  // namespace brume
