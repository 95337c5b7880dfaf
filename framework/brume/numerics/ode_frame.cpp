#include "brume/numerics/ode_frame.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <stdexcept>

#include "brume/config/fields.h"

namespace brume {
namespace {

/// Returns f'(t) by central differences of order 8 with a step relative to t.
template <class F>
double derivative(const F& f, double t) {
  const double h = 4e-3 * t;
  const double c[] = {4.0 / 5, -1.0 / 5, 4.0 / 105, -1.0 / 280};
  double sum = 0;
  for (int k = 1; k <= 4; ++k) sum += c[k - 1] * (f(t + k * h) - f(t - k * h));
  return sum / h;
}

}  // namespace

void Frame::declare(Fields& f) {
  f.choice("time", time, "the variable of the steps: sigma, sigma^2 (VE), sigma / (1 + sigma) (flow matching), the schedule's time (VP)",
           {{"sigma", Time::sigma}, {"variance", Time::variance}, {"flow", Time::flow}, {"schedule", Time::schedule}});
  f.choice("scale", scale, "the variable that is stepped: x, x / (1 + sigma) (flow matching), the schedule's signal rate times x (VP)",
           {{"none", Scale::none}, {"flow", Scale::flow}, {"schedule", Scale::schedule}});
}

Tensor Frame::Point::slope(const Tensor& x, const Tensor& x0) const {
  if (of_x) return x * *of_x - x0 * (scale * sigma_rate / sigma);
  const Tensor d = (x - x0) * (scale * sigma_rate / sigma);
  return log_scale == 0 ? d : d + x * (scale * log_scale);
}

Frame::Point Frame::at(double s, const NoiseSchedule* schedule) const {
  if ((time == Time::schedule || scale == Scale::schedule) && !schedule)
    throw std::logic_error("a sampler in the schedule's frame was run without a noise schedule");
  Point p{s, s, 1, 1, 0};
  switch (time) {
    case Time::sigma: break;
    case Time::variance: p.u = s * s, p.sigma_rate = 1 / (2 * s); break;
    case Time::flow: p.u = s / (1 + s), p.sigma_rate = (1 + s) * (1 + s); break;
    case Time::schedule:
      p.u = s == 0 ? 0 : schedule->time(s);
      if (s > 0) p.sigma_rate = derivative([&](double t) { return schedule->sigma(t); }, p.u);
  }
  switch (scale) {
    case Scale::none: break;
    case Scale::flow:
      p.scale = 1 / (1 + s), p.log_scale = -p.sigma_rate / (1 + s);
      if (s > 0) p.of_x = p.scale * p.sigma_rate / (s * (1 + s));  // at pure noise the two terms would cancel
      break;
    case Scale::schedule:
      p.scale = schedule->signal(s);
      if (s > 0) p.log_scale = p.sigma_rate * derivative([&](double x) { return std::log(schedule->signal(x)); }, s);
  }
  return p;
}

double Frame::sigma(double u, const NoiseSchedule* schedule) const {
  switch (time) {
    case Time::variance: return std::sqrt(u);
    case Time::flow: return u / (1 - u);
    case Time::schedule: return schedule->sigma(u);
    case Time::sigma: break;
  }
  return u;
}

}  // namespace brume
