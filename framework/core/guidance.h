#pragma once
#include <memory>
#include <string_view>

#include "core/denoiser.h"

namespace brume {

/// A decorator of denoisers: takes one, gives one that is steered. Guidances compose in the order of the configuration, the
/// first innermost.
class Guidance {
 public:
  static constexpr std::string_view kind = "guidance";
  virtual ~Guidance() = default;
  virtual std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner) const = 0;
};

}  // namespace brume
