#include "brume/numerics/beta_table.h"

#include <algorithm>
#include <cmath>

namespace brume {

BetaTable::BetaTable(const std::vector<double>& betas) {
  double product = 1;
  for (const double beta : betas) alpha_bars_.push_back(product *= 1 - beta);
  fill_sigmas();
}

BetaTable BetaTable::from_alpha_bars(std::vector<double> alpha_bars) {
  BetaTable table;
  table.alpha_bars_ = std::move(alpha_bars);
  table.fill_sigmas();
  return table;
}

void BetaTable::fill_sigmas() {
  constexpr double largest = 1e6;
  for (const double a : alpha_bars_) sigmas_.push_back(a > 0 ? std::min(std::sqrt((1 - a) / a), largest) : largest);
}

double BetaTable::sigma(double t) const {
  t = std::clamp(t, 0.0, double(size() - 1));
  const size_t i = size_t(t);
  const double fraction = t - double(i);
  if (fraction == 0) return sigmas_[i];
  return std::exp(std::log(sigmas_[i]) * (1 - fraction) + std::log(sigmas_[i + 1]) * fraction);
}

double BetaTable::time(double sigma) const {
  // The last level belongs to the last time even if levels before it are as high: a zero terminal SNR whose last sigma is a cap.
  constexpr double rounding = 1e-9;
  if (sigma >= sigmas_.back() * (1 - rounding)) return double(size() - 1);
  const auto above = std::lower_bound(sigmas_.begin(), sigmas_.end(), sigma);
  const size_t i = size_t(above - sigmas_.begin());
  if (*above == sigma || i == 0) return double(i);
  const double lo = std::log(sigmas_[i - 1]), hi = std::log(sigmas_[i]);
  return double(i - 1) + (std::log(sigma) - lo) / (hi - lo);
}

std::vector<double> betas_of(const std::function<double(double)>& alpha_bar, int64_t timesteps, double max_beta) {
  std::vector<double> betas;
  const double steps = double(timesteps);
  for (int64_t t = 0; t < timesteps; ++t)
    betas.push_back(std::min(1 - alpha_bar(double(t + 1) / steps) / alpha_bar(double(t) / steps), max_beta));
  return betas;
}

std::vector<double> linspace(double first, double last, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count));
  const double step = count > 1 ? (last - first) / double(count - 1) : 0;
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + double(i) * step;
  if (count > 1) values.back() = last;
  return values;
}

}  // namespace brume
