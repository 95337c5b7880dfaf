#include "brume/numerics/teacher.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <map>

#include "brume/config/errors.h"
#include "brume/numerics/noising.h"

namespace brume {

OtherModel open_teacher(const Training& training, const std::filesystem::path& file, const Tensor& x0) {
  OtherModel teacher = training.models->model(file.string());
  const ImageShape shape{x0.size(1), x0.size(2), x0.size(3)};
  if (teacher.shape.numel() > 0 && teacher.shape != shape)
    throw ConfigError(
        fmt::format("the teacher '{}' makes latents of {}, and the model those of {}", file.string(), teacher.shape.text(), shape.text()));
  return teacher;
}

void expect_teacher(const std::filesystem::path& file) {
  if (file.empty()) throw ConfigError("missing 'teacher' (the model.safetensors of the trained model)");
}

Tensor estimates(const Denoiser& denoiser, const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) {
  const at::NoGradGuard no_grad;
  std::map<double, std::vector<int64_t>> rows;
  for (size_t i = 0; i < sigmas.size(); ++i) rows[sigmas[i]].push_back(int64_t(i));
  Tensor x0 = at::empty_like(x);
  for (const auto& [sigma, images] : rows) {
    const Tensor index = at::tensor(images).to(x.device());
    x0.index_copy_(0, index, denoiser.denoise(x.index_select(0, index), sigma, condition.select(index)).x0);
  }
  return x0;
}

Tensor ddim_step(const Tensor& x, const Tensor& x0, const std::vector<double>& from, const std::vector<double>& to) {
  std::vector<double> ratio;
  for (size_t i = 0; i < from.size(); ++i) ratio.push_back(to[i] / from[i]);
  return x0 + (x - x0) * each_image(ratio, x, [](double q) { return q; });
}

}  // namespace brume
