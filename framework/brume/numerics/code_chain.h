#pragma once
// Chains of codes (Austin et al. 2021, "Structured Denoising Diffusion Models in Discrete State-Spaces", D3PM, eq. 3 and app. A.2). A code
// keeps its value with probability alpha, the schedule's signal rate, and is drawn from pi otherwise:
//
//   q(x_t | x0) = alpha_t x0 + (1 - alpha_t) pi,   q(x_t | x_s) = a x_s + (1 - a) pi,   a = alpha_t / alpha_s,   s < t
//   uniform: pi = 1 / K;   absorbing: pi = the mask
//
// Codes are one-hot, [B, K, H, W]; the mask is the vector of zeros. Probabilities of states have one more channel if there is a mask, the
// last. The model gives logits of p(x0), [B, K, H, W], and steps by (eq. 4)
//
//   p(x_s | x_t) = sum_x0 q(x_s, x_t | x0) p(x0) / Z
//
// Under `uniform` the best p(x0) of a position is therefore what all other positions say of it; its own x_t enters by q.
#include <vector>

#include "brume/core/codes.h"
#include "brume/core/objective.h"
#include "brume/core/sampler.h"

namespace brume {

/// A step of one image: alpha_t and alpha_s.
struct CodeStep {
  double from, to;
};

/// Returns the probability that the step unmasks a masked code, (alpha_s - alpha_t) / (1 - alpha_t); 1 if no code is masked.
double revealed(const CodeStep& step);

/// Returns alpha at sigma; 1 at sigma = 0.
double code_rate(const NoiseSchedule& schedule, double sigma);

/// Returns [B, K, H, W] of codes [B, H, W] int64, in the dtype `type`.
Tensor one_hot(const Tensor& codes, int64_t count, at::ScalarType type);
/// Returns 1 where x is masked, else 0: [B, 1, H, W] in the dtype of x.
Tensor masked(const Tensor& x);
/// Returns x_t drawn from q(x_t | x0). uniform: [B, 1, H, W] float64 in [0, 1); alpha: one per image.
Tensor corrupted(CodeKernel kernel, const Tensor& x0, const std::vector<double>& alpha, const Tensor& uniform);

/// Returns softmax(logits) over the codes, float64; an image has the same bits whatever its batch.
Tensor code_probabilities(const Tensor& logits);
/// Returns p(x_s | x_t) up to a factor per position: [B, K or K + 1, H, W]. p: p(x0), [B, K, H, W]; one-hot gives q(x_s | x_t, x0).
Tensor posterior(CodeKernel kernel, const Tensor& x, const Tensor& p, const std::vector<CodeStep>& steps);
/// Returns KL(q(x_s | x_t, x0) || p(x_s | x_t)), [B, H, W] in nats, differentiable in the logits; at alpha_s = 1 it is -log p(x0 | x_t).
Tensor step_divergence(CodeKernel kernel, const Tensor& x, const Tensor& x0, const Tensor& logits, const std::vector<CodeStep>& steps);
/// Returns -log p(x0), [B, H, W].
Tensor code_cross_entropy(const Tensor& x0, const Tensor& logits);

/// Returns the numbers of channels drawn with these weights, [B, H, W]. uniform: [B, 1, H, W] float64 in [0, 1).
Tensor drawn(const Tensor& weights, const Tensor& uniform);
/// Returns uniform numbers in [0, 1), float64, of normal ones.
Tensor uniform_of(const Tensor& normal);

// Training.

/// Returns the model's kernel. Throws ConfigError if an objective of codes cannot train such a model.
CodeKernel expect_code_model(const Objective::Requirements& model);
/// A batch of x_t.
struct NoisyCodes {
  Tensor x;
  std::vector<double> sigmas;
};
/// Draws x_t. Throws ConfigError if x0 are no codes.
NoisyCodes corrupt(CodeKernel kernel, const NoiseSchedule& schedule, const Tensor& x0, std::vector<double> sigmas, at::Generator& random);
/// Returns the step of the schedule's chain that ends one training time earlier, or at x0; for schedules with training times.
CodeStep chain_step(const NoiseSchedule& schedule, double sigma);

// Sampling.

/// Throws ConfigError if a run has more steps than the chain.
void expect_chain_steps(const NoiseSchedule& schedule, const std::vector<double>& sigmas);
/// Returns the alphas of step i; the last step of a run ends at x0.
CodeStep run_step(const NoiseSchedule& schedule, const std::vector<double>& sigmas, int64_t i);
/// Returns x at the first level: drawn from pi, of uniform codes by the largest of the noise x; or, below the schedule's last level, from
/// q(x_t | known) if an image is known.
Tensor first_codes(CodeKernel kernel, const Tensor& x, double sigma, Run& run);
/// Returns p(x0) of the logits; where a part of the image is known, that part.
Tensor estimated_codes(const Tensor& logits, const Condition& condition);
/// Returns a uniform number per position, [B, 1, H, W], for the step from sigma `from` to `to`.
Tensor uniform_per_code(const Tensor& x, double from, double to, Run& run);

}  // namespace brume
