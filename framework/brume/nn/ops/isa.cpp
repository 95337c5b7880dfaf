#include "brume/nn/ops/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "brume/config/errors.h"

namespace brume::nn {
namespace {

constexpr Isa all[] = {Isa::reference, Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};
constexpr int undecided = -1;
std::atomic<int> in_use{undecided};

#if defined(__x86_64__)
/// Returns true if the processor has AMX for bfloat16 and for bytes, and the kernel lets this process use it, which it wants to be asked,
/// once (Linux, x86/xstate).
bool tiles_allowed() {
  static const bool allowed = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25;  // bf16, tiles, int8
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted) return false;
#if defined(__linux__)
    constexpr long request = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
    return false;
#endif
  }();
  return allowed;
}
#endif

Isa best() {
  Isa result = Isa::generic;
  for (Isa isa : all) {
    if (isa_supported(isa)) result = isa;
  }
  return result;
}

/// Returns "this processor supports only …" if it lacks one; nothing if it has it.
std::string lack(Isa isa) {
  if (isa_supported(isa)) return {};
  std::string message = std::string(isa_name(isa)) + ": this processor supports only";
  for (Isa other : all) {
    if (isa_supported(other)) message += std::string(" ") + isa_name(other);
  }
  return message;
}

Isa from_environment() {
  const char* name = std::getenv("BRUME_ISA");
  if (name == nullptr || *name == '\0') return best();
  Isa isa{};
  try {
    isa = parse_isa(name);
  } catch (const std::invalid_argument& error) {
    throw ConfigError(std::string("environment variable BRUME_ISA: ") + error.what());
  }
  if (const std::string message = lack(isa); !message.empty()) throw ConfigError("environment variable BRUME_ISA=" + message);
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::reference: return "reference";
    case Isa::generic: return "generic";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::amx: return "amx";
  }
  return "unknown";
}

Isa parse_isa(const std::string& name) {
  for (Isa isa : all) {
    if (name == isa_name(isa)) return isa;
  }
  throw std::invalid_argument("unknown instruction set '" + name + "'; allowed: reference, generic, avx2, avx512, avx512_bf16, amx");
}

bool isa_supported(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::reference:
    case Isa::generic: return true;
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
    case Isa::avx512_bf16: return isa_supported(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
    case Isa::amx: return isa_supported(Isa::avx512_bf16) && tiles_allowed();
  }
  return false;
#else
  return isa == Isa::reference || isa == Isa::generic;
#endif
}

Isa isa() {
  int value = in_use.load(std::memory_order_relaxed);
  if (value == undecided) {
    // Threads that race here read the same environment; one that lost to set_isa() must not overwrite it.
    const int chosen = static_cast<int>(from_environment());
    if (in_use.compare_exchange_strong(value, chosen)) value = chosen;
  }
  return static_cast<Isa>(value);
}

void set_isa(Isa isa) {
  if (const std::string message = lack(isa); !message.empty()) throw std::invalid_argument("instruction set " + message);
  in_use.store(static_cast<int>(isa));
}

}  // namespace brume::nn
