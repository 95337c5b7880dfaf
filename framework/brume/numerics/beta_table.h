#pragma once
// The noise levels of a discrete variance-preserving process (Ho et al. 2020): beta_t -> alpha_bar_t -> sigma_t.
#include <cstdint>
#include <functional>
#include <vector>

namespace brume {

/// alpha_bar_t = prod_{s <= t} (1 - beta_s), sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t), t = 0 ... size - 1.
/// Between the integers log sigma is linear. sigma is capped at 1e6: it is infinite at zero terminal SNR.
class BetaTable {
 public:
  explicit BetaTable(const std::vector<double>& betas);
  static BetaTable from_alpha_bars(std::vector<double> alpha_bars);

  int64_t size() const { return int64_t(sigmas_.size()); }
  const std::vector<double>& alpha_bars() const { return alpha_bars_; }
  double sigma(double t) const;
  double time(double sigma) const;

 private:
  BetaTable() = default;
  void fill_sigmas();
  std::vector<double> alpha_bars_, sigmas_;
};

/// Returns beta_t = min(1 - alpha_bar((t+1)/T) / alpha_bar(t/T), max_beta), the betas of a process given by alpha_bar(u), u in [0, 1].
std::vector<double> betas_of(const std::function<double(double)>& alpha_bar, int64_t timesteps, double max_beta);

/// Returns `count` values from `first` to `last`, both included.
std::vector<double> linspace(double first, double last, int64_t count);

}  // namespace brume
