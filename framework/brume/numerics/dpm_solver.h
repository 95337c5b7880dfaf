#pragma once
// The single steps of DPM-Solver (Lu et al. 2022a, alg. 1 and 2), noise prediction, as DPM-Solver-fast and the adaptive one
// take them: with the points within a step wherever they like.
#include <functional>
#include <map>

#include "brume/core/tensor.h"

namespace brume {

/// One step from sigma `from` to `to`: remembers what was asked of the network, so that an embedded pair asks once.
class DpmStep {
 public:
  using Eps = std::function<Tensor(const Tensor& x, double sigma)>;  ///< (x - D(x)) / sigma
  /// Begins a step from x. `eps_here` is eps(x, from).
  DpmStep(Eps eps, Tensor x, Tensor eps_here, double from, double to);

  Tensor first() const;
  Tensor second(double r1);            ///< asks at from^(1-r1) to^r1
  Tensor third(double r1, double r2);  ///< and at r2

 private:
  double at(double r) const;
  Tensor inner(double r1);
  Eps eps_;
  Tensor x_, e_;
  double from_, to_, h_;
  std::map<double, Tensor> asked_;
};

/// Returns the orders of the steps that spend `calls` network calls: 3 wherever possible (Lu et al. 2022a, app. D.3, DPM-Solver-fast).
std::vector<int64_t> dpm_fast_orders(int64_t calls);

}  // namespace brume
