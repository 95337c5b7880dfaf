#include "brume/core/step_parts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

#include <stdexcept>
#include <utility>

namespace brume {
namespace {
thread_local StepParts* innermost = nullptr;
}  // namespace

StepParts::StepParts(int64_t local, Gather gather) : local_(local), gather_(std::move(gather)), outer_(innermost) { innermost = this; }
StepParts::~StepParts() { innermost = outer_; }

void StepParts::begin(bool survey) {
  survey_ = survey;
  rows_calls_ = mean_calls_ = 0;
}

Tensor StepParts::all_rows(const std::vector<Tensor>& parts) const {
  const Tensor mine = parts.size() == 1 ? parts.front() : at::cat(parts);
  return gather_ ? gather_(mine.cpu().contiguous()).to(mine.device()) : mine.contiguous();
}

Tensor StepParts::mean_of(const std::vector<Tensor>& values) const {
  const Tensor all = all_rows({at::stack(values)});
  Tensor sum = all[0];
  for (int64_t i = 1; i < all.size(0); ++i) sum = sum + all[i];
  return sum / double(all.size(0));
}

void StepParts::end_survey() {
  for (const std::vector<Tensor>& values : surveyed_) means_.push_back(mean_of(values));
}

void StepParts::finish() {
  const std::vector<Rows> all = std::exchange(rows_, {});
  for (const Rows& rows : all) rows.use(all_rows(rows.parts));
}

void when_whole(const Tensor& rows, const std::function<void(const Tensor&)>& use) {
  StepParts* step = innermost;
  if (!step) return use(rows);
  if (step->survey_) return;
  const size_t call = step->rows_calls_++;
  if (call == step->rows_.size()) step->rows_.emplace_back();
  step->rows_[call].parts.push_back(rows);
  step->rows_[call].use = use;
}

Tensor mean_over_parts(const Tensor& value) {
  StepParts* step = innermost;
  if (!step) return value;
  const size_t call = step->mean_calls_++;
  if (step->survey_) {
    if (call == step->surveyed_.size()) step->surveyed_.emplace_back();
    step->surveyed_[call].push_back(value);
    return value;
  }
  if (step->local_ == 1) return step->mean_of({value});
  if (call >= step->means_.size()) throw std::logic_error("mean_over_parts() in a step that was not surveyed");
  return step->means_[call];
}

}  // namespace brume
