// Adafactor (Shazeer & Stern 2018, alg. 4 and 5): of the mean square of a matrix's gradient, the means of its rows and columns are kept,
// and a step is measured in units of the weight.
//
//   v ~ rows columns / mean(rows),  u = g / sqrt(v),  u <- u / max(1, rms(u) / threshold),  w <- w - max(eps, rms(w)) rate u
//
// The decay of the means is 1 - t^-0.8. With `relative_step` the rate is min(0.01, 1 / sqrt(t)), or min(1e-6 t, 1 / sqrt(t)) with
// `warmup_init`, as transformers' Adafactor has both.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/numerics/gradient.h"

namespace brume::plugins {
namespace {

constexpr double usual_lr = 1e-3;

double rms(const Tensor& x) { return std::sqrt(sum_of_products(x, x) / double(x.numel())); }

class Adafactor final : public Optimizer {
 public:
  struct Options {
    LearningRate rate{.lr = usual_lr};
    double beta1 = 0, decay_rate = 0.8, square_eps = 1e-30, scale_eps = 1e-3, threshold = 1, weight_decay = 0;
    bool scale_parameter = true, relative_step = false, warmup_init = false;
    void declare(Fields& f) {
      rate.declare(f);
      f.field("scale_parameter", scale_parameter, "multiplies the learning rate of a weight with its root mean square");
      f.field("relative_step", relative_step, "chooses the learning rate from the step, in place of lr; warmup and decay multiply it");
      f.field("warmup_init", warmup_init, "lets that rate rise slowly");
      f.field("beta1", beta1, "decay of a mean of the updates; 0 = none, and no memory for it", within(0, 0.9999999));
      f.field("decay_rate", decay_rate, "the means of squares decay by 1 - t^-decay_rate", within(0, 1));
      f.field("square_eps", square_eps, "added to the squares of the gradient", at_least(0));
      f.field("scale_eps", scale_eps, "smallest root mean square that a weight counts with", at_least(0));
      f.field("threshold", threshold, "largest root mean square of an update", more_than(0));
      f.field("weight_decay", weight_decay, "pull towards 0", at_least(0));
      f.unused(!scale_parameter, "scale_eps", "scale_parameter is false");
      f.require(!relative_step || rate.lr == usual_lr, "lr", "has no effect with relative_step");
      f.require(!warmup_init || relative_step, "warmup_init", "needs relative_step");
    }
  };
  Adafactor(const Options& o, const Context& c) : o_(o), step_(c, o.rate, o.weight_decay) {
    if (o.relative_step && std::any_of(c.own.begin(), c.own.end(), [](const Own& own) { return own.lr.has_value(); }))
      throw ConfigError("a group's lr has no effect with relative_step");
    for (const Weight& w : step_.weights()) {
      const Tensor zeros = w.tensor.detach() * 0;
      rows_.push_back(factored(zeros) ? zeros.mean(-1) : zeros);
      if (factored(zeros)) columns_.push_back({"columns." + w.name, zeros.mean(-2), false});
      column_of_.push_back(factored(zeros) ? columns_.size() - 1 : 0);
    }
    if (o_.beta1 > 0) mean_ = step_.zeros();
  }

  double update(int64_t step) override {
    const double t = double(step + 1), keep = 1 - std::pow(t, -o_.decay_rate), scheduled = step_.learning_rate(step) / o_.rate.lr;
    return step_.run(step, [&](const GradientStep::Update& u) {
      const double lr =
          (o_.relative_step ? relative_rate(t) * scheduled : u.lr) * (o_.scale_parameter ? std::max(o_.scale_eps, rms(u.weight)) : 1);
      Tensor change = u.gradient * inverse_root(u, keep);
      change.div_(std::max(1.0, rms(change) / o_.threshold)).mul_(lr);
      if (o_.beta1 > 0) change = mean_[u.index].mul_(o_.beta1).add_(change, 1 - o_.beta1);
      Tensor(u.weight).mul_(1 - u.weight_decay * lr).sub_(change);
    });
  }
  double learning_rate(int64_t step) const override {
    const double scheduled = step_.learning_rate(step);
    return o_.relative_step ? relative_rate(double(step + 1)) * scheduled / o_.rate.lr : scheduled;
  }

  std::vector<Weight> state() const override {
    std::vector<Weight> all;
    step_.add_state(all, "rows", rows_);
    all.insert(all.end(), columns_.begin(), columns_.end());
    if (o_.beta1 > 0) step_.add_state(all, "m", mean_);
    return all;
  }

 private:
  static bool factored(const Tensor& w) { return w.dim() >= 2; }
  double relative_rate(double t) const { return std::min(o_.warmup_init ? 1e-6 * t : 1e-2, 1 / std::sqrt(t)); }

  /// Brings the means of squares up to date and returns 1 / sqrt(v).
  Tensor inverse_root(const GradientStep::Update& u, double keep) {
    const Tensor square = u.gradient * u.gradient + o_.square_eps;
    Tensor& rows = rows_[u.index];
    if (!factored(u.weight)) return rows.mul_(keep).add_(square, 1 - keep).rsqrt();
    Tensor& columns = columns_[column_of_[u.index]].tensor;
    rows.mul_(keep).add_(square.mean(-1), 1 - keep);
    columns.mul_(keep).add_(square.mean(-2), 1 - keep);
    return (rows / rows.mean(-1, true)).rsqrt_().unsqueeze(-1) * columns.rsqrt().unsqueeze(-2);
  }

  Options o_;
  GradientStep step_;
  std::vector<Tensor> rows_, mean_;  ///< rows: the whole mean square of a vector
  std::vector<Weight> columns_;      ///< of the weights that have them
  std::vector<size_t> column_of_;
};

}  // namespace

void register_optimizer_adafactor(Registry& r) {
  r.add<Optimizer, Adafactor>("adafactor", "Adafactor: mean squares by rows and columns, steps in units of the weight");
}

}  // namespace brume::plugins
