// Steps of flow matching: s = sigma / (1 + sigma) in equal steps, shifted towards high noise for large images (Esser et al. 2024,
// eq. 23; dynamic shift of FLUX) and, if requested, stretched to end at a chosen s.
//
//   linear:       s' = shift s / (1 + (shift - 1) s)
//   exponential:  the same with shift = e^mu
//
// With `tokens` and `mus` mu is that of the size of the images: on the line through the two points (tokens, mu) (FLUX).
#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sized_spacing.h"
#include "brume/numerics/beta_distribution.h"
#include "brume/numerics/beta_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

enum class Curve { linear, karras, exponential, beta };

class Flow final : public SizedSpacing {
 public:
  struct Options {
    double shift = 1;
    std::optional<double> mu, s_max, s_min, terminal;
    std::vector<double> tokens, mus;
    int64_t patch = 2;
    Curve curve = Curve::linear;
    bool inclusive = true;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("shift", shift, "above 1: more steps at high noise", more_than(0));
      f.field("mu", mu, "log of the shift, instead of it (FLUX)");
      f.field("tokens", tokens, "two numbers of tokens, for a mu by the size of the images: [256, 4096] (FLUX)", more_than(0));
      f.field("mus", mus, "mu at these numbers of tokens: [0.5, 1.15] (FLUX); that of the second if the size is not known");
      f.field("patch", patch, "height and width of a token, for that", within(1, 256));
      f.field("s_max", s_max, "first s before the shift; null = the schedule's", within(1e-6, 1));
      f.field("s_min", s_min, "last s before the shift; null = the schedule's", within(0, 1));
      f.field("terminal", terminal, "the last s after the shift; null = as the shift gives it", within(1e-6, 0.999));
      f.choice("curve", curve, "redistribution of the shifted s between their ends",
               {{"linear", Curve::linear}, {"karras", Curve::karras}, {"exponential", Curve::exponential}, {"beta", Curve::beta}});
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
      f.unused(mus.empty(), "patch", "mus is empty, so that the shift does not depend on the size of the images");
      f.require(!mu || shift == 1, "mu", "give mu or shift, not both");
      const bool line = !tokens.empty() || !mus.empty();
      f.require(!line || (tokens.size() == 2 && mus.size() == 2 && tokens[0] != tokens[1]), "tokens",
                "takes two different numbers, and mus as many");
      f.require(!line || (!mu && shift == 1), "mus", "give shift, mu, or tokens and mus");
    }
  };
  explicit Flow(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const auto s_of = [](double sigma) { return sigma >= 1e6 ? 1 : sigma / (1 + sigma); };
    const double first = o_.s_max.value_or(s_of(schedule.sigma(schedule.t_max())));
    const double last = o_.s_min.value_or(s_of(schedule.sigma(schedule.t_min())));
    std::vector<double> s = linspace(first, last, steps + !o_.inclusive);
    const double shift = o_.mu ? std::exp(*o_.mu) : o_.mus.empty() ? o_.shift : std::exp(o_.mus[1]);
    for (double& v : s) v = shift * v / (1 + (shift - 1) * v);
    if (o_.terminal) {
      const double scale = (1 - s.back()) / (1 - *o_.terminal);
      for (double& v : s) v = 1 - (1 - v) / scale;
    }
    redistribute(s);
    if (!o_.inclusive) s.pop_back();
    for (double& v : s) v = std::min(v / std::max(1 - v, 1e-300), 1e6);
    require_within(schedule, s);
    return with_final(std::move(s), schedule, o_.final_sigma);
  }

  std::shared_ptr<const Spacing> for_size(const ImageShape& latent) const override {
    Options own = o_;
    if (!o_.mus.empty()) {
      const double count = double((latent.height / o_.patch) * (latent.width / o_.patch));
      own.mu = o_.mus[0] + (count - o_.tokens[0]) * (o_.mus[1] - o_.mus[0]) / (o_.tokens[1] - o_.tokens[0]);
    }
    return std::make_shared<Flow>(own);
  }

 private:
  void redistribute(std::vector<double>& s) const {
    if (o_.curve == Curve::linear) return;
    const double hi = s.front(), lo = s.back(), n = double(s.size() - 1);
    for (size_t i = 0; i < s.size(); ++i) {
      const double r = n > 0 ? double(i) / n : 0;
      switch (o_.curve) {
        case Curve::karras: s[i] = std::pow(std::pow(hi, 1.0 / 7) + r * (std::pow(lo, 1.0 / 7) - std::pow(hi, 1.0 / 7)), 7); break;
        case Curve::exponential: s[i] = std::exp(std::log(hi) + r * (std::log(lo) - std::log(hi))); break;
        case Curve::beta: s[i] = lo + beta_quantile(1 - r, 0.6, 0.6) * (hi - lo); break;
        case Curve::linear: break;
      }
    }
  }
  Options o_;
};

}  // namespace

void register_spacing_flow(Registry& r) { r.add<Spacing, Flow>("flow", "flow matching's, with a static or dynamic shift"); }

}  // namespace brume::plugins
