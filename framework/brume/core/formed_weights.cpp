#include "brume/core/formed_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <atomic>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>

namespace brume {
namespace {

struct Forms {
  std::atomic<size_t> count = 0;  ///< most layers look no further
  std::shared_mutex lock;
  std::map<const at::TensorImpl*, std::shared_ptr<const FormedWeights::Form>> by_weight;
};

Forms& forms() {
  static Forms all;
  return all;
}

/// Returns null if the weight was not added.
std::shared_ptr<const FormedWeights::Form> form_of(const Tensor& weight) {
  Forms& all = forms();
  if (all.count == 0) return nullptr;
  const std::shared_lock held(all.lock);
  const auto own = all.by_weight.find(weight.unsafeGetTensorImpl());
  return own == all.by_weight.end() ? nullptr : own->second;
}

}  // namespace

FormedWeights::~FormedWeights() {
  Forms& all = forms();
  const std::unique_lock held(all.lock);
  for (const Tensor& w : weights_) all.by_weight.erase(w.unsafeGetTensorImpl());
  all.count = all.by_weight.size();
}

void FormedWeights::add(Tensor weight, Form form) {
  {
    const at::NoGradGuard no_grad;
    weight.set_data(at::full({1}, std::numeric_limits<float>::quiet_NaN(), weight.options()).expand(weight.sizes()));
  }
  Forms& all = forms();
  const std::unique_lock held(all.lock);
  all.by_weight[weight.unsafeGetTensorImpl()] = std::make_shared<const Form>(std::move(form));
  all.count = all.by_weight.size();
  weights_.push_back(std::move(weight));
}

bool FormedWeights::has(const Tensor& weight) { return form_of(weight) != nullptr; }

Tensor FormedWeights::of(const Tensor& weight) {
  const auto form = form_of(weight);
  return form ? (*form)() : weight;
}

}  // namespace brume
