#pragma once
// Where patches stand in an image, for the tokens of a transformer. Positions count patches of an image of the size that a network was
// made for; those of another size are spread over the same range, so that the corners keep their places.
#include <cstdint>

#include "brume/core/tensor.h"

namespace brume::nn {

/// Numbers of patches along the height and the width, and along the depth of a volume.
struct PatchGrid {
  int64_t rows = 0, columns = 0, slices = 1;
  int64_t count() const { return slices * rows * columns; }
  bool operator==(const PatchGrid&) const = default;
};

/// Returns [N, width] float32, row by row: sines, then cosines, of the column in the first half and of the row in the second half, with
/// frequencies 10000^(-i / (width / 4)) (Vaswani et al. 2017, sec. 3.5, in two dimensions). `width` is a multiple of 4; `scale` divides the
/// positions (PixArt: Chen et al. 2024, for images larger than those it was first trained on). If `made_for` has several slices, column,
/// row and slice have a third of the channels each, and `width` is a multiple of 6.
Tensor sine_positions(const PatchGrid& grid, const PatchGrid& made_for, int64_t width, double scale = 1);

/// Returns [1, N, C] for `grid` out of a table [1, M, C] of `made_for`, by linear interpolation along each axis.
Tensor resized_positions(const Tensor& table, const PatchGrid& grid, const PatchGrid& made_for);

/// Angles of rotary positions (Su et al. 2021) in two dimensions: the first half of a head's channels turns by the row, the second half
/// by the column. If the grid that it is made for has several slices: a third each by slice, row and column.
struct RotaryTable {
  Tensor cosines, sines;  ///< [N, head / 2] float32
};
/// Returns the angles of the patches. `head`: channels of a head, a multiple of 4 (6 with slices); frequencies 10000^(-2i / (head / 2)), or
/// head / 3.
RotaryTable rotary_table(const PatchGrid& grid, const PatchGrid& made_for, int64_t head);

}  // namespace brume::nn
