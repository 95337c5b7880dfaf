// RePaint (Lugmayr et al. 2022, alg. 1 and app. B): after some steps, noise is added again and the steps are walked once more, so that what
// is made fits what is known. Of use with the guidance `inpaint`; without it, the same distribution at a higher price.
//
//   x at sigmas[i + jump] -> x at sigmas[i]:   x + sqrt(sigmas[i]^2 - sigmas[i + jump]^2) noise
//
// Whenever the walk first comes to a level that is a multiple of `jump_length` from the last noisy one, it goes back up `jump_length`
// levels, `resamples` - 1 times. The inner sampler takes each way down in one piece.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"

namespace brume::plugins {
namespace {

/// A way down, from sigmas[first] to sigmas[last].
struct Piece {
  int64_t first, last;
};

class Repaint final : public Sampler {
 public:
  struct Options {
    std::shared_ptr<const Sampler> sampler;
    int64_t jump_length = 10, resamples = 10;
    void declare(Fields& f) {
      f.field("sampler", sampler, "the sampler that walks down", "ddpm");
      f.field("jump_length", jump_length, "levels that are walked back up", at_least(1));
      f.field("resamples", resamples, "times that each stretch is walked; 1 = the inner sampler", at_least(1));
      f.unused(resamples == 1, "jump_length", "resamples is 1");
    }
  };
  explicit Repaint(const Options& o) : o_(o) {}
  SamplerTraits traits() const override {
    const SamplerTraits inner = o_.sampler->traits();
    return {.order = o_.resamples == 1 ? inner.order : 0,
            .variance = inner.variance,
            .keeps_direction = inner.keeps_direction,
            .takes_gradient = inner.takes_gradient};
  }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    if (o_.resamples > 1 && sigmas.front() < sigmas.back()) throw ConfigError("repaint adds noise, so it cannot invert");
    const std::vector<Piece> way = pieces(int64_t(sigmas.size()) - 1);
    int64_t done = 0, count = 0;
    for (const Piece& p : way) count += p.last - p.first;
    for (size_t i = 0; i < way.size(); ++i) {
      const auto [first, last] = way[i];
      if (i > 0) {
        const double low = sigmas[size_t(way[i - 1].last)], high = sigmas[size_t(first)];
        x = x + run.noise.draw(x, low, high) * std::sqrt((high - low) * (high + low));
      }
      Run part{run.condition, run.noise, {}, run.schedule};
      part.observer = [&](const Step& s) { return !run.observer || run.observer({done + s.index, count, s.sigma, s.x, s.x0}); };
      x = o_.sampler->sample(denoiser, x, {sigmas.begin() + first, sigmas.begin() + last + 1}, part);
      done += last - first;
    }
    return x;
  }

 private:
  std::vector<Piece> pieces(int64_t steps) const {
    std::map<int64_t, int64_t> jumps;  // by the number of noisy levels below
    for (int64_t below = 0; below < steps - o_.jump_length; below += o_.jump_length) jumps[below] = o_.resamples - 1;
    std::vector<Piece> way;
    int64_t first = 0;
    for (int64_t at = 1; at < steps; ++at)  // sigmas[at] has steps - 1 - at noisy levels below it
      if (const auto jump = jumps.find(steps - 1 - at); jump != jumps.end() && jump->second-- > 0) {
        way.push_back({first, at});
        first = at - o_.jump_length;
        at = first;
      }
    way.push_back({first, steps});
    return way;
  }
  Options o_;
};

}  // namespace

void register_sampler_repaint(Registry& r) { r.add<Sampler, Repaint>("repaint", "RePaint: goes back up and walks down again"); }

}  // namespace brume::plugins
