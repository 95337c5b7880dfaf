#include "brume/numerics/teacher.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <map>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/core/guidance.h"
#include "brume/numerics/noising.h"

namespace brume {
namespace {

class GuidedDenoiser final : public Denoiser {
 public:
  GuidedDenoiser(std::shared_ptr<const Denoiser> inner, double cfg) : inner_(std::move(inner)), cfg_(cfg) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const EstimatePair e = denoise_both(*inner_, x, sigma, condition, "teacher_cfg");
    Estimate d = e.with;
    d.x0 = extrapolate(e.without.x0, e.with.x0, cfg_);
    return d;
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
  double cfg_;
};

}  // namespace

OtherModel open_teacher(const Training& training, const std::filesystem::path& file, const Tensor& x0) {
  OtherModel teacher = training.models->model(file.string());
  const ImageShape shape{x0.size(1), x0.size(2), x0.size(3)};
  if (teacher.shape.numel() > 0 && teacher.shape != shape)
    throw ConfigError(
        fmt::format("the teacher '{}' makes latents of {}, and the model those of {}", file.string(), teacher.shape.text(), shape.text()));
  return teacher;
}

void GuidedTeacher::declare(Fields& f, std::string_view description) {
  f.field("teacher", file, description);
  f.field("teacher_cfg", cfg, "scale of classifier-free guidance of the teacher; the student is sampled without; 1 = none", at_least(0));
  f.unused(file.empty(), {"teacher_cfg"}, "no teacher is named");
}

std::shared_ptr<const Denoiser> GuidedTeacher::open(const Training& training, const Tensor& x0) const {
  const OtherModel teacher = open_teacher(training, file, x0);
  if (cfg == 1) return teacher.denoiser;
  need_null({teacher.classes, teacher.has_null, false}, fmt::format("teacher_cfg: {}", cfg));
  return std::make_shared<GuidedDenoiser>(teacher.denoiser, cfg);
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
