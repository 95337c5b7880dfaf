#pragma once
// Seeds and small random draws: SplitMix64 (Steele, Lea & Flood 2014). No torch.
#include <cstdint>

namespace brume {

/// A stream of random numbers, determined by its seed.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}
  uint64_t next() { return scramble(state_ += 0x9e3779b97f4a7c15); }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  ///< in [0, 1)
  uint64_t below(uint64_t n) { return next() % n; }
  bool coin() { return next() >> 63; }

 private:
  static uint64_t scramble(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

/// Returns a seed for purpose `stream` and number `index` under `seed`: streams do not overlap.
inline uint64_t mix_seed(uint64_t seed, uint64_t stream, uint64_t index = 0) {
  return SplitMix(SplitMix(SplitMix(seed).next() ^ stream).next() ^ index).next();
}

}  // namespace brume
