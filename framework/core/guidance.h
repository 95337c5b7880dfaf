#pragma once
#include <memory>
#include <string_view>

#include "core/denoiser.h"
#include "core/model_source.h"

namespace brume {

/// What a guidance may want to know of the model it steers.
struct GuidedModel {
  std::shared_ptr<const NoiseSchedule> schedule;
  const ModelSource& models;  ///< lives as long as wrap() runs
};

/// A decorator of denoisers: takes one, gives one that is steered. Guidances compose in the order of the configuration, the
/// first innermost.
class Guidance {
 public:
  static constexpr std::string_view kind = "guidance";
  virtual ~Guidance() = default;
  virtual std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel& model) const = 0;
};

}  // namespace brume
