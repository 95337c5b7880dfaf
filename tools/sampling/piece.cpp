#include "sampling/piece.h"

#include <fmt/format.h>

namespace brume::tools {

namespace {

/// Repeats each text.
std::vector<std::string> repeated(const std::vector<std::string>& texts, int64_t times) {
  std::vector<std::string> all;
  for (const std::string& text : texts) all.insert(all.end(), size_t(times), text);
  return all;
}

}  // namespace

void check_divisible(const SampleOptions& options, const char* why) {
  if (options.noise_order == NoiseOrder::batch)
    throw ConfigError(
        fmt::format("{}: noise order 'batch' draws the noise of all images at once, and a piece would not be what it is in the "
                    "whole; --noise-order per_image can be divided",
                    why));
}

std::vector<Piece> pieces_of(const std::vector<int64_t>& indices) {
  std::vector<Piece> pieces;
  for (const int64_t i : indices) {
    if (pieces.empty() || pieces.back().begin + pieces.back().count != i) pieces.push_back({i, 0});
    ++pieces.back().count;
  }
  return pieces;
}

ImageRequest piece_of(ImageRequest r, const Piece& piece) {
  if (r.images_per_prompt > 0) {
    r.prompts = repeated(r.prompts, r.images_per_prompt);
    if (r.negatives.size() > 1) r.negatives = repeated(r.negatives, r.images_per_prompt);
    r.images_per_prompt = 0;
  }
  r.first += piece.begin;  // by which prompts and classes are taken in turn
  r.count = piece.count;
  if (r.first == 0)  // those of later images have no effect here
    for (std::vector<std::string>* texts : {&r.prompts, &r.negatives, &r.classes})
      if (int64_t(texts->size()) > r.count) texts->resize(size_t(r.count));
  for (Tensor* given : {&r.image, &r.latents, &r.mask, &r.initial_noise})
    if (given->defined() && given->size(0) > 1) *given = given->narrow(0, piece.begin, piece.count);
  return r;
}

}  // namespace brume::tools
