// The tiles of AMX, in the state of the thread. By the assembler: the compiler's own functions do not say that they read memory (GCC 12),
// and want the tile's number as a digit.
#pragma once
#include <cstdint>

namespace brume::nn::kernels {
namespace {

struct Amx {
  /// Eight tiles of 16 rows of 64 bytes.
  Amx() {
    alignas(64) uint8_t shape[64] = {1};
    for (int i = 0; i < 8; ++i) shape[16 + 2 * i] = 64, shape[48 + i] = 16;
    asm volatile("ldtilecfg %0" ::"m"(shape) : "memory");
  }
  ~Amx() { asm volatile("tilerelease" ::: "memory"); }
  Amx(const Amx&) = delete;
  Amx& operator=(const Amx&) = delete;

  template <int t>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(t));
  }
  /// `step`: bytes from one row to the next.
  template <int t>
  static void load(const void* from, int64_t step = 64) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step), "i"(t) : "memory");
  }
  template <int t>
  static void store(void* to) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(int64_t(64)), "i"(t) : "memory");
  }
  /// c += a b of bfloat16, b in pairs of rows.
  template <int c, int a, int b>
  static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
  /// c += a b of bytes, those of b signed and in groups of four rows.
  template <int c, int a, int b>
  static void multiply_bytes() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
};

}  // namespace
}  // namespace brume::nn::kernels
