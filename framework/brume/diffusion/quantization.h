#pragma once
// Models whose inner layers multiply eight-bit integers: which layers lose by it is measured on the model.
#include <functional>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/core/dataset.h"
#include "brume/core/network.h"
#include "brume/diffusion/compute.h"
#include "brume/weights/tensors.h"

namespace brume {
class Pipeline;

/// Returns the options with the precision of a model's file, if they leave it to the file: int8 for weights of int8, on the CPU. Warns if
/// int8 is asked for and the file does not say which layers lose by it.
ComputeOptions with_int8(ComputeOptions options, const std::string& file, const NamedTensors& tensors);

/// What layers are measured on.
struct Calibration {
  Tensor images{};  ///< [N, C, H, W] in [-1, 1]; undefined = noise alone, with the classes in turn and empty captions
  std::vector<Annotation> annotations{};
  int64_t count = 16;                                                                   ///< of noise
  double limit = 0.03;                                                                  ///< of the error of the network
  uint64_t seed = 0;                                                                    ///< of the noise
  std::function<void(const std::string& stage, int64_t done, int64_t all)> progress{};  ///< after each evaluation
};

/// A layer, or rather its weight.
struct QuantizedLayer {
  std::string name;
  double error = 0;  ///< of its result, relative (L2), if it alone computes in int8
  bool kept = false;
};

struct Quantization {
  std::vector<QuantizedLayer> layers;  ///< the largest error first
  double first_error = 0;              ///< of the network if all of them compute in int8: relative (L2), over all noise levels
  double error = 0;                    ///< of the network with those kept

  /// Returns the section "int8" of a model's file; `data`: what it was measured on.
  Value section(const std::string& data) const;
};

/// Measures the layers of a model that was opened in int8, at eight noise levels, and keeps as many in float32, the worst first, as bring
/// the error of the network under the limit, or half of them. Throws ConfigError for models of codes and for those without such layers.
Quantization quantize(const Pipeline& pipeline, const Calibration& calibration);

/// Returns the weights of that model for a file: integers and scales of the layers that are not kept.
std::vector<Weight> quantized_weights(const Pipeline& pipeline, const Quantization& quantization);

}  // namespace brume
