#include <cstring>

#include "brume/nn/ops/kernels/attention_tiles.h"
#include "nn/emulated_tiles.h"

namespace brume::test {
namespace {

/// Eight tiles of 16 rows of 64 bytes. Those that were never written hold what is no number.
struct Emulated {
  Emulated() { std::memset(tiles, 0xff, sizeof(tiles)); }
  static inline thread_local float tiles[8][16][16];

  template <int t>
  static void zero() {
    std::memset(tiles[t], 0, sizeof(tiles[t]));
  }
  template <int t>
  static void load(const void* from) {
    std::memcpy(tiles[t], from, sizeof(tiles[t]));
  }
  template <int t>
  static void store(void* to) {
    std::memcpy(to, tiles[t], sizeof(tiles[t]));
  }
  template <int c, int a, int b>
  static void multiply() {
    uint16_t left[16][32], right[16][32];
    std::memcpy(left, tiles[a], sizeof(left)), std::memcpy(right, tiles[b], sizeof(right));
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 16; ++n)
        for (int k = 0; k < 32; ++k)
          tiles[c][m][n] += nn::kernels::load<uint16_t>(left[m][k]) * nn::kernels::load<uint16_t>(right[k / 2][2 * n + k % 2]);
  }
};

}  // namespace

bool attention_on_emulated_tiles(const nn::kernels::AttentionHead& head) { return nn::kernels::attention_by_tiles<Emulated>(head); }

}  // namespace brume::test
