#include "brume/nn/blocks/caption_conditioner.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "brume/config/counted.h"
#include "brume/core/rows.h"
#include "brume/core/warnings.h"

namespace brume::nn {
namespace {

thread_local CaptionStore* store = nullptr;
thread_local int64_t calls = 0;  ///< of encoders, while there is a store

/// Each text once, and its rows.
struct Distinct {
  std::vector<std::string> texts;
  std::map<std::string, int64_t> row;
  int64_t operator()(const std::string& text) {
    const auto [found, added] = row.emplace(text, int64_t(texts.size()));
    if (added) texts.push_back(text);
    return found->second;
  }
};

/// Encodes each text alone.
std::vector<EncodedCaptions> one_by_one(const std::vector<std::string>& texts, const EncodeCaptions& encode) {
  std::vector<EncodedCaptions> all;
  const int64_t encoder = calls++;
  for (const std::string& text : texts) all.push_back(store ? store->get(encoder, text, [&] { return encode({text}); }) : encode({text}));
  return all;
}

EncodedCaptions joined(const std::vector<EncodedCaptions>& all) {
  std::vector<Tensor> contexts, masks, vectors;
  for (const EncodedCaptions& one : all) {
    contexts.push_back(one.context);
    if (one.mask.defined()) masks.push_back(one.mask);
    if (one.vector.defined()) vectors.push_back(one.vector);
  }
  const auto whole = [](const std::vector<Tensor>& parts) { return parts.empty() ? Tensor() : at::cat(parts); };
  return {at::cat(contexts), whole(masks), {}, whole(vectors)};
}

bool of_one_length(const std::vector<EncodedCaptions>& all) {
  return std::all_of(all.begin(), all.end(), [&](const EncodedCaptions& one) { return one.context.size(1) == all[0].context.size(1); });
}

Condition pick(const EncodedCaptions& all, const std::vector<int64_t>& rows) {
  const Tensor index = at::tensor(rows).to(all.context.device());
  return Condition{.classes = {},
                   .context = all.context.index_select(0, index),
                   .context_mask = all.mask.defined() ? all.mask.index_select(0, index) : Tensor(),
                   .vector = all.vector.defined() ? all.vector.index_select(0, index) : Tensor()};
}

/// Each context of these rows as long as `seen`, by the filler, and all as long as `length`, by zeros that nobody sees.
Condition filled(const std::vector<EncodedCaptions>& all, const std::vector<int64_t>& rows, const std::vector<int64_t>& seen,
                 int64_t length) {
  std::vector<Tensor> contexts, masks, vectors;
  for (size_t i = 0; i < rows.size(); ++i) {
    const EncodedCaptions& one = all[size_t(rows[i])];
    if (one.vector.defined()) vectors.push_back(one.vector);
    std::vector<Tensor> parts{one.context};
    for (int64_t have = one.context.size(1); have < seen[i]; have += one.filler.size(1)) parts.push_back(one.filler);
    parts.push_back(at::zeros({1, length - seen[i], one.context.size(2)}, one.context.options()));
    contexts.push_back(at::cat(parts, 1));
    Tensor mask = at::zeros({1, length}, one.context.options().dtype(at::kFloat));
    mask.narrow(1, 0, seen[i]).fill_(1);
    masks.push_back(mask);
  }
  const bool same = std::all_of(seen.begin(), seen.end(), [&](int64_t s) { return s == length; });
  return Condition{.classes = {},
                   .context = at::cat(contexts),
                   .context_mask = same ? Tensor() : at::cat(masks),
                   .vector = vectors.empty() ? Tensor() : at::cat(vectors)};
}

/// Contexts of different lengths: a caption's and its negative's first, then the batch's. `nulls` may be empty.
Condition of_lengths(const std::vector<EncodedCaptions>& all, const std::vector<int64_t>& rows, const std::vector<int64_t>& nulls) {
  std::vector<int64_t> seen;
  const auto length = [&](int64_t row) { return all[size_t(row)].context.size(1); };
  for (size_t i = 0; i < rows.size(); ++i) seen.push_back(std::max(length(rows[i]), nulls.empty() ? 0 : length(nulls[i])));
  const int64_t longest = *std::max_element(seen.begin(), seen.end());
  Condition condition = filled(all, rows, seen, longest);
  if (!nulls.empty()) condition.null = std::make_shared<Condition>(filled(all, nulls, seen, longest));
  return condition;
}

}  // namespace

CaptionStoreScope::CaptionStoreScope(CaptionStore* s) : outer_(std::exchange(store, s)), outer_calls_(std::exchange(calls, 0)) {}
CaptionStoreScope::~CaptionStoreScope() { store = outer_, calls = outer_calls_; }

Condition encode_captions(const ConditionRequest& request, double dropout, const EncodeCaptions& encode) {
  const std::vector<Annotation>& wanted = request.annotations;
  if (wanted.empty()) return {};
  Distinct distinct;
  std::vector<int64_t> rows, null_rows;
  Tensor draws;
  if (request.dropout() && dropout > 0)
    draws = draw_rows(int64_t(wanted.size()),
                      [&](int64_t n) { return at::rand({n}, *request.dropout(), at::TensorOptions().dtype(at::kDouble)); });
  const auto dropped = [&](size_t i) { return draws.defined() && draws.data_ptr<double>()[i] < dropout; };
  for (size_t i = 0; i < wanted.size(); ++i) rows.push_back(distinct(dropped(i) ? std::string() : wanted[i].caption));
  const bool with_null = dropout > 0 && !request.dropout();
  if (with_null)
    for (const Annotation& a : wanted) null_rows.push_back(distinct(a.negative));

  std::vector<EncodedCaptions> each;
  if (!at::GradMode::is_enabled()) each = one_by_one(distinct.texts, encode);
  if (!of_one_length(each)) return of_lengths(each, rows, null_rows);
  const EncodedCaptions all = at::GradMode::is_enabled() ? encode(distinct.texts) : joined(each);
  Condition condition = pick(all, rows);
  if (with_null) condition.null = std::make_shared<Condition>(pick(all, null_rows));
  return condition;
}

void CutPrompts::warn(const std::string& prompt, const std::string& cut, int64_t length) const {
  constexpr size_t most = 10;
  const std::lock_guard guard(lock_);
  if (known_.size() > most || !known_.insert(prompt).second) return;
  if (known_.size() > most)
    brume::warn(fmt::format("more prompts are longer than {}; no more is said of them", counted(length, "token")));
  else
    brume::warn(fmt::format("a prompt is longer than {}, and its end is left out: {} (of {})", counted(length, "token"), cut, prompt));
}

}  // namespace brume::nn
