#include "brume/numerics/stochastic.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

namespace brume {

NoiseSplit ancestral_step(double from, double to, double eta) {
  if (to >= from || eta == 0) return {to, 0};
  const double up = std::min(to, eta * to * std::sqrt((1 - to / from) * (1 + to / from)));
  return {std::sqrt((to - up) * (to + up)), up};
}

void Ancestral::declare(Fields& f) {
  f.field("eta", eta, "share of the ancestral noise; 0 = deterministic", within(0, 1));
  f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
  f.choice("split", flow, "how a step is split into a deterministic one and noise: by variance, or along the paths of flow matching",
           {{"variance", false}, {"flow", true}});
  f.unused(eta == 0, {"s_noise", "split"}, "eta is 0");
}

NoiseSplit Ancestral::step(double from, double to) const {
  if (!flow || to >= from || eta == 0) return ancestral_step(from, to, eta);
  const double here = from / (1 + from), there = to / (1 + to), down = there * (1 + eta * (there / here - 1)), sigma = down / (1 - down);
  return {sigma, std::sqrt((to - sigma) * (to + sigma))};
}

Tensor reverse_diffusion(const Tensor& x, const Tensor& x0, double from, double to, Noise* noise, double s_noise) {
  const double g2 = (from - to) * (from + to);
  const Tensor mean = x0 + (x - x0) * (1 - g2 / (from * from));
  return noise && g2 > 0 ? mean + noise->draw(x, from, to) * (s_noise * std::sqrt(g2)) : mean;
}

void Churn::declare(Fields& f) {
  f.field("s_churn", s_churn, "noise added before the steps, over the whole run; 0 = no noise", at_least(0));
  f.field("s_tmin", s_tmin, "least sigma at which noise is added", at_least(0));
  f.field("s_tmax", s_tmax, "largest sigma at which noise is added", at_least(0));
  f.field("s_noise", s_noise, "standard deviation of that noise", more_than(0));
  f.unused(s_churn == 0, {"s_tmin", "s_tmax", "s_noise"}, "s_churn is 0");
}

double Churn::raise(Tensor& x, double sigma, int64_t steps, Noise& noise) const {
  if (s_churn == 0) return sigma;
  const bool within = sigma >= s_tmin && sigma <= s_tmax;
  const double raised = within ? sigma * (1 + std::min(s_churn / double(steps), std::sqrt(2.0) - 1)) : sigma;
  const Tensor drawn = noise.draw(x, sigma, raised);  // outside too, as in EDM's code: the window does not shift the stream
  if (within) x = x + drawn * (s_noise * std::sqrt((raised - sigma) * (raised + sigma)));
  return raised;
}

}  // namespace brume
