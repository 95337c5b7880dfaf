#include "brume/numerics/flow_map.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/numerics/companion_network.h"
#include "brume/numerics/extra_vector.h"
#include "brume/numerics/noising.h"

namespace brume {

MeanVelocity mean_velocity(const TrainableModel& model, const Condition& condition, at::Generator& random) {
  const Tensor before_dropout = random.get_state();
  const int64_t width = vector_width(condition);
  return [&model, &condition, &random, before_dropout, width](const Tensor& z, const std::vector<double>& t, const std::vector<double>& h) {
    std::vector<double> sigmas;
    for (const double s : t) sigmas.push_back(within_schedule(model.schedule(), s / std::max(1 - s, 1e-300)));
    const Tensor lengths = at::tensor(h, at::TensorOptions().dtype(at::kDouble)).to(z.device());
    const Condition asked = with_vector(condition, interval_features(lengths, width));
    random.set_state(before_dropout);
    const Parameterization& p = model.parameterization();
    const Tensor x = z * each_image(sigmas, z, [](double s) { return 1 + s; });
    const Tensor f = model.network(x, sigmas, asked);
    // (x / (1 + s) - c_skip x - c_out F) (1 + s) / s, without a difference of large numbers for v and flow
    return z * each_image(sigmas, z, [&](double s) { return ((1 - p.c_skip(s)) / s - p.c_skip(s)) * (1 + s); }) -
           f * each_image(sigmas, z, [&](double s) { return p.c_out(s) * (1 + s) / s; });
  };
}

TimeRange flow_times(const NoiseSchedule& schedule) {
  const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max());
  return {lo / (1 + lo), hi / (1 + hi)};
}

void expect_interval(const Condition& condition, const char* objective) {
  const int64_t width = vector_width(condition);
  if (width == 0 || width % 2 != 0)
    throw ConfigError(fmt::format(
        "{} trains a model that takes the length of a step; add {{type: interval}} to model.conditioner, alone or in a composite",
        objective));
}

Tensor path_derivative(const std::function<Tensor(const std::vector<double>& offsets)>& f, const Tensor& here, const std::vector<double>& t,
                       double step, const TimeRange& range) {
  const at::NoGradGuard no_grad;
  std::vector<double> first, second, at_t, at_first, at_second;
  for (const double time : t) {
    const bool down = time + step > range.most, up = !down && time - step < range.least;
    first.push_back(down ? -step : step);
    second.push_back(down ? -2 * step : up ? 2 * step : -step);
    at_t.push_back((down ? 3 : up ? -3 : 0) / (2 * step));
    at_first.push_back((down ? -4 : up ? 4 : 1) / (2 * step));
    at_second.push_back((down ? 1 : up ? -1 : -1) / (2 * step));
  }
  const auto times = [&](const Tensor& value, const std::vector<double>& factor) {
    return value * each_image(factor, value, [](double c) { return c; });
  };
  return times(here.detach(), at_t) + times(f(first), at_first) + times(f(second), at_second);
}

Tensor FlowSteps::z() const {
  return x0 * each_image(t, x0, [](double s) { return 1 - s; }) + noise * each_image(t, x0, [](double s) { return s; });
}

Tensor mean_flow_losses(const MeanVelocity& u, const FlowSteps& s, const MeanFlowLoss& loss, const TimeRange& range) {
  const Tensor z = s.z(), v = s.noise - s.x0;
  std::vector<double> h;
  for (size_t i = 0; i < s.t.size(); ++i) h.push_back(s.t[i] - s.r[i]);
  const Tensor online = u(z, s.t, h);
  const auto along = [&](const std::vector<double>& offsets) {
    std::vector<double> t = s.t, length = h;
    for (size_t i = 0; i < t.size(); ++i) t[i] += offsets[i], length[i] += offsets[i];
    return u(z + v * each_image(offsets, v, [](double o) { return o; }), t, length);
  };
  const Tensor slope = path_derivative(along, online, s.t, loss.step, range);
  const Tensor target = v - slope * each_image(h, v, [](double length) { return length; });
  const Tensor squares = (online - target.detach()).square().flatten(1).sum(1);
  return squares / (squares.detach() + loss.eps).pow(loss.p);
}

}  // namespace brume
