#pragma once
// A trained model that teaches another.
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "brume/core/objective.h"

namespace brume {

/// Returns the model of an objective's option `teacher`. Throws ConfigError if its images have another shape than those of x0.
OtherModel open_teacher(const Training& training, const std::filesystem::path& file, const Tensor& x0);
/// Throws ConfigError if no file is named.
void expect_teacher(const std::filesystem::path& file);

/// A teacher whose estimates are those of classifier-free guidance (Meng et al. 2023, "On Distillation of Guided Diffusion Models", with
/// one scale): its student makes guided images by one call of the network per step.
struct GuidedTeacher {
  std::filesystem::path file;
  double cfg = 1;
  void declare(Fields& f, std::string_view description = "model.safetensors of the trained model");
  /// Throws ConfigError if no file is named.
  void check() const { expect_teacher(file); }
  /// Returns the guided denoiser of the file. Throws ConfigError if its images have another shape than those of x0, or if it is to be
  /// guided and has no unconditional estimate.
  std::shared_ptr<const Denoiser> open(const Training& training, const Tensor& x0) const;
};

/// Returns the estimates D(x, sigma) of a denoiser, one sigma per image; images of one sigma are taken together. No gradient.
Tensor estimates(const Denoiser& denoiser, const Tensor& x, const std::vector<double>& sigmas, const Condition& condition);

/// Returns D + (to/from)(x - D) per image: a step of DDIM in the sigma frame.
Tensor ddim_step(const Tensor& x, const Tensor& x0, const std::vector<double>& from, const std::vector<double>& to);

}  // namespace brume
