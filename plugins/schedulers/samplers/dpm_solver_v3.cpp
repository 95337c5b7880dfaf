// DPM-Solver-v3 (Zheng et al. 2023, "DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics", alg. 1): multistep in
// lambda = -log sigma, on a quantity g of the noise that the statistics l, s and b of a model make as even as they can
// (numerics/model_statistics.h). The corrector repeats a step with the estimate at its end. With a file of statistics, levels move to its
// grid. Without, l = 1 and s = b = 0, so that g is the estimate of x0 but for its sign.
#include <ATen/TensorOperators.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/sampler.h"
#include "brume/numerics/beta_table.h"
#include "brume/numerics/model_statistics.h"
#include "brume/weights/weights_file.h"

namespace brume::plugins {
namespace {

class DpmSolverV3 final : public Sampler {
 public:
  struct Options {
    int64_t order = 3, pieces = 20;
    std::filesystem::path statistics;
    bool pseudo = false, corrector = true, pseudo_corrector = false, lower_order_final = true;
    void declare(Fields& f) {
      f.field("order", order, "estimates used by the predictor", within(1, 3));
      f.field("statistics", statistics, "file of l, s and b, [points, ...] over the run's range, even in log sigma; empty = none");
      f.field("pieces", pieces, "trapezoids per step without statistics", at_least(1));
      f.field("pseudo", pseudo, "the predictor takes divided differences for derivatives (few steps)");
      f.field("corrector", corrector, "correct each point by the estimate there, without another call");
      f.field("pseudo_corrector", pseudo_corrector, "the corrector takes divided differences, and one estimate more");
      f.field("lower_order_final", lower_order_final, "end with orders 2 and 1");
      f.unused(!statistics.empty(), "pieces", "there are statistics");
      f.unused(!corrector, "pseudo_corrector", "there is no corrector");
    }
  };
  explicit DpmSolverV3(const Options& o) : o_(o) {
    if (o.statistics.empty()) return;
    const NamedTensors all = load_tensors(o.statistics.string());
    const auto read = [&](const char* name) {
      const Tensor* t = find(all, name);
      if (!t || t->dim() == 0 || t->size(0) < 2 || (of_model_.l.defined() && t->sizes() != of_model_.l.sizes()))
        throw ConfigError(fmt::format("statistics: {} must hold l, s and b of one shape, [points, ...]", o.statistics.string()));
      return t->to(at::kDouble).clone();
    };
    of_model_.l = read("l"), of_model_.s = read("s"), of_model_.b = read("b");
  }
  SamplerTraits traits() const override { return {.order = int(std::min<int64_t>(o_.order, 2))}; }

  Tensor sample(const Denoiser& denoiser, Tensor x, const std::vector<double>& sigmas, Run& run) const override {
    const bool to_zero = sigmas.back() == 0;
    const int64_t count = int64_t(sigmas.size()) - 1;
    const auto estimate = [&](int64_t i, double sigma) {
      const Tensor x0 = denoiser.denoise(x, sigma, run.condition).x0;
      run.report({i, count, sigma, x, x0});
      return x0;
    };
    std::vector<double> levels(sigmas.begin(), sigmas.begin() + count + (to_zero ? 0 : 1));
    levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
    if (levels.size() > 1) {
      std::vector<int64_t> path;  // on the grid
      const StatisticsGrid grid = grid_of(levels, path, x);
      const int64_t steps = int64_t(path.size()) - 1;
      std::vector<StatisticsGrid::Point> points;  // the newest first
      Tensor before;
      for (int64_t i = 0, order = 0; i < steps; ++i) {
        const int64_t here = path[size_t(i)];
        points.insert(points.begin(), grid.point(here, x, estimate(i, levels[size_t(i)])));
        if (const int64_t corrected = order + o_.pseudo_corrector; o_.corrector && corrected > 1) {
          std::vector<StatisticsGrid::Point> around(points.begin(), points.begin() + corrected);
          std::swap(around[0], around[1]);
          x = grid.moved(around, before, here, o_.pseudo_corrector);
        }
        order = std::min({i + 1, o_.order, o_.lower_order_final ? steps - i : o_.order});
        before = x;
        x = grid.moved({points.begin(), points.begin() + order}, x, path[size_t(i) + 1], o_.pseudo);
      }
    }
    return to_zero ? estimate(count - 1, levels.back()) : x;
  }

 private:
  /// Returns the grid; sets the path of the levels on it, and the levels to those of the grid.
  StatisticsGrid grid_of(std::vector<double>& levels, std::vector<int64_t>& path, const Tensor& x) const {
    std::vector<double> lambda;
    if (!of_model_.l.defined()) {
      for (size_t i = 0; i < levels.size(); ++i) path.push_back(int64_t(i) * o_.pieces);
      for (int64_t k = 0; k <= path.back(); ++k) {
        const double a = std::log(levels[size_t(k / o_.pieces)]), b = std::log(levels[size_t((k + o_.pieces - 1) / o_.pieces)]);
        lambda.push_back(-a + (a - b) * double(k % o_.pieces) / double(o_.pieces));
      }
      const Tensor one = at::ones({int64_t(lambda.size())}, at::TensorOptions().dtype(at::kDouble));
      return {lambda, {one, one * 0, one * 0}};
    }
    const ModelStatistics& m = of_model_;
    if (m.l.dim() > 1 && m.l[0].numel() > 1 && m.l.sizes().slice(1) != x.sizes().slice(1))
      throw ConfigError(fmt::format("statistics: {} is of other images than these", o_.statistics.string()));
    lambda = linspace(-std::log(levels.front()), -std::log(levels.back()), m.l.size(0));
    for (const double level : levels)
      path.push_back(std::lround((-std::log(level) - lambda.front()) / (lambda.back() - lambda.front()) * double(lambda.size() - 1)));
    path.erase(std::unique(path.begin(), path.end()), path.end());
    levels.clear();
    for (const int64_t i : path) levels.push_back(std::exp(-lambda[size_t(i)]));
    const auto ordered = [&](const Tensor& t) { return lambda.front() < lambda.back() ? t : t.flip(at::IntArrayRef({0})); };
    return {lambda, {ordered(m.l), ordered(m.s), ordered(m.b)}};
  }
  Options o_;
  ModelStatistics of_model_;
};

}  // namespace

void register_sampler_dpm_solver_v3(Registry& r) {
  r.add<Sampler, DpmSolverV3>("dpm_solver_v3", "DPM-Solver-v3: multistep, by the statistics of a model or without");
}

}  // namespace brume::plugins
