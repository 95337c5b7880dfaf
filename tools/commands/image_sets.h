#pragma once
// Sets of images that are named on the command line.
#include <optional>
#include <string>
#include <vector>

#include "brume/train/feature_summary.h"
#include "program/program.h"

namespace brume::tools {

/// A set of images: a folder of image files of any sizes (all below it, by name), an .npz file with `arr_0` ([N, H, W, C] of 8 bits), or a
/// data set, as open_data() reads it.
struct ImageSet {
  std::string option;                   ///< "--real"
  std::string text;                     ///< what it names
  int64_t limit = 0;                    ///< images at most; 0 = all
  std::vector<std::string> captions{};  ///< one per image, in their order; empty = a data set's own
};

/// Returns the value of --shape, "3x32x32"; nothing for "". Throws ConfigError if it is no shape.
std::optional<ImageShape> shape_of(const std::string& text);

/// Returns true if the set is an .npz file that has this array.
bool has_array(const ImageSet& set, const std::string& name);

/// Adds this process's part of the images, `batch` at a time, with a progress bar, and gathers those of all. `shape`: of a data set's
/// images, if no configuration says it. Throws ConfigError naming the option.
void add_images(Program& program, FeatureSummarizer& summarizer, const Features& extractor, const ImageSet& set,
                const std::optional<ImageShape>& shape, int64_t batch);

}  // namespace brume::tools
