#include "brume/diffusion/quantization.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/core/warnings.h"
#include "brume/weights/int8_tensors.h"

namespace brume {

ComputeOptions with_int8(ComputeOptions o, const std::string& file, const NamedTensors& tensors) {
  const bool integers =
      std::any_of(tensors.begin(), tensors.end(), [](const NamedTensor& t) { return t.name.ends_with(int8_scale_suffix); });
  if (o.precision == Precision::automatic && integers && o.device == "cpu") o.precision = Precision::int8;
  if (o.precision == Precision::int8 && !integers)
    warn(
        fmt::format("{}: was not measured in int8, so all its layers but the first and the last ones compute in it; `brume quantize` keeps "
                    "those that lose most in float32",
                    file));
  return o;
}

}  // namespace brume
