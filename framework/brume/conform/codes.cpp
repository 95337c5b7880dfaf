#include "brume/conform/codes.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/conform/exact_models.h"
#include "brume/conform/four_threads.h"
#include "brume/numerics/code_chain.h"

namespace brume {
namespace {

const std::vector<double> shares{0.5, 0.25, 0.2, 0.05};  // of the codes
constexpr int64_t side = 4;

Tensor log_shares() { return at::tensor(shares, at::TensorOptions().dtype(at::kFloat)).log().view({1, int64_t(shares.size()), 1, 1}); }

/// Codes of `count` images.
Tensor images(int64_t count, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  const Tensor u = at::rand({count, 1, side, side}, random, at::TensorOptions().dtype(at::kDouble));
  return one_hot(drawn(log_shares().exp().expand({count, -1, side, side}), u), int64_t(shares.size()), at::kFloat);
}

class CodeLogits final : public Parameterization, public OfCodes {
 public:
  explicit CodeLogits(CodeKernel kernel) : kernel_(kernel) {}
  double c_skip(double) const override { return 0; }
  double c_out(double) const override { return 1; }
  double c_in(double, const NoiseSchedule&) const override { return 1; }
  std::optional<CodeKernel> kernel() const override { return kernel_; }

 private:
  CodeKernel kernel_;
};

/// Knows the distribution; errs in the logit of the first code, image by image.
class ExactCodeModel final : public TrainableModel {
 public:
  ExactCodeModel(CodeKernel kernel, int64_t count) : parameterization_(kernel), error(at::zeros({count})) { error.set_requires_grad(true); }
  Prediction predict(const Tensor& x, const std::vector<double>& sigmas, const Condition&) const override {
    asked.push_back(sigmas);
    const Tensor first = one_hot(at::zeros({1, 1, 1}, at::kLong), int64_t(shares.size()), at::kFloat);
    return {log_shares().expand_as(x) + first * error.view({-1, 1, 1, 1}), {}};
  }
  const NoiseSchedule& schedule() const override { return *cosine_times(); }
  const Parameterization& parameterization() const override { return parameterization_; }

 private:
  CodeLogits parameterization_;

 public:
  Tensor error;
  mutable std::vector<std::vector<double>> asked;
};

Tensor loss_of(const Objective& objective, const ExactCodeModel& model, const Tensor& x0, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  Training training{0, 100, objective.memory(model.schedule())};
  return objective.loss(model, x0, {}, training, random);
}

class CodeDenoiser final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double, const Condition&) const override {
    Estimate d;
    d.x0 = log_shares().to(x.scalar_type()).expand_as(x).contiguous();
    return d;
  }
};

Tensor run(const Sampler& sampler, int64_t count, int64_t steps, uint64_t seed, int64_t first = 0) {
  const NoiseSchedule& schedule = *cosine_times();
  std::vector<double> sigmas;
  for (int64_t i = 0; i < steps; ++i) sigmas.push_back(schedule.sigma(std::nearbyint(999 * double(steps - i) / double(steps))));
  sigmas.push_back(0);
  const auto start = per_image_noise(seed, first), noise = per_image_noise(seed + 1, first);
  const Condition none;
  Run run{none, *noise, {}, &schedule};
  const Tensor x = start->draw(at::zeros({count, int64_t(shares.size()), side, side}), 1, 1);
  return sampler.sample(CodeDenoiser(), x, sigmas, run);
}

void check_minimum(std::vector<Finding>& findings, const Objective& objective, CodeKernel kernel) {
  const Law law{fmt::format("least for the exact model, {}", name_of(kernel)),
                "A model that knows the distribution has a smaller loss than one whose first logit is off", "Austin et al. 2021, eq. 1"};
  check(findings, law, [&](Finding& f) {
    const Tensor x0 = images(4096, 8);
    const auto loss = [&](double error) {
      const ExactCodeModel model(kernel, 4096);
      model.error.detach().fill_(error);
      return loss_of(objective, model, x0, 1).item<double>();
    };
    const double exact = loss(0), less = loss(-0.4), more = loss(0.4);
    f.measured = fmt::format("{:.4g}, and {:.4g} and {:.4g}", exact, less, more), f.wanted = "the first is least";
    f.holds = std::isfinite(exact) && exact < less && exact < more;
  });
}

void check_draws(std::vector<Finding>& findings, const Objective& objective, CodeKernel kernel) {
  check(findings, {"the generator alone", "Equal seeds give equal bits; another seed draws other noise levels"}, [&](Finding& f) {
    const ExactCodeModel model(kernel, 16);
    const Tensor x0 = images(16, 4), a = loss_of(objective, model, x0, 1), b = loss_of(objective, model, x0, 1);
    loss_of(objective, model, x0, 2);
    const bool same = at::equal(a, b), other = model.asked.back() != model.asked.front();
    f.measured = fmt::format("{}, {}", same ? "equal bits" : "two calls with one seed differ", other ? "other sigmas" : "one draw");
    f.wanted = "equal bits, other sigmas", f.holds = same && other;
  });
  check(findings, {"image i alone", "The gradient of one image does not depend on the error of another"}, [&](Finding& f) {
    const auto gradients = [&](double first) {
      const ExactCodeModel model(kernel, 16);
      model.error.detach().fill_(0.2);
      model.error.detach()[0].fill_(first);
      loss_of(objective, model, images(16, 3), 5).backward();
      return model.error.grad().narrow(0, 1, 15).to(at::kDouble);
    };
    const Tensor before = gradients(0.2), after = gradients(1.2);
    f.holds =
        at::isfinite(before).all().item<bool>() && (before - after).abs().max().item<double>() <= 1e-5 * before.abs().max().item<double>();
    f.measured = f.holds ? "unchanged" : "changed", f.wanted = "finite, unchanged";
  });
}

}  // namespace

std::vector<Finding> conform_codes(const Objective& objective, const OfCodes& codes) {
  std::vector<Finding> findings;
  const CodeKernel kernel = codes.kernel().value_or(CodeKernel::absorbing);
  check_minimum(findings, objective, kernel);
  if (!codes.kernel()) check_minimum(findings, objective, CodeKernel::uniform);
  check_draws(findings, objective, kernel);
  return findings;
}

std::vector<Finding> conform_codes(const Sampler& sampler) {
  std::vector<Finding> findings;
  const Law law{"distribution of independent codes", "Samples of the exact estimate have the shares of the data",
                "Austin et al. 2021, eq. 4"};
  check(findings, law, [&](Finding& f) {
    const Tensor x = run(sampler, 500, 20, 7);
    const double count = 500 * side * side;
    double chi = 0;
    for (size_t k = 0; k < shares.size(); ++k)
      chi += std::pow(x.select(1, int64_t(k)).sum().item<double>() - count * shares[k], 2) / (count * shares[k]);
    const bool whole = at::equal(x.sum(1), at::zeros({500, side, side}) + 1);
    f.measured = fmt::format("chi-square {:.2f}{}", chi, whole ? "" : ", and not every position has a code");
    f.wanted = "below 16.3 (3 degrees of freedom, 0.1 %), a code in each position", f.holds = whole && chi < 16.27;
  });
  check(findings, {"image i alone and in a batch of 12", "An image has the same bits whatever its batch"}, [&](Finding& f) {
    const Tensor together = run(sampler, 12, 10, 3);
    int64_t same = 0;
    for (int64_t i = 0; i < 12; ++i) same += at::equal(run(sampler, 1, 10, 3, i), together.narrow(0, i, 1));
    f.measured = fmt::format("{} of 12 equal", same), f.wanted = "12 of 12, bit for bit", f.holds = same == 12;
  });
  check(findings, {"noise of two seeds", "Two seeds give different samples"}, [&](Finding& f) {
    const bool equal = at::equal(run(sampler, 4, 10, 1), run(sampler, 4, 10, 100));
    f.measured = equal ? "equal" : "different", f.wanted = "different", f.holds = !equal;
  });
  check_four_threads(findings, "A sampler keeps no state between calls", [&](size_t seed) { return run(sampler, 3, 10, seed); });
  return findings;
}

}  // namespace brume
