#include "bench/measured_calls.h"

#include <algorithm>
#include <chrono>

#include "bench/measuring.h"
#include "brume/nn/ops/memory_pool.h"
#include "program/program.h"

namespace brume::tools {

void measure(const std::function<Tensor()>& call, nn::Isa isa, double seconds, Measured& m) {
  nn::set_isa(isa);
  const nn::MemoryPoolScope keep;
  call();
  peak_memory(true);
  const size_t taken = nn::MemoryPoolScope::account().taken;
  const auto start = std::chrono::steady_clock::now();
  int64_t calls = 0;
  do {
    const nn::OpProfile operations;
    const auto begin = std::chrono::steady_clock::now();
    call();
    m.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    m.operations = operations.rows();
    ++calls;
    if (interrupted.load()) throw Interrupted();
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
  m.peak_mib = std::max(m.peak_mib, peak_memory());
  m.taken_mib = std::max(m.taken_mib, double(nn::MemoryPoolScope::account().taken - taken) / double(calls) / (1 << 20));
}

}  // namespace brume::tools
