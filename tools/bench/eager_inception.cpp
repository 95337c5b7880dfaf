#include "bench/eager_inception.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>

namespace brume::tools {
namespace {

Tensor average_pool(const Tensor& x) { return at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, false, false); }
Tensor halving_pool(const Tensor& x) { return at::max_pool2d(x, {3, 3}, {2, 2}); }

}  // namespace

EagerInception::EagerInception(const std::vector<Weight>& weights) {
  for (const Weight& w : weights) weights_[w.name] = w.tensor.contiguous();
}

Tensor EagerInception::conv(const std::string& name, const Tensor& x, int64_t stride, int64_t high, int64_t wide) const {
  const auto of = [&](const char* part) { return weights_.at(name + part); };
  const Tensor y = at::conv2d(x, of(".conv.weight"), {}, {stride, stride}, {high, wide});
  return at::batch_norm(y, of(".bn.weight"), of(".bn.bias"), of(".bn.running_mean"), of(".bn.running_var"), false, 0.1, 0.001, false)
      .relu_();
}

Tensor EagerInception::chain(const std::string& prefix, Tensor x, const std::vector<std::string>& layers) const {
  for (const std::string& layer : layers) {
    const Tensor& weight = weights_.at(prefix + layer + ".conv.weight");
    x = conv(prefix + layer, x, 1, weight.size(2) / 2, weight.size(3) / 2);
  }
  return x;
}

Tensor EagerInception::block_a(const std::string& n, const Tensor& x) const {
  const std::string p = n + ".branch";
  return at::cat({chain(p, x, {"1x1"}), chain(p, x, {"5x5_1", "5x5_2"}), chain(p, x, {"3x3dbl_1", "3x3dbl_2", "3x3dbl_3"}),
                  chain(p, average_pool(x), {"_pool"})},
                 1);
}

Tensor EagerInception::block_c(const std::string& n, const Tensor& x) const {
  const std::string p = n + ".branch";
  return at::cat({chain(p, x, {"1x1"}), chain(p, x, {"7x7_1", "7x7_2", "7x7_3"}),
                  chain(p, x, {"7x7dbl_1", "7x7dbl_2", "7x7dbl_3", "7x7dbl_4", "7x7dbl_5"}), chain(p, average_pool(x), {"_pool"})},
                 1);
}

Tensor EagerInception::block_e(const std::string& n, const Tensor& x, bool max_pool) const {
  const std::string p = n + ".branch";
  const Tensor three = chain(p, x, {"3x3_1"}), twice = chain(p, x, {"3x3dbl_1", "3x3dbl_2"});
  const Tensor pooled = max_pool ? at::max_pool2d(x, {3, 3}, {1, 1}, {1, 1}) : average_pool(x);
  const Tensor branch3 = at::cat({chain(p, three, {"3x3_2a"}), chain(p, three, {"3x3_2b"})}, 1),
               branch3_twice = at::cat({chain(p, twice, {"3x3dbl_3a"}), chain(p, twice, {"3x3dbl_3b"})}, 1);
  return at::cat({chain(p, x, {"1x1"}), branch3, branch3_twice, chain(p, pooled, {"_pool"})}, 1);
}

Tensor EagerInception::operator()(const Tensor& images) const {
  Tensor x = conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", images, 2));
  x = halving_pool(conv("Conv2d_2b_3x3", x, 1, 1, 1));
  x = halving_pool(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x)));
  for (const char* name : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) x = block_a(name, x);
  x = at::cat({conv("Mixed_6a.branch3x3", x, 2), conv("Mixed_6a.branch3x3dbl_3", chain("Mixed_6a.branch", x, {"3x3dbl_1", "3x3dbl_2"}), 2),
               halving_pool(x)},
              1);
  for (const char* name : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) x = block_c(name, x);
  const std::string p = "Mixed_7a.branch";
  x = at::cat({conv(p + "3x3_2", chain(p, x, {"3x3_1"}), 2), conv(p + "7x7x3_4", chain(p, x, {"7x7x3_1", "7x7x3_2", "7x7x3_3"}), 2),
               halving_pool(x)},
              1);
  x = block_e("Mixed_7c", block_e("Mixed_7b", x, false), true);
  return x.mean({2, 3});
}

}  // namespace brume::tools
