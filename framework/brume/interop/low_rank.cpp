#include "brume/interop/low_rank.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>

namespace brume {

void LowRankOptions::declare(Fields& f) {
  f.field("rank", rank, "rank r of the change of each weight", within(1, 4096));
  f.field("alpha", alpha, "the change is multiplied with alpha / rank; 0 = rank, a factor of 1", at_least(0));
  f.field("targets", targets,
          "weights that are changed: attention, feed_forward and convolutions of the network, text_encoder, or patterns of names as in "
          "train.freeze");
}

at::Tensor uniform_rows(std::vector<int64_t> shape, at::Generator& random) {
  const at::Tensor t = at::empty(shape, at::kFloat);
  const double bound = 1 / std::sqrt(double(t.numel()) / double(shape[0]));
  return t.uniform_(-bound, bound, random);
}

at::Tensor normal_rows(std::vector<int64_t> shape, double std, at::Generator& random) {
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat)) * std;
}

WeightChange nearest_lora(const at::Tensor& delta, int64_t rank) {
  const at::Tensor matrix = delta.to(at::kFloat).flatten(1);
  const auto [u, s, v] = at::linalg_svd(matrix, false);
  const int64_t r = std::min(rank, s.size(0));
  const at::Tensor root = s.narrow(0, 0, r).sqrt();
  std::vector<int64_t> down = delta.sizes().vec(), up(size_t(delta.dim()), 1);
  down[0] = up[1] = r;
  up[0] = delta.size(0);
  WeightChange change;
  change.parts = {{"lora_up", (u.narrow(1, 0, r) * root).reshape(up)},
                  {"lora_down", (root.unsqueeze(1) * v.narrow(0, 0, r)).reshape(down)}};
  change.alpha = double(r), change.has_alpha = true;
  return change;
}

}  // namespace brume
