#include "brume/files/sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace brume {
namespace {

constexpr size_t block = 64;

/// Returns the first 32 bits of the fractional part of a root of each of the first 64 primes (FIPS 180-4, 4.2.2 and 5.3.3).
template <size_t N, class Root>
std::array<uint32_t, N> prime_roots(const Root& root) {
  std::array<uint32_t, N> words{};
  size_t found = 0;
  for (int n = 2; found < N; ++n) {
    bool prime = true;
    for (int d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
    if (!prime) continue;
    const long double value = root(static_cast<long double>(n));
    words[found++] = static_cast<uint32_t>((value - std::floor(value)) * 4294967296.0L);
  }
  return words;
}

void compress(std::array<uint32_t, 8>& state, const unsigned char* bytes) {
  static const std::array<uint32_t, 64> constants = prime_roots<64>([](long double n) { return std::cbrt(n); });
  std::array<uint32_t, 64> w;
  for (size_t t = 0; t < 16; ++t)
    w[t] = uint32_t{bytes[4 * t]} << 24 | uint32_t{bytes[4 * t + 1]} << 16 | uint32_t{bytes[4 * t + 2]} << 8 | uint32_t{bytes[4 * t + 3]};
  for (size_t t = 16; t < 64; ++t) {
    const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t t = 0; t < 64; ++t) {
    const uint32_t t1 = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + constants[t] + w[t];
    const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<uint32_t, 8> result{a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state[i] += result[i];
}

}  // namespace

std::string sha256(std::string_view text, const std::function<void(std::string_view)>& read) {
  constexpr size_t part = size_t{64} << 20;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::array<uint32_t, 8> state = prime_roots<8>([](long double n) { return std::sqrt(n); });
  size_t done = 0;
  while (done + block <= text.size()) {
    compress(state, bytes + done);
    done += block;
    if (read && done % part == 0) read(text.substr(done - part, part));
  }
  std::array<unsigned char, 2 * block> last{};
  const size_t left = text.size() - done, padded = left + 9 <= block ? block : 2 * block;
  if (left > 0) std::memcpy(last.data(), bytes + done, left);
  last[left] = 0x80;
  const uint64_t bits = uint64_t{text.size()} * 8;
  for (size_t i = 0; i < 8; ++i) last[padded - 1 - i] = static_cast<unsigned char>(bits >> (8 * i));
  for (size_t i = 0; i < padded; i += block) compress(state, last.data() + i);
  if (read && text.size() % part > 0) read(text.substr(text.size() / part * part));
  std::string digits;
  for (const uint32_t word : state)
    for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[word >> shift & 15];
  return digits;
}

}  // namespace brume
