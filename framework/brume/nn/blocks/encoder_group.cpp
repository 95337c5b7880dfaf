#include "brume/nn/blocks/encoder_group.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/where.h>

#include <string>

#include "brume/core/rows.h"
#include "brume/core/seed.h"

namespace brume::nn {

EncoderGroup::EncoderGroup(const std::vector<std::shared_ptr<const Conditioner>>& of, const EncoderOrigin& origin) {
  for (size_t i = 0; i < of.size(); ++i) all_.push_back(of[i]->encoder({mix_seed(origin.seed, i), origin.stored}));
}

std::vector<Weight> EncoderGroup::weights() const {
  std::vector<Weight> weights;
  for (size_t i = 0; i < all_.size(); ++i)
    for (Weight& w : prefixed(std::to_string(i) + ".", all_[i]->weights())) weights.push_back(std::move(w));
  return weights;
}

Files EncoderGroup::files() const {
  Files files;
  for (const auto& encoder : all_) files.merge(encoder->files());
  return files;
}

Tensor dropped_rows(int64_t count, double probability, at::Generator& random) {
  return draw_rows(count, [&](int64_t n) { return at::rand({n}, random, at::TensorOptions().dtype(at::kDouble)); }) < probability;
}

Condition replaced(const Condition& kept, const Condition& null, const Tensor& dropped) {
  Condition out;
  for (const auto part : {&Condition::classes, &Condition::context, &Condition::context_mask, &Condition::image, &Condition::vector,
                          &Condition::sizes, &Condition::guidance}) {
    const Tensor &a = kept.*part, &b = null.*part;
    if (!a.defined()) continue;
    std::vector<int64_t> shape(size_t(a.dim()), 1);
    shape[0] = a.size(0);
    out.*part = at::where(dropped.view(shape).to(a.device()), b, a);
  }
  return out;
}

}  // namespace brume::nn
