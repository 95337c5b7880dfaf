#include "brume/numerics/inception_score.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace brume {
namespace {

/// Returns mean_i sum_c p log p - sum_c q log q, which is the mean divergence from q = mean_i p.
double mean_divergence(const at::Tensor& logits) {
  constexpr int64_t block = 1024;
  const int64_t rows = logits.size(0);
  at::Tensor q = at::zeros({logits.size(1)}, at::kDouble);
  double sum = 0;
  for (int64_t i = 0; i < rows; i += block) {
    const at::Tensor log_p = at::log_softmax(logits.narrow(0, i, std::min(block, rows - i)).to(at::kDouble), 1), p = log_p.exp();
    q = q + p.sum(0);
    sum += (p * log_p).sum().item<double>();
  }
  q = q / double(rows);
  return sum / double(rows) - q.xlogy(q).sum().item<double>();
}

}  // namespace

InceptionScore inception_score(const at::Tensor& logits, const std::vector<int64_t>& bounds) {
  std::vector<double> scores;
  for (size_t s = 0; s + 1 < bounds.size(); ++s) {
    if (bounds[s + 1] <= bounds[s]) throw std::invalid_argument(fmt::format("split {} of the Inception score is empty", s));
    scores.push_back(std::exp(mean_divergence(logits.narrow(0, bounds[s], bounds[s + 1] - bounds[s]))));
  }
  InceptionScore score;
  for (const double s : scores) score.mean += s / double(scores.size());
  double squares = 0;
  for (const double s : scores) squares += (s - score.mean) * (s - score.mean);
  score.std = std::sqrt(squares / double(scores.size()));
  return score;
}

std::vector<int64_t> equal_splits(int64_t rows, int64_t splits) {
  std::vector<int64_t> bounds;
  for (int64_t i = 0; i <= splits; ++i) bounds.push_back(i * rows / splits);
  return bounds;
}

std::vector<int64_t> splits_of_size(int64_t rows, int64_t size) {
  std::vector<int64_t> bounds;
  for (int64_t first = 0; first < rows; first += size) bounds.push_back(first);
  bounds.push_back(rows);
  return bounds;
}

}  // namespace brume
