#pragma once
// Layers: weights and the operation they belong to. A network is a struct of these.
#include <memory>
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/nn/ops/packed_weight.h"

namespace brume::nn {

struct Conv2d {
  Tensor weight, bias;  ///< [O, I, k, k], [O]
  int64_t stride = 1;
  int64_t padding = 0;
  std::shared_ptr<PackedWeight> packed{};
  Tensor operator()(const Tensor& x) const;
  /// Returns sum + this(x); give up a sum that is not needed any more (std::move), and its memory can be the result's.
  Tensor onto(Tensor sum, const Tensor& x) const;
};

struct Linear {
  Tensor weight, bias;  ///< [O, I], [O]
  std::shared_ptr<PackedWeight> packed{};
  Tensor operator()(const Tensor& x) const;
  /// Returns sum + this(x); give up a sum that is not needed any more (std::move), and its memory can be the result's.
  Tensor onto(Tensor sum, const Tensor& x) const;
};

/// Group norm with an optional SiLU and an optional scale and shift of its result (AdaGN), fused.
struct GroupNorm {
  Tensor weight, bias;  ///< [C]
  int64_t groups = 32;
  double eps = 1e-5;
  Tensor operator()(const Tensor& x) const;
  Tensor silu(const Tensor& x) const;
  Tensor silu(const Tensor& x, const Tensor& scale, const Tensor& shift) const;
  /// Returns silu(norm(x + added)); added: [B, C].
  Tensor silu_of_sum(const Tensor& x, const Tensor& added) const;
};

struct LayerNorm {
  Tensor weight, bias;  ///< [C]
  double eps = 1e-5;
  Tensor operator()(const Tensor& x) const;
};

struct Embedding {
  Tensor weight;  ///< [rows, width]
  Tensor operator()(const Tensor& ids) const;
};

/// While one lives, the layers that this thread makes are left without first values: those of a file are copied in afterwards. Drawing
/// a billion numbers takes seconds, and memory that nothing is written to is not taken.
class SkipInit {
 public:
  explicit SkipInit(bool follow = true);
  ~SkipInit();
  SkipInit(const SkipInit&) = delete;
  SkipInit& operator=(const SkipInit&) = delete;
  static bool now();

 private:
  bool before_;
};

/// Makes layers, names their weights and draws their first values (PyTorch's defaults) from one seed.
class Builder {
 public:
  explicit Builder(uint64_t seed);

  /// Returns a builder of the part called `name`: its weights are "name.…".
  Builder operator[](const std::string& name) const;
  Builder operator[](int64_t index) const { return (*this)[std::to_string(index)]; }
  /// Returns the name of the part, "input_blocks.1.0"; empty for the whole.
  std::string name() const { return prefix_.substr(0, prefix_.size() - (prefix_.empty() ? 0 : 1)); }

  Conv2d conv2d(const std::string& name, int64_t in, int64_t out, int64_t kernel, int64_t stride = 1, bool bias = true) const;
  /// Returns a 1x1 convolution with weight [out, in, 1], as guided-diffusion stores its attention projections.
  Conv2d conv1x1(const std::string& name, int64_t in, int64_t out) const;
  Linear linear(const std::string& name, int64_t in, int64_t out, bool bias = true) const;
  LayerNorm layer_norm(const std::string& name, int64_t channels, double eps = 1e-5) const;
  GroupNorm group_norm(const std::string& name, int64_t channels, int64_t groups = 32) const;
  Embedding embedding(const std::string& name, int64_t rows, int64_t width) const;
  /// Returns a trainable tensor of its own, N(0, std^2). `any_dtype`: see Weight.
  Tensor normal(const std::string& name, std::vector<int64_t> shape, double std, bool any_dtype = false) const;
  Tensor buffer(const std::string& name, Tensor value) const;
  at::Generator& random() const;

  /// Returns all weights made so far, in the order of making.
  const std::vector<Weight>& weights() const;

 private:
  struct Store;
  Tensor add(const std::string& name, Tensor value, bool trainable = true, bool any_dtype = false) const;
  Tensor uniform(std::vector<int64_t> shape, double bound) const;
  std::shared_ptr<Store> store_;
  std::string prefix_;
};

/// Returns the same layer starting as zero ("zero_module" of ADM): a block begins as the identity.
template <class Layer>
Layer zeroed(Layer layer) {
  if (SkipInit::now()) return layer;
  layer.weight.zero_();
  if (layer.bias.defined()) layer.bias.zero_();
  return layer;
}

}  // namespace brume::nn
