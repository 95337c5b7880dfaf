#pragma once
// A part of the images of a request, which are as they are in the whole.
#include <vector>

#include "brume/diffusion/options.h"
#include "brume/model.h"

namespace brume::tools {

/// Throws ConfigError if images of the request depend on each other. `why` names what divides it.
void check_divisible(const SampleOptions& options, const char* why);

/// Images of a request that follow each other.
struct Piece {
  int64_t begin = 0, count = 0;  ///< index of the first, number of them
};

/// Returns the pieces that ascending indices make.
std::vector<Piece> pieces_of(const std::vector<int64_t>& indices);

/// Returns the request of the images of a piece alone.
ImageRequest piece_of(ImageRequest request, const Piece& piece);

}  // namespace brume::tools
