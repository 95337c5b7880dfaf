#pragma once
// The parts that the batch of a training step is computed in: one after the other in this process, and at the same time in others. What
// depends on the whole batch (an adaptive weight, the memory of a time sampler, the codes of a codebook) goes through here, so that parts
// train as the whole batch does.
#include <cstdint>
#include <functional>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// One step that this thread computes in parts, while it lives. All parts make the same calls of the functions below, in the same order.
class StepParts {
 public:
  /// Returns tensors [n, ...] of all processes one after the other, by rank.
  using Gather = std::function<Tensor(const Tensor& rows)>;
  /// Begins a step. `local`: parts that this process computes; `gather`: empty if it is the only process.
  StepParts(int64_t local, Gather gather);
  ~StepParts();
  StepParts(const StepParts&) = delete;
  StepParts& operator=(const StepParts&) = delete;

  /// Begins a part. `survey`: of a first pass over the parts, which collects what mean_over_parts() returns in the second one.
  void begin(bool survey);
  /// Ends the first pass.
  void end_survey();
  /// Ends the step: calls what when_whole() was given, with the rows of all parts.
  void finish();

 private:
  friend void when_whole(const Tensor& rows, const std::function<void(const Tensor&)>& use);
  friend Tensor mean_over_parts(const Tensor& value);
  struct Rows {
    std::vector<Tensor> parts;
    std::function<void(const Tensor&)> use;
  };
  Tensor all_rows(const std::vector<Tensor>& parts) const;
  Tensor mean_of(const std::vector<Tensor>& values) const;

  int64_t local_;
  Gather gather_;
  bool survey_ = false;
  size_t rows_calls_ = 0, mean_calls_ = 0;  ///< of the part
  std::vector<Rows> rows_;
  std::vector<std::vector<Tensor>> surveyed_;
  std::vector<Tensor> means_;
  StepParts* outer_;
};

/// Calls `use` with rows [n, ...] of all parts of the batch, in their order, at the end of the step; with `rows`, at once, if the batch is
/// computed whole.
void when_whole(const Tensor& rows, const std::function<void(const Tensor& all)>& use);

/// Returns the mean of a value of this part over all parts of the batch; the value if the batch is computed whole. A learner whose loss
/// calls it says so by Learner::needs_whole().
Tensor mean_over_parts(const Tensor& value);

}  // namespace brume
