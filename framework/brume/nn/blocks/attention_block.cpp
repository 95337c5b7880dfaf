#include "brume/nn/blocks/attention_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/unbind.h>

#include <vector>

#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {

AttentionBlock::AttentionBlock(const Builder& build, int64_t channels, int64_t heads, QkvOrder order, int64_t groups, bool zero_init,
                               double eps)
    : name_(build.name()), heads_(heads), order_(order) {
  norm_ = build.group_norm("norm", channels, groups);
  norm_.eps = eps;
  qkv_ = build.conv1x1("qkv", channels, 3 * channels);
  out_ = build.conv1x1("proj_out", channels, channels);
  if (zero_init) out_ = zeroed(out_);
}

Tensor AttentionBlock::operator()(Tensor x, const Taps* taps) const {
  const int64_t b = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3), d = c / heads_;
  const Tensor rows = qkv_(norm_(x)).permute({0, 2, 3, 1});  // channels last already: no copy
  const Tensor qkv = order_ == QkvOrder::heads_first ? rows.reshape({b, h * w, heads_, 3, d}).permute({3, 0, 2, 1, 4})
                                                     : rows.reshape({b, h * w, 3, heads_, d}).permute({2, 0, 3, 1, 4});
  const std::vector<Tensor> part = at::unbind(qkv);  // whose gradients become one without sums of mostly zeros
  const Tensor a = tapped_attention(taps, name_, part[0], part[1], part[2]);
  return out_.onto(std::move(x), a.permute({0, 2, 1, 3}).reshape({b, h, w, c}).permute({0, 3, 1, 2}));
}

}  // namespace brume::nn
