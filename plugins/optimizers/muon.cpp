// Muon (Jordan et al. 2024): matrices move along the orthogonal factor of their momentum, the rest of the weights by AdamW.
//
//   m <- b m + (1 - b) g,  u = (1 - b) g + b m,  X = u / |u|,  five times X <- a X + (b' A + c A A) X with A = X X^T
//   w <- (1 - lr decay) w - lr sqrt(max(1, rows / columns)) X,   (a, b', c) = (3.4445, -4.7750, 2.0315)
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "brume/config/name_patterns.h"
#include "brume/config/registry.h"
#include "brume/numerics/gradient.h"

namespace brume::plugins {
namespace {

/// Returns nearly the orthogonal factor of a matrix, by Newton and Schulz's iteration.
Tensor orthogonal(const Tensor& matrix, int64_t iterations) {
  const bool tall = matrix.size(0) > matrix.size(1);
  Tensor x = tall ? matrix.t() : matrix;
  x = x / (std::sqrt(sum_of_products(x, x)) + 1e-7);
  for (int64_t i = 0; i < iterations; ++i) {
    const Tensor a = x.matmul(x.t());
    x = x * 3.4445 + (a * -4.7750 + a.matmul(a) * 2.0315).matmul(x);
  }
  return tall ? x.t() : x;
}

struct AdamPart {
  double lr = 3e-4, beta1 = 0.9, beta2 = 0.95, eps = 1e-10, weight_decay = 0;
  void declare(Fields& f) {
    f.field("lr", lr, "learning rate of the weights that are no matrices", more_than(0));
    f.field("beta1", beta1, "decay of the mean of the gradient", within(0, 0.9999999));
    f.field("beta2", beta2, "decay of the mean of its square", within(0, 0.9999999));
    f.field("eps", eps, "keeps the division finite", more_than(0));
    f.field("weight_decay", weight_decay, "pull towards 0", at_least(0));
  }
};

class Muon final : public Optimizer {
 public:
  struct Options {
    LearningRate rate{.lr = 0.02};
    double momentum = 0.95, weight_decay = 0;
    int64_t iterations = 5;
    bool nesterov = true, convolutions = false;
    std::vector<std::string> by_adam;
    AdamPart adam;
    void declare(Fields& f) {
      rate.declare(f);
      f.field("momentum", momentum, "decay of the mean of the gradient", within(0, 0.9999999));
      f.field("nesterov", nesterov, "looks one step of the momentum ahead");
      f.field("iterations", iterations, "of Newton and Schulz", within(1, 100));
      f.field("convolutions", convolutions, "takes a convolution for a matrix: outputs by all of its inputs and places");
      f.field("by_adam", by_adam, "matrices that Adam updates all the same, by patterns of names: embeddings, the last layer");
      f.field("weight_decay", weight_decay, "pull of the matrices towards 0", at_least(0));
      f.section("adam", adam, "the optimizer of the other weights");
    }
  };
  Muon(const Options& o, const Context& c) : o_(o), adam_(by_adam(o, c)), step_(own(o, c), o.rate, o.weight_decay), first_(step_.zeros()) {
    for (const Weight& w : step_.weights())
      if (adam_.contains(w.name)) second_.emplace(w.name, w.tensor.detach() * 0);
  }

  double update(int64_t step) override {
    return step_.run(step, [&](const GradientStep::Update& u) {
      const auto square = second_.find(step_.weights()[u.index].name);
      square == second_.end() ? move_matrix(u) : move_by_adam(u, square->second, double(step + 1));
    });
  }
  double learning_rate(int64_t step) const override { return step_.learning_rate(step); }
  std::vector<Weight> state() const override {
    std::vector<Weight> all;
    step_.add_state(all, "m", first_);
    for (const auto& [name, tensor] : second_) all.push_back({"v." + name, tensor, false});
    return all;
  }

 private:
  /// Returns the names of the weights that Adam updates.
  static std::set<std::string> by_adam(const Options& o, const Context& c) {
    std::vector<std::string> names;
    for (const Weight& w : c.weights) names.push_back(w.name);
    std::set<std::string> all = matching(o.by_adam, names, "by_adam");
    for (const Weight& w : c.weights)
      if (w.tensor.dim() != 2 && !(o.convolutions && w.tensor.dim() == 4)) all.insert(w.name);
    return all;
  }
  /// Returns the context with Adam's learning rate and weight decay where it updates, unless a weight has its own.
  static Context own(const Options& o, Context c) {
    const std::set<std::string> adam = by_adam(o, c);
    c.own.resize(c.weights.size());
    for (size_t i = 0; i < c.weights.size(); ++i) {
      if (!adam.contains(c.weights[i].name)) continue;
      c.own[i].lr = c.own[i].lr.value_or(o.adam.lr);
      c.own[i].weight_decay = c.own[i].weight_decay.value_or(o.adam.weight_decay);
    }
    return c;
  }

  void move_matrix(const GradientStep::Update& u) {
    Tensor& mean = first_[u.index].lerp_(u.gradient, 1 - o_.momentum);
    const Tensor direction = (o_.nesterov ? u.gradient.lerp(mean, o_.momentum) : mean).flatten(1);
    const double scale = std::sqrt(std::max(1.0, double(u.gradient.size(-2)) / double(u.gradient.size(-1))));
    Tensor(u.weight).mul_(1 - u.lr * u.weight_decay).sub_(orthogonal(direction, o_.iterations).reshape(u.weight.sizes()), u.lr * scale);
  }

  void move_by_adam(const GradientStep::Update& u, Tensor& square, double t) {
    const AdamPart& a = o_.adam;
    first_[u.index].mul_(a.beta1).add_(u.gradient, 1 - a.beta1);
    square.mul_(a.beta2).addcmul_(u.gradient, u.gradient, 1 - a.beta2);
    const Tensor root = (square / (1 - std::pow(a.beta2, t))).sqrt_().add_(a.eps);
    Tensor(u.weight).mul_(1 - u.lr * u.weight_decay).addcdiv_(first_[u.index], root, -u.lr / (1 - std::pow(a.beta1, t)));
  }

  Options o_;
  std::set<std::string> adam_;
  GradientStep step_;
  std::vector<Tensor> first_;
  std::map<std::string, Tensor> second_;  ///< of the weights that Adam updates
};

}  // namespace

void register_optimizer_muon(Registry& r) {
  r.add<Optimizer, Muon>("muon", "Muon: matrices along their orthogonal factor, the rest by AdamW");
}

}  // namespace brume::plugins
