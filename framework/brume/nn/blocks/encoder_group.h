#pragma once
// What conditioners that are made of others share.
#include <memory>
#include <vector>

#include "brume/core/conditioner.h"

namespace brume::nn {

/// The encoders of several conditioners; the weights of encoder i are named "i.NAME".
class EncoderGroup {
 public:
  EncoderGroup(const std::vector<std::shared_ptr<const Conditioner>>& of, const EncoderOrigin& origin);
  std::vector<Weight> weights() const;
  Files files() const;

  size_t size() const { return all_.size(); }
  const ConditionEncoder& operator[](size_t i) const { return *all_[i]; }

 private:
  std::vector<std::shared_ptr<const ConditionEncoder>> all_;
};

/// Draws which of `count` conditions are dropped while training, each with `probability`. Returns [count] bool.
Tensor dropped_rows(int64_t count, double probability, at::Generator& random);

/// Returns the rows of `null` that are dropped and the other rows of `kept`, of every part that a network reads. dropped: [B] bool.
Condition replaced(const Condition& kept, const Condition& null, const Tensor& dropped);

}  // namespace brume::nn
