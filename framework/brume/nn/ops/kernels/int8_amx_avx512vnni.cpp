// int8_kernel.h on the tiles of AMX-INT8: a panel of weights lies as a tile reads it, [quads, panel, 4].
#include <immintrin.h>

#include "brume/nn/ops/kernels/amx.h"
#include "brume/nn/ops/kernels/int8_kernel.h"

namespace brume::nn::kernels {
namespace int8_on_amx {
#include "brume/nn/ops/kernels/int8_body.h"

constexpr int64_t side = 16, depth_of_tile = 64, tile = side * depth_of_tile;  // rows; bytes of a row, and of a tile

/// sums [panels, 16 `tiles`, panel] = values [16 `tiles`, depth] weights [depth, panel] for one or two panels, `step` bytes apart.
template <int tiles, int panels>
void multiply_tiles(const uint8_t* values, int64_t bytes, const int8_t* weights, int64_t step, int64_t depth, int32_t* sums) {
  static_assert(tiles <= 3 && panels <= 2);
  Amx::zero<0>(), Amx::zero<1>(), Amx::zero<2>(), Amx::zero<3>(), Amx::zero<4>(), Amx::zero<5>();
  for (int64_t k = 0; k < depth; k += depth_of_tile, weights += tile) {
    Amx::load<7>(weights);
    Amx::load<6>(values + k, bytes), Amx::multiply_bytes<0, 6, 7>();
    if constexpr (panels > 1) Amx::load<7>(weights + step), Amx::multiply_bytes<1, 6, 7>();
    if constexpr (tiles > 1) {
      Amx::load<6>(values + side * bytes + k, bytes);
      if constexpr (panels > 1) Amx::multiply_bytes<3, 6, 7>(), Amx::load<7>(weights);
      Amx::multiply_bytes<2, 6, 7>();
    }
    if constexpr (tiles > 2) {
      Amx::load<6>(values + 2 * side * bytes + k, bytes), Amx::multiply_bytes<4, 6, 7>();
      if constexpr (panels > 1) Amx::load<7>(weights + step), Amx::multiply_bytes<5, 6, 7>();
    }
  }
  constexpr int64_t of_tile = side * int8_panel, of_panel = tiles * of_tile;
  Amx::store<0>(sums);
  if constexpr (tiles > 1) Amx::store<2>(sums + of_tile);
  if constexpr (tiles > 2) Amx::store<4>(sums + 2 * of_tile);
  if constexpr (panels > 1) {
    Amx::store<1>(sums + of_panel);
    if constexpr (tiles > 1) Amx::store<3>(sums + of_panel + of_tile);
    if constexpr (tiles > 2) Amx::store<5>(sums + of_panel + 2 * of_tile);
  }
}

inline void multiply_on_tiles(const Int8Call& call, int64_t first, int64_t count, int64_t panel, int64_t panels, const uint8_t* values,
                              const Int8Row* rows, const int8_t* weights) {
  using Multiply = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int64_t, int32_t*);
  constexpr Multiply by_size[3][2] = {{multiply_tiles<1, 1>, multiply_tiles<1, 2>},
                                      {multiply_tiles<2, 1>, multiply_tiles<2, 2>},
                                      {multiply_tiles<3, 1>, multiply_tiles<3, 2>}};
  static_assert(int8_block == 3 * side && int8_panel == side);
  alignas(64) int32_t sums[2 * int8_block * int8_panel];
  const int64_t step = int8_panel_bytes(call.depth()), bytes = int8_row_bytes(call.depth()), tiles = (count + side - 1) / side;
  const Amx ours;
  for (int64_t p = 0; p < panels; p += 2) {
    const int64_t these = panels - p < 2 ? 1 : 2;
    by_size[tiles - 1][these - 1](values, bytes, weights + p * step, step, call.depth(), sums);
    for (int64_t i = 0; i < these; ++i)
      for (int64_t r = 0; r < count; ++r)
        write(call, first + r, rows[r], (panel + p + i) * int8_panel, sums + (i * tiles * side + r) * int8_panel);
  }
}

constexpr Int8Kernel tiled{ranges, quantise, multiply_on_tiles};
}  // namespace int8_on_amx

const Int8Kernel& int8_amx() { return int8_on_amx::tiled; }

}  // namespace brume::nn::kernels
