#pragma once
// Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", sec. 4): what a block keeps for the backward
// pass is dropped after its forward pass, and computed again from its input when the first of it is needed.
//
// The graph is the one that is recorded without checkpointing; only the values that it keeps are fetched later. So gradients have the same
// bits, whatever order they are summed in, and gradients of gradients work as they do without.
#include <functional>
#include <memory>

#include "brume/core/tensor.h"

namespace at {
struct Generator;
}

namespace brume {
class Fields;
}

namespace brume::nn {

/// While one lives, this thread keeps no values for the backward pass: `again` computes them.
class Recomputation {
 public:
  /// Returns true if gradients are recorded, and this thread is in no block that is computed again as a whole.
  static bool possible();
  /// Keeps how to compute a result again. again: called with a generator in the state that `random` has now; null if `random` is null.
  Recomputation(const at::Generator* random, std::function<void(at::Generator*)> again);
  ~Recomputation();
  Recomputation(const Recomputation&) = delete;
  Recomputation& operator=(const Recomputation&) = delete;

  struct Frame;
  struct Saving;

 private:
  std::unique_ptr<Saving> saving_;
};

/// Declares `checkpoint`, which every network of blocks has.
void declare_checkpoint(Fields& f, bool& checkpoint);

/// Returns block(random). If `checkpoint`, the backward pass runs the block again, with the random numbers and the rows of the batch of
/// this call. `block` holds its inputs by value; what it points to must outlive the backward pass.
template <class Block>
auto recomputed(bool checkpoint, at::Generator* random, const Block& block) {
  if (!checkpoint || !Recomputation::possible()) return block(random);
  const Recomputation recomputation(random, [block](at::Generator* r) { block(r); });
  return block(random);
}

}  // namespace brume::nn
