// Consistency distillation (Song et al. 2023, alg. 2): a point and its neighbour on the probability-flow ODE of a trained model, the
// teacher, are to be denoised alike.
//
//   x_below = x + one step of the teacher's ODE from sigma_(i+1) to sigma_i,   dx/dsigma = (x - D_teacher(x)) / sigma
//   loss = d(D(x, sigma_(i+1)), stop-gradient D(x_below, sigma_i)),   d = pseudo-Huber
//
// The target is the model's own, without a moving average, as Song & Dhariwal (2023, sec. 3.2) found better.
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>

#include <map>

#include "brume/config/registry.h"
#include "brume/core/rows.h"
#include "brume/numerics/consistency.h"
#include "brume/numerics/teacher.h"

namespace brume::plugins {
namespace {

enum class Solver { euler, heun };

class ConsistencyDistillation final : public Objective {
 public:
  struct Options {
    GuidedTeacher teacher;
    Solver solver = Solver::heun;
    int64_t intervals = 17;
    double rho = 7, huber = 0.00054;
    void declare(Fields& f) {
      teacher.declare(f);
      f.choice("solver", solver, "solver of the teacher's step", {{"heun", Solver::heun}, {"euler", Solver::euler}});
      f.field("intervals", intervals, "between noise levels (N - 1 in the paper)", at_least(1));
      f.field("rho", rho, "the levels are even in sigma^(1/rho)", more_than(0));
      f.field("huber", huber, "c of the pseudo-Huber distance, for one dimension", more_than(0));
    }
  };
  explicit ConsistencyDistillation(const Options& o) : o_(o) {}

  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training& training,
              at::Generator& random) const override {
    const std::shared_ptr<const Denoiser> teacher = o_.teacher.open(training, x0);
    const std::vector<double> levels = consistency_levels(model.schedule(), o_.intervals, o_.rho);
    const Tensor drawn =
        draw_rows(x0.size(0), [&](int64_t n) { return at::randint(o_.intervals, {n}, random, at::TensorOptions().dtype(at::kLong)); });
    ConsistencyPair pair;
    std::map<int64_t, std::vector<int64_t>> rows;  // images by level: a denoiser knows one sigma at a time
    for (int64_t i = 0; i < x0.size(0); ++i) {
      const int64_t k = drawn.data_ptr<int64_t>()[i];
      rows[k].push_back(i);
      pair.above.push_back(levels[size_t(k) + 1]);
      pair.below.push_back(levels[size_t(k)]);
    }
    pair.follow = [&](const NoisyBatch& b) {
      Tensor x = at::empty_like(b.x);
      for (const auto& [k, images] : rows) {
        const Tensor index = at::tensor(images).to(x.device());
        const Condition asked = condition.select(index);
        x.index_copy_(0, index, step(*teacher, b.x.index_select(0, index), levels[size_t(k) + 1], levels[size_t(k)], asked));
      }
      return x;
    };
    return consistency_distance(model, x0, condition, pair, o_.huber, random).mean();
  }
  void check(const Requirements& r) const override {
    o_.teacher.check();
    check_boundary(r, "consistency_distillation");
  }

 private:
  Tensor step(const Denoiser& teacher, const Tensor& x, double from, double to, const Condition& condition) const {
    const Tensor slope = (x - teacher.denoise(x, from, condition).x0) / from;
    Tensor next = x + slope * (to - from);
    if (o_.solver == Solver::euler) return next;
    return x + (slope + (next - teacher.denoise(next, to, condition).x0) / to) * ((to - from) / 2);
  }
  Options o_;
};

}  // namespace

void register_objective_consistency_distillation(Registry& r) {
  r.add<Objective, ConsistencyDistillation>("consistency_distillation", "a consistency model taught by a trained model's ODE");
}

}  // namespace brume::plugins
