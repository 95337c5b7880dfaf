#include "nn/captions.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <map>

namespace brume::nn {
namespace {

/// Each text once, and where it stands.
struct Distinct {
  std::vector<std::string> texts;
  std::map<std::string, int64_t> row;
  int64_t operator()(const std::string& text) {
    const auto [found, added] = row.emplace(text, int64_t(texts.size()));
    if (added) texts.push_back(text);
    return found->second;
  }
};

EncodedCaptions one_by_one(const std::vector<std::string>& texts, const EncodeCaptions& encode) {
  std::vector<Tensor> contexts, masks;
  for (const std::string& text : texts) {
    const EncodedCaptions one = encode({text});
    contexts.push_back(one.context);
    if (one.mask.defined()) masks.push_back(one.mask);
  }
  return {at::cat(contexts), masks.empty() ? Tensor() : at::cat(masks)};
}

}  // namespace

Condition encode_captions(const ConditionRequest& request, double dropout, const EncodeCaptions& encode) {
  const std::vector<Annotation>& wanted = request.annotations;
  if (wanted.empty()) return {};
  Distinct distinct;
  std::vector<int64_t> rows, null_rows;
  const auto [kept, dropped] = [&]() -> std::pair<Tensor, bool> {
    if (!request.dropout || dropout == 0) return {{}, false};
    return {at::rand({int64_t(wanted.size())}, *request.dropout, at::TensorOptions().dtype(at::kDouble)), true};
  }();
  for (size_t i = 0; i < wanted.size(); ++i)
    rows.push_back(distinct(dropped && kept.data_ptr<double>()[i] < dropout ? std::string() : wanted[i].caption));
  const bool with_null = dropout > 0 && !request.dropout;
  if (with_null)
    for (const Annotation& a : wanted) null_rows.push_back(distinct(a.negative));

  const EncodedCaptions all = at::GradMode::is_enabled() ? encode(distinct.texts) : one_by_one(distinct.texts, encode);
  const auto pick = [&](const std::vector<int64_t>& of) {
    const Tensor index = at::tensor(of).to(all.context.device());
    return Condition{.classes = {},
                     .context = all.context.index_select(0, index),
                     .context_mask = all.mask.defined() ? all.mask.index_select(0, index) : Tensor()};
  };
  Condition condition = pick(rows);
  if (with_null) condition.null = std::make_shared<Condition>(pick(null_rows));
  return condition;
}

void CutPrompts::warn(const std::string& prompt, const std::string& cut, int64_t length) const {
  constexpr size_t most = 10;
  const std::lock_guard guard(lock_);
  if (known_.size() > most || !known_.insert(prompt).second) return;
  if (known_.size() > most)
    fmt::print(stderr, "warning: more prompts are longer than {} tokens; no more is said of them\n", length);
  else
    fmt::print(stderr, "warning: a prompt is longer than {} tokens, and its end is left out: {} (of {})\n", length, cut, prompt);
}

}  // namespace brume::nn
