#include "bench/peaks.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <thread>

#include "brume/config/counted.h"
#include "brume/nn/ops/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace brume::tools {
namespace {

using Clock = std::chrono::steady_clock;

/// Computes so many rounds and returns the operations (or bytes) of them.
using Loop = double (*)(int64_t rounds);

constexpr int sums = 12;  // independent of each other: latency of 4 cycles, 2 or 3 results per cycle

#if defined(__x86_64__)
// Names what a loop needs, whatever the rest of the program is compiled for.
#define BRUME_LOOP(set) [[gnu::target(set), gnu::optimize("O3"), gnu::noinline]] double

/// Keeps the compiler from computing fewer rounds: it cannot know what a sum becomes.
#define BRUME_KEEP(sum) asm volatile("" : "+x"(sum))

BRUME_LOOP("avx2,fma") float_avx2(int64_t rounds) {
  __m256 s[sums] = {};
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.5f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < sums; ++j) {
      s[j] = _mm256_fmadd_ps(a, b, s[j]);
      BRUME_KEEP(s[j]);
    }
  }
  return double(rounds) * sums * 16;
}

BRUME_LOOP("avx512f") float_avx512(int64_t rounds) {
  __m512 s[sums] = {};
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.5f);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < sums; ++j) {
      s[j] = _mm512_fmadd_ps(a, b, s[j]);
      asm volatile("" : "+v"(s[j]));
    }
  }
  return double(rounds) * sums * 32;
}

BRUME_LOOP("avx512f,avx512bf16") bf16_avx512(int64_t rounds) {
  __m512 s[sums] = {};
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(1.5f));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < sums; ++j) {
      s[j] = _mm512_dpbf16_ps(s[j], a, a);
      asm volatile("" : "+v"(s[j]));
    }
  }
  return double(rounds) * sums * 64;
}

BRUME_LOOP("avx2") int8_avx2(int64_t rounds) {
  __m256i s[sums] = {};
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < sums; ++j) {
      BRUME_KEEP(a);
      s[j] = _mm256_add_epi32(s[j], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
      BRUME_KEEP(s[j]);
    }
  }
  return double(rounds) * sums * 64;
}

BRUME_LOOP("avx512f,avx512vnni") int8_avx512(int64_t rounds) {
  __m512i s[sums] = {};
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < sums; ++j) {
      s[j] = _mm512_dpbusd_epi32(s[j], a, b);
      asm volatile("" : "+v"(s[j]));
    }
  }
  return double(rounds) * sums * 128;
}

/// Products of tiles of 16 rows of 64 bytes, of zeros: `multiply` adds those of tiles 6 and 7 to each of the tiles 0 to 5.
template <class Multiply>
[[gnu::always_inline]] inline double of_tiles(int64_t rounds, double operations, const Multiply& multiply) {
  alignas(64) uint8_t shape[64] = {1};
  for (int i = 0; i < 8; ++i) shape[16 + 2 * i] = 64, shape[48 + i] = 16;
  asm volatile("ldtilecfg %0" ::"m"(shape) : "memory");
  for (int64_t i = 0; i < rounds; ++i) multiply();
  asm volatile("tilerelease" ::: "memory");
  return double(rounds) * 6 * operations;
}

double bf16_amx(int64_t rounds) {
  return of_tiles(rounds, 2 * 16 * 16 * 32, [] {
    asm volatile(
        "tdpbf16ps %tmm7, %tmm6, %tmm0; tdpbf16ps %tmm7, %tmm6, %tmm1; tdpbf16ps %tmm7, %tmm6, %tmm2;"
        "tdpbf16ps %tmm7, %tmm6, %tmm3; tdpbf16ps %tmm7, %tmm6, %tmm4; tdpbf16ps %tmm7, %tmm6, %tmm5");
  });
}

double int8_amx(int64_t rounds) {
  return of_tiles(rounds, 2 * 16 * 16 * 64, [] {
    asm volatile(
        "tdpbusd %tmm7, %tmm6, %tmm0; tdpbusd %tmm7, %tmm6, %tmm1; tdpbusd %tmm7, %tmm6, %tmm2;"
        "tdpbusd %tmm7, %tmm6, %tmm3; tdpbusd %tmm7, %tmm6, %tmm4; tdpbusd %tmm7, %tmm6, %tmm5");
  });
}
#endif

/// Reads memory that no cache holds, 64 MiB per thread and round.
[[gnu::optimize("O3"), gnu::noinline]] double read_memory(int64_t rounds) {
  constexpr size_t count = size_t(8) << 20;
  thread_local std::vector<uint64_t> memory(count, 1);
  static std::atomic<uint64_t> total;
  for (int64_t i = 0; i < rounds; ++i) {
    uint64_t sum = 0;
    for (const uint64_t value : memory) sum += value;
    total += sum;
  }
  return double(rounds) * double(count) * sizeof(uint64_t);
}

/// Returns the rate of all threads together in 1e9 per second: the best of three.
double rate(Loop loop, int64_t rounds) {
  const int threads = at::get_num_threads();
  double best = 0;
  for (int attempt = 0; attempt < 4; ++attempt) {  // the first one warms up
    std::atomic<double> done = 0;
    const auto start = Clock::now();
    std::vector<std::jthread> all;
    for (int t = 0; t < threads; ++t)
      all.emplace_back([&] {
        while (Clock::now() - start < std::chrono::milliseconds(120)) done += loop(rounds);
      });
    all.clear();  // waits for them
    best = std::max(best, done / std::chrono::duration<double>(Clock::now() - start).count() / 1e9);
  }
  return best;
}

struct Choice {
  const char* with;
  bool there;
  Loop loop;
};

/// Adds one for each of the choices that are there, in this order, or one without a rate.
void add_peaks(std::vector<Peak>& all, const char* name, const char* unit, std::initializer_list<Choice> choices, int64_t rounds) {
  const size_t before = all.size();
  for (const Choice& c : choices)
    if (c.there) all.push_back({name, unit, c.with, rate(c.loop, rounds)});
  if (all.size() == before) all.push_back({name, unit, "", 0});
}

}  // namespace

std::vector<Peak> measure_peaks() {
  constexpr int64_t many = 1 << 15;
  std::vector<Peak> result;
#if defined(__x86_64__)
  const auto has = [in_use = nn::isa()](nn::Isa isa) { return nn::isa_supported(isa) && (isa <= in_use || in_use == nn::Isa::reference); };
  const bool avx2 = has(nn::Isa::avx2), avx512 = has(nn::Isa::avx512), amx = has(nn::Isa::amx);
  add_peaks(result, "float32", "GFLOP/s", {{"AVX-512", avx512, &float_avx512}, {"AVX2", avx2, &float_avx2}}, many);
  add_peaks(result, "bf16", "GFLOP/s", {{"AMX", amx, &bf16_amx}, {"AVX512-BF16", has(nn::Isa::avx512_bf16), &bf16_avx512}}, many);
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  add_peaks(result, "int8", "GOP/s", {{"AMX", amx, &int8_amx}, {"AVX512-VNNI", vnni, &int8_avx512}, {"AVX2", avx2, &int8_avx2}}, many);
#endif
  add_peaks(result, "memory", "GB/s", {{"reads", true, &read_memory}}, 1);
  return result;
}

std::string share_of_peak(const std::vector<Peak>& peaks, const std::string& name, double rate) {
  for (const Peak& p : peaks)
    if (p.name == name && p.rate > 0 && rate > 0) return fmt::format(" {:>3.0f}% of the peak", 100 * rate / p.rate);
  return {};
}

void append_peaks(nlohmann::ordered_json& array, const std::vector<Peak>& peaks) {
  for (const Peak& p : peaks) array.push_back({{"peak", p.name}, {"rate", p.rate}, {"unit", p.unit}, {"with", p.with}});
}

void print_peaks(const std::vector<Peak>& peaks) {
  fmt::print("peaks of {}\n", counted(at::get_num_threads(), "thread"));
  for (const Peak& p : peaks)
    fmt::print("  {:<8} {}\n", p.name,
               p.with.empty() ? "the processor has no instructions for it" : fmt::format("{:>8.1f} {} ({})", p.rate, p.unit, p.with));
  fmt::print("\n");
}

}  // namespace brume::tools
