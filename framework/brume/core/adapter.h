#pragma once
// Changes that are trained in addition to frozen weights (train.adapters).
//
// How to write one:
//   1. Derive a final class from Adapter with a nested `Options` (its fields, `declare(Fields&)`), made from those options.
//   2. Implement `parameters()`: the trained tensors of one weight by the roles of interop/weight_change.h, with values that leave the
//      weight as it is.
//   3. Put it into plugins/adapters/NAME.cpp, which ends with `register_adapter_NAME`.
//   4. Read plugins/adapters/lora.cpp as an example.
//   5. Run test_contracts --gtest_filter='*Adapter*NAME*' (tests/contracts/adapter_test.cpp).
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/network.h"

namespace brume {

/// A word of prompts that is added to a model with vectors of its own (Gal et al. 2022).
struct NewWord {
  std::string text;
  int64_t vectors = 1;
  std::string init;  ///< words of the model whose tokens' vectors it starts with, in turn
};

/// A value, made while the configuration is read.
class Adapter {
 public:
  static constexpr std::string_view kind = "adapter";
  virtual ~Adapter() = default;
  /// Returns which weights it changes: "attention", "feed_forward", "convolutions", "text_encoder", or patterns of names as in
  /// `train.freeze`.
  virtual std::vector<std::string> targets() const = 0;
  /// Returns the word whose vectors are trained; nothing for adapters of weights.
  virtual std::optional<NewWord> word() const { return {}; }
  /// Returns alpha, which the change is multiplied with, over the rank; 0 = the rank.
  virtual double alpha() const = 0;
  /// Returns what is trained of one weight [out, in] or [out, in, k, k], float32, named by role ("lora_down"). The first values change the
  /// weight by nothing.
  virtual std::vector<Weight> parameters(const Tensor& weight, at::Generator& random) const = 0;
};

}  // namespace brume
