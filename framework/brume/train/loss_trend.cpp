#include "brume/train/loss_trend.h"

#include <algorithm>
#include <cmath>

namespace brume {
namespace {
constexpr double decay = 0.98;
}

double LossTrend::mean() const { return count_ == 0 ? 0 : sum_ / (1 - std::pow(decay, double(count_))); }

std::optional<LossTrend::Growth> LossTrend::add(double loss) {
  constexpr int64_t first = 5, settled = 20;  // losses until a mean is compared, and until it can be the least
  constexpr double factor = 5;
  ++count_;
  sum_ = decay * sum_ + (1 - decay) * loss;
  const double mean = this->mean();
  if (count_ <= first) least_ = count_ == 1 ? loss : std::max(least_, loss);
  const double least = least_;
  if (count_ >= settled) least_ = std::min(least_, mean);
  if (told_ || count_ <= first || least <= 0 || mean <= factor * least) return {};
  told_ = true;
  return Growth{mean, least};
}

void LossTrend::restore(const std::array<double, 4>& state) {
  count_ = int64_t(state[0]), sum_ = state[1], least_ = state[2], told_ = state[3] != 0;
}

}  // namespace brume
