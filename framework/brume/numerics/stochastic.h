#pragma once
// How samplers that add noise split a step, and how "churn" raises one.
#include "brume/config/fields.h"
#include "brume/core/sampler.h"

namespace brume {

/// A step from sigma `from` to `to` as a deterministic one to `down`, then fresh noise of standard deviation `up`:
/// up = min(to, eta to sqrt(1 - (to/from)^2)), down = sqrt(to^2 - up^2) (Song et al. 2021a, eq. 16, in the sigma frame; the
/// "ancestral step" of k-diffusion). Ascending steps and eta = 0 add nothing.
struct NoiseSplit {
  double down, up;
};
NoiseSplit ancestral_step(double from, double to, double eta);

/// How a step is split: so that the variance of a variance-exploding process stays (above), or along the straight paths of flow matching,
/// s_down = s' (1 + eta (s' / s - 1)), s = sigma / (1 + sigma), up = sqrt(to^2 - down^2) (ComfyUI's samplers "RF").
struct Ancestral {
  double eta = 1, s_noise = 1;
  bool flow = false;
  void declare(Fields& f);
  NoiseSplit step(double from, double to) const;
};

/// Returns one step of the reverse-time SDE of the variance-exploding process (Song et al. 2021b, eq. 46):
/// x + g^2 (x0 - x) / from^2 + s_noise g z, g^2 = from^2 - to^2; without z if `noise` is null.
Tensor reverse_diffusion(const Tensor& x, const Tensor& x0, double from, double to, Noise* noise, double s_noise = 1);

/// The churn of EDM (Karras et al. 2022, alg. 2): before a step within [s_tmin, s_tmax], noise raises sigma by the factor
/// 1 + gamma, gamma = min(s_churn / steps, sqrt(2) - 1).
struct Churn {
  double s_churn = 0, s_tmin = 0, s_tmax = 1e9, s_noise = 1;
  void declare(Fields& f);
  bool adds_noise() const { return s_churn > 0; }
  /// Returns the raised sigma, and raises x with it. Draws once per step if there is churn, inside the interval or not.
  double raise(Tensor& x, double sigma, int64_t steps, Noise& noise) const;
};

}  // namespace brume
