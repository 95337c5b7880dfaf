#include "brume/diffusion/quantization.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/core/boundary.h"
#include "brume/core/codes.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/pipeline.h"
#include "brume/nn/ops/int8_layers.h"
#include "brume/nn/ops/isa.h"
#include "brume/weights/int8_tensors.h"

namespace brume {
namespace {

/// One evaluation: noisy latents at a level, and the network's result in float32.
struct Evaluation {
  Tensor x, exact;
  double sigma;
  Condition condition;
};

class Measurement {
 public:
  Measurement(const Pipeline& pipeline, const Calibration& c) : pipeline_(pipeline), c_(c), denoiser_(pipeline.denoiser()) {
    const ModelOptions& model = pipeline.options();
    at::Generator random = at::detail::createCPUGenerator(c.seed);
    const ImageShape s = model.image;
    const auto normal = [&](int64_t n, const ImageShape& of) {
      return at::randn({n, of.channels, of.height, of.width}, random, at::TensorOptions().dtype(at::kFloat));
    };
    const bool noise = !c.images.defined();
    const Tensor images = noise ? normal(c.count, s).clamp(-1, 1) : c.images;
    std::vector<Annotation> annotations = c.annotations;
    const int64_t classes = model.conditioner->traits().classes, count = images.size(0);
    for (int64_t i = 0; noise && i < count; ++i) annotations.push_back({classes > 0 ? i % classes : -1, ""});
    const int64_t levels = std::min<int64_t>(8, count);
    for (int64_t level = 0; level < levels; ++level) {
      const int64_t first = count * level / levels, n = count * (level + 1) / levels - first;
      const Tensor some = images.narrow(0, first, n);
      const std::vector<Annotation> of(annotations.begin() + first, annotations.begin() + first + n);
      const double t = (double(level) + 0.5) / double(levels);
      const double sigma = model.noise->sigma(model.noise->t_min() + t * (model.noise->t_max() - model.noise->t_min()));
      const Tensor z = normal(n, pipeline.latent());
      const Tensor x = noise ? z * sigma : latents(some, random) + z * sigma;
      evaluations_.push_back({x, {}, sigma, condition(some, of, random)});
    }
  }

  /// Computes the results in float32, and the errors of the layers.
  nn::Int8Errors layers() {
    nn::Int8Errors errors;
    const nn::Int8Scope scope(pipeline_.int8_layers().get(), &errors);
    for (Evaluation& e : evaluations_) {
      e.exact = denoiser_->denoise(e.x, e.sigma, e.condition).x0;
      tell("layers", e);
    }
    return errors;
  }

  /// Returns the error of the network F, D = c_skip x + c_out F, whose outputs have about the same size at all levels.
  double network(const std::string& stage) const {
    double sum = 0;
    for (const Evaluation& e : evaluations_) {
      const Tensor rounded = denoiser_->denoise(e.x, e.sigma, e.condition).x0;
      tell(stage, e);
      const double skip = pipeline_.options().parameterization->c_skip(e.sigma);
      const auto norm = [](const Tensor& t) { return t.norm().item<double>(); };
      const double whole = norm(e.exact - e.x * skip);
      if (whole > 0) sum += std::pow(norm(rounded - e.exact) / whole, 2);
    }
    return std::sqrt(sum / double(evaluations_.size()));
  }

 private:
  Tensor latents(const Tensor& images, at::Generator& random) const {
    const Autoencoder& first_stage = pipeline_.autoencoder();
    return calling(first_stage, "encode_moments()", [&] { return first_stage.latents_of(first_stage.encode_moments(images), &random); });
  }
  Condition condition(const Tensor& images, const std::vector<Annotation>& annotations, at::Generator& random) const {
    return calling(pipeline_.encoder(), "encode()", [&] {
      return pipeline_.encoder().encode({annotations,
                                         &random,
                                         pipeline_.compute().dtype,
                                         pipeline_.compute().device,
                                         pipeline_.options().image,
                                         images,
                                         {},
                                         &pipeline_.autoencoder()});
    });
  }
  void tell(const std::string& stage, const Evaluation& e) const {
    if (c_.progress) c_.progress(stage, &e - evaluations_.data() + 1, int64_t(evaluations_.size()));
  }

  const Pipeline& pipeline_;
  const Calibration& c_;
  std::shared_ptr<const Denoiser> denoiser_;
  std::vector<Evaluation> evaluations_;
};

}  // namespace

ComputeOptions with_int8(ComputeOptions o, const std::string& file, const NamedTensors& tensors) {
  const bool integers =
      std::any_of(tensors.begin(), tensors.end(), [](const NamedTensor& t) { return t.name.ends_with(int8_scale_suffix); });
  if (o.precision == Precision::automatic && integers && o.device == "cpu") o.precision = Precision::int8;
  if (o.precision == Precision::int8 && nn::isa() == nn::Isa::reference)
    warn("precision int8 has no effect with BRUME_ISA=reference, which computes by LibTorch's operations in float32");
  else if (o.precision == Precision::int8 && !integers)
    warn(
        fmt::format("{}: was not measured in int8, so all its layers but the first and the last ones compute in it; `brume quantize` keeps "
                    "those that lose most in float32",
                    file));
  return o;
}

Quantization quantize(const Pipeline& pipeline, const Calibration& calibration) {
  if (of_codes(*pipeline.options().parameterization)) throw ConfigError("models of codes are not measured in int8");
  const at::NoGradGuard no_grad;
  Measurement measurement(pipeline, calibration);
  Quantization result;
  for (const nn::Int8Error& e : measurement.layers()) result.layers.push_back({e.name, e.relative()});
  if (result.layers.empty())
    throw ConfigError(
        fmt::format("no layer of network '{}' can compute in int8: those that read or write fewer than 16 channels, the first "
                    "and the last ones stay in float32",
                    pipeline.options().network.type()));
  std::stable_sort(result.layers.begin(), result.layers.end(), [](const auto& a, const auto& b) { return a.error > b.error; });
  result.error = result.first_error = measurement.network("network");
  for (size_t kept = 0, next = 1; result.error > calibration.limit && kept < result.layers.size() / 2; next *= 2) {
    for (; kept < std::min(next, result.layers.size() / 2); ++kept) {
      result.layers[kept].kept = true;
      pipeline.int8_layers()->keep(result.layers[kept].name);
    }
    result.error = measurement.network(fmt::format("network, {} in float32", counted(kept, "layer")));
  }
  return result;
}

Value Quantization::section(const std::string& data) const {
  Value kept = Value::list(), all = Value::map();
  for (const QuantizedLayer& l : layers)
    if (l.kept) kept.items.push_back(Value::text(l.name));
  all.set("data", Value::text(data));
  all.set("error", Value::text(fmt::format("{:.4g}", error)));
  all.set("layers", Value::text(std::to_string(layers.size() - kept.items.size())));
  all.set("kept", std::move(kept));
  return all;
}

std::vector<Weight> quantized_weights(const Pipeline& pipeline, const Quantization& q) {
  std::vector<Weight> all;
  for (const Weight& w : pipeline.weights()) {
    const auto layer = std::find_if(q.layers.begin(), q.layers.end(), [&](const QuantizedLayer& l) { return l.name == w.name; });
    if (layer == q.layers.end() || layer->kept) {
      all.push_back(w);
      continue;
    }
    for (const NamedTensor& t : int8_tensors(w.name, int8_values(w.tensor))) all.push_back({t.name, t.tensor});
  }
  return all;
}

}  // namespace brume
