#pragma once
// FNV-1a of Fowler, Noll and Vo, with 64 bits: h <- (h xor word) * prime. It is no cryptographic hash.
#include <cstdint>
#include <string_view>

namespace brume {

struct Fnv1a {
  uint64_t value = 0xcbf29ce484222325;

  void add(uint64_t word) { value = (value ^ word) * 0x100000001b3; }
};

/// Returns the hash of the bytes of a text.
inline uint64_t fnv1a(std::string_view text) {
  Fnv1a hash;
  for (const char c : text) hash.add(static_cast<uint8_t>(c));
  return hash.value;
}

}  // namespace brume
