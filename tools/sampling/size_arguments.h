#pragma once
// The options of models that are conditioned on the sizes of images (SDXL): --original-size, --crop, --target-size, and their negatives.
#include <optional>
#include <string>
#include <vector>

#include "brume/core/dataset.h"
#include "program/option.h"

namespace brume::tools {

struct SizeArguments {
  std::string original, crop, target;  ///< "" = not given

  /// Returns the options. `prefix`: "" or "negative-".
  static std::vector<Option<SizeArguments>> options(const std::string& prefix);
  /// Returns the sizes; nothing if no option is given. Throws ConfigError naming the option.
  std::optional<SizeIds> read(const std::string& prefix) const;
};

}  // namespace brume::tools
