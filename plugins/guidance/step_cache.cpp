// Step caching: leaves out a network call where the last ones predict it. What is predicted is the direction e = (x - D) / sigma, image by
// image, so that the other images of a batch make no difference.
//
//   easycache (Zhou et al. 2025, "Less is enough: training-free video diffusion acceleration via runtime-adaptive caching", sec. 3.3):
//     e = the last one, while sum k |x - x_last| / |e| stays below the threshold, k = |e_n - e_(n-1)| / |x_n - x_(n-1)| of the last two
//     calls
//   taylor (Liu et al. 2025, "From reusing to forecasting: accelerating diffusion models with TaylorSeers", eq. 9):
//     e = the polynomial in log sigma through the last `order` + 1, while its relative error at the last call is below the threshold
//
// Put it after the guidances whose calls are to be left out. With a threshold of 0 no call is left out. After a run the number of calls and
// the largest relative error, where a call followed, are reported.
#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/guidance.h"
#include "brume/core/run_memory.h"
#include "brume/core/warnings.h"

namespace brume::plugins {
namespace {

struct CacheOptions {
  double threshold = 0.05, sigma_lo = 0;
  int64_t longest = 3, order = 0, first = 2;
};

/// The calls of one image.
struct History {
  std::vector<Tensor> directions, places;  ///< e and x, the newest first
  std::vector<double> lambdas;
  Tensor last_x;
  double error = INFINITY, rate = INFINITY, sum = 0;
  int64_t skipped = 0;
};

struct Memory {
  const char* name = "";
  std::vector<History> images;
  int64_t calls = 0, saved = 0;
  double worst = 0;
  ~Memory() {
    if (saved > 0)
      warn(fmt::format("{}: {} of {} were predicted; where a call followed, the prediction was off by at most {:.2g}", name, saved,
                       counted(calls + saved, "estimate"), worst));
  }
};

double norm(const Tensor& t) { return t.norm().item<double>(); }

class CacheDenoiser final : public Denoiser {
 public:
  CacheDenoiser(std::shared_ptr<const Denoiser> inner, const CacheOptions& o, const char* name)
      : inner_(std::move(inner)), o_(o), name_(name) {}

  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    RunMemory* run = RunMemory::current();
    if (!run || o_.threshold == 0) return inner_->denoise(x, sigma, condition);
    std::shared_ptr<Memory>& memory = run->of<std::shared_ptr<Memory>>(this);
    if (!memory || int64_t(memory->images.size()) != x.size(0)) {
      memory = std::make_shared<Memory>();
      memory->name = name_;
      memory->images.resize(size_t(x.size(0)));
    }
    std::vector<Tensor> x0(size_t(x.size(0)));
    std::vector<int64_t> asked;
    for (int64_t i = 0; i < x.size(0); ++i) {
      History& h = memory->images[size_t(i)];
      if (skips(h, x[i], sigma))
        x0[size_t(i)] = x[i] - predicted(h, -std::log(sigma)) * sigma, ++h.skipped, ++memory->saved;
      else
        asked.push_back(i);
      h.last_x = x[i];
    }
    if (asked.empty()) return {at::stack(x0), {}, {}};
    const bool all = int64_t(asked.size()) == x.size(0);
    const Tensor rows = at::tensor(asked, at::kLong).to(x.device());
    const Estimate d = all ? inner_->denoise(x, sigma, condition) : inner_->denoise(x.index_select(0, rows), sigma, condition.select(rows));
    const bool plain = !d.x0_uncond.defined() && !d.variance.defined() && !d.gradient.defined();
    for (size_t k = 0; k < asked.size(); ++k) {
      const size_t i = size_t(asked[k]);
      x0[i] = d.x0[int64_t(k)];
      ++memory->calls;
      if (plain) remember(*memory, memory->images[i], x[asked[k]], x0[i], sigma);
    }
    if (all) return d;
    return {at::stack(x0), {}, {}};
  }

 private:
  bool skips(History& h, const Tensor& x, double sigma) const {
    if (!h.lambdas.empty() && -std::log(sigma) <= h.lambdas.front()) h = History();  // the run went back up
    if (int64_t(h.directions.size()) < std::max(o_.first, o_.order + 1) || h.skipped >= o_.longest || sigma <= o_.sigma_lo) return false;
    if (o_.order > 0) return h.error <= o_.threshold;
    h.sum += h.rate * norm(x - h.last_x) / std::max(norm(h.directions.front()), 1e-300);
    return h.sum < o_.threshold;
  }
  Tensor predicted(const History& h, double lambda) const {
    Tensor sum;
    const size_t count = std::min(h.directions.size(), size_t(o_.order + 1));
    for (size_t j = 0; j < count; ++j) {
      double weight = 1;
      for (size_t m = 0; m < count; ++m)
        if (m != j) weight *= (lambda - h.lambdas[m]) / (h.lambdas[j] - h.lambdas[m]);
      sum = sum.defined() ? sum + h.directions[j] * weight : h.directions[j] * weight;
    }
    return sum;
  }
  void remember(Memory& memory, History& h, const Tensor& x, const Tensor& x0, double sigma) const {
    const Tensor e = (x - x0) / sigma;
    if (!h.directions.empty()) {
      h.error = norm(predicted(h, -std::log(sigma)) - e) / std::max(norm(e), 1e-300);
      h.rate = norm(e - h.directions.front()) / std::max(norm(x - h.places.front()), 1e-300);
      if (h.skipped > 0) memory.worst = std::max(memory.worst, h.error);
    }
    h.sum = 0, h.skipped = 0;
    h.directions.insert(h.directions.begin(), e);
    h.places.insert(h.places.begin(), x);
    h.lambdas.insert(h.lambdas.begin(), -std::log(sigma));
    if (h.directions.size() > 4) h.directions.pop_back(), h.places.pop_back(), h.lambdas.pop_back();
  }
  std::shared_ptr<const Denoiser> inner_;
  CacheOptions o_;
  const char* name_;
};

template <bool taylor>
class StepCache final : public Guidance {
 public:
  struct Options : CacheOptions {
    Options() { order = taylor ? 1 : 0, threshold = taylor ? 0.02 : 0.05; }
    void declare(Fields& f) {
      f.field("threshold", threshold, "largest relative error that is foreseen; 0 = every call is made", at_least(0));
      if (taylor) f.field("order", order, "degree of the polynomial", within(1, 3));
      if (taylor) f.unused(threshold == 0, "order", "threshold is 0");
      f.field("longest", longest, "calls left out in a row, at most", at_least(1));
      f.field("first", first, "calls that are made first", at_least(2));
      f.field("sigma_lo", sigma_lo, "make every call up to this noise level", at_least(0));
      f.unused(threshold == 0, {"longest", "first", "sigma_lo"}, "threshold is 0");
    }
  };
  explicit StepCache(const Options& o) : o_(o) {}
  GuidanceTraits traits() const override { return {.place = GuidancePlace::classifier}; }
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<CacheDenoiser>(std::move(inner), o_, taylor ? "taylor" : "easycache");
  }

 private:
  Options o_;
};

}  // namespace

void register_guidance_step_cache(Registry& r) {
  r.add<Guidance, StepCache<false>>("easycache", "leaves out network calls while x changes little (EasyCache)");
  r.add<Guidance, StepCache<true>>("taylor", "leaves out network calls that a polynomial predicts (TaylorSeer)");
}

}  // namespace brume::plugins
