#include "brume/numerics/consistency.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/errors.h"

namespace brume {
namespace {

Tensor denoised(const TrainableModel& model, const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) {
  const Parameterization& p = model.parameterization();
  return x * each_image(sigmas, x, [&](double s) { return p.c_skip(s); }) +
         model.network(x, sigmas, condition) * each_image(sigmas, x, [&](double s) { return p.c_out(s); });
}

}  // namespace

std::vector<double> consistency_levels(const NoiseSchedule& schedule, int64_t intervals, double rho) {
  const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max());
  const double a = std::pow(lo, 1 / rho), b = std::pow(hi, 1 / rho);
  std::vector<double> sigmas;
  for (int64_t i = 0; i <= intervals; ++i) sigmas.push_back(std::pow(a + (b - a) * double(i) / double(intervals), rho));
  sigmas.front() = lo;
  sigmas.back() = hi;
  return sigmas;
}

void check_boundary(const Objective::Requirements& m, const char* name) {
  const double least = m.schedule.sigma(m.schedule.t_min());
  if (std::abs(m.parameterization.c_out(least)) <= 1e-3 * least && std::abs(m.parameterization.c_skip(least) - 1) <= 1e-3) return;
  throw ConfigError(
      fmt::format("{} needs a model that is the identity at the schedule's smallest sigma, {:.6g}; set "
                  "model.parameterization to {{type: consistency, sigma_min: {:.6g}}}",
                  name, least, least));
}

int64_t ConsistencyCurriculum::intervals(int64_t step, int64_t steps) const {
  const double s0 = double(first), s1 = double(last), k = double(step), all = double(std::max<int64_t>(1, steps));
  if (growth == Growth::constant) return last;
  if (growth == Growth::square_root)
    return std::clamp<int64_t>(int64_t(std::ceil(std::sqrt(k / all * ((s1 + 1) * (s1 + 1) - s0 * s0) + s0 * s0) - 1)), 1, last);
  const int64_t period = std::max<int64_t>(1, int64_t(all / (std::log2(std::floor(s1 / s0)) + 1)));
  return int64_t(std::min(s0 * std::exp2(double(std::min<int64_t>(step / period, 60))), s1));
}

std::vector<double> log_normal_shares(const std::vector<double>& levels, double mean, double std) {
  const auto below = [&](double s) { return std::erf((std::log(s) - mean) / (M_SQRT2 * std)); };
  std::vector<double> shares;
  for (size_t i = 0; i + 1 < levels.size(); ++i) shares.push_back(std::max(below(levels[i + 1]) - below(levels[i]), 1e-12));
  return shares;
}

Tensor pseudo_huber(const Tensor& a, const Tensor& b, double c, bool of_numbers) {
  const Tensor squares = (a - b).flatten(1).square();
  if (of_numbers) return ((squares + c * c).sqrt() - c).mean(at::IntArrayRef({1}));
  return (squares.sum(1) + c * c).sqrt() - c;
}

Tensor consistency_distance(const TrainableModel& model, const Tensor& x0, const Condition& condition, const ConsistencyPair& pair,
                            double huber, at::Generator& random) {
  const NoisyBatch b = add_noise(x0, pair.above, random);
  const Tensor before_dropout = random.get_state();
  const Tensor online = denoised(model, b.x, pair.above, condition);
  const Tensor target = [&] {
    const at::NoGradGuard no_grad;
    const Tensor x = pair.follow(b);
    random.set_state(before_dropout);
    return denoised(model, x, pair.below, condition);
  }();
  return pseudo_huber(online, target, huber * std::sqrt(double(x0[0].numel())), pair.of_numbers);
}

}  // namespace brume
