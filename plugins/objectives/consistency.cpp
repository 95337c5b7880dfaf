// Improved consistency training (Song & Dhariwal 2023, table 1): neighbouring points of one path, x0 + sigma n at two levels, are to be
// denoised alike; the levels come closer as the training goes on.
//
//   N(k) = min(s0 2^floor(k / K'), s1) intervals,   K' = floor(K / (log2(floor(s1 / s0)) + 1)),   k of K updates done
//   p(i) ~ erf((log sigma_(i+1) - mean) / (sqrt(2) std)) - erf((log sigma_i - mean) / (sqrt(2) std))
//   loss = 1 / (sigma_(i+1) - sigma_i) d(D(x0 + sigma_(i+1) n), stop-gradient D(x0 + sigma_i n)),   d = pseudo-Huber, c = 0.00054 sqrt(dim)
//
// The target is the model's own, without a moving average (sec. 3.2). `curriculum: square_root` with first 2 and last 150 is that of Song
// et al. 2023; `distance: numbers` that of Kinyugo's program.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/tensor.h>

#include "brume/config/registry.h"
#include "brume/core/rows.h"
#include "brume/numerics/consistency.h"

namespace brume::plugins {
namespace {

class Consistency final : public Objective {
 public:
  struct Options {
    ConsistencyCurriculum curriculum;
    bool of_numbers = false;
    double rho = 7, mean = -1.1, std = 2, huber = 0.00054;
    void declare(Fields& f) {
      using Growth = ConsistencyCurriculum::Growth;
      f.choice("curriculum", curriculum.growth, "how the number of intervals grows",
               {{"doubling", Growth::doubling}, {"square_root", Growth::square_root}, {"constant", Growth::constant}});
      f.field("first", curriculum.first, "intervals between noise levels at the beginning of the training (s0)", at_least(1));
      f.field("last", curriculum.last, "intervals at the end of the training (s1)", at_least(1));
      f.field("rho", rho, "the levels are even in sigma^(1/rho)", more_than(0));
      f.field("mean", mean, "mean of log sigma (P_mean)");
      f.field("std", std, "standard deviation of log sigma (P_std)", more_than(0));
      f.field("huber", huber, "c of the pseudo-Huber distance, for one dimension", more_than(0));
      f.choice("distance", of_numbers, "the pseudo-Huber distance is that of images, or the mean of that of their numbers",
               {{"images", false}, {"numbers", true}});
      f.unused(curriculum.growth == Growth::constant, "first", "the curriculum is constant");
      f.require(curriculum.growth == Growth::constant || curriculum.first <= curriculum.last, "first", "must not exceed last");
    }
  };
  explicit Consistency(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const std::vector<double> levels = consistency_levels(model.schedule(), o_.curriculum.intervals(training.step, training.steps), o_.rho);
    const Tensor shares = at::tensor(log_normal_shares(levels, o_.mean, o_.std), at::TensorOptions().dtype(at::kDouble));
    const Tensor drawn = draw_rows(x0.size(0), [&](int64_t n) { return at::multinomial(shares, n, true, random); });
    ConsistencyPair pair;
    pair.of_numbers = o_.of_numbers;
    std::vector<double> weights;
    for (int64_t i = 0; i < x0.size(0); ++i) {
      const size_t k = size_t(drawn.data_ptr<int64_t>()[i]);
      pair.above.push_back(levels[k + 1]);
      pair.below.push_back(levels[k]);
      weights.push_back(1 / (levels[k + 1] - levels[k]));
    }
    pair.follow = [&](const NoisyBatch& b) { return b.x0 + b.noise * each_image(pair.below, b.x0, [](double s) { return s; }); };
    const Tensor distance = consistency_distance(model, x0, condition, pair, o_.huber, random);
    return (distance * at::tensor(weights, at::TensorOptions().dtype(at::kDouble)).to(distance.options())).mean();
  }
  void check(const Requirements& r) const override { check_boundary(r, "consistency"); }

 private:
  Options o_;
};

}  // namespace

void register_objective_consistency(Registry& r) {
  r.add<Objective, Consistency>("consistency", "improved consistency training: images in one or two steps, without a teacher");
}

}  // namespace brume::plugins
