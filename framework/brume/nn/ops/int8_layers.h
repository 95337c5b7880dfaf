#pragma once
// Which layers of a network multiply eight-bit integers while it is evaluated.
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/nn/ops/int8_product.h"

namespace brume::nn {

/// Weights by the memory they lie in, which must not change. Safe to use from several threads once they are all added.
class Int8Layers {
 public:
  /// Adds a weight of a floating type, which becomes integers when a layer first computes with it. Does nothing if it does not fit
  /// (int8_fits).
  void add(const std::string& name, const Tensor& weight);
  /// Adds the integers of a weight, which the layer holds in its place, and their scales.
  void add(const std::string& name, const Tensor& values, const Tensor& scales);
  /// Adds those of a network's weights that inner layers compute with; the first and the last layers, which read its `in` channels and
  /// write its `out` ones, whole or in patches of 2 x 2, stay in float32.
  void add_inner(const std::string& prefix, const std::vector<Weight>& weights, int64_t in, int64_t out);
  /// Lets a layer compute in float32. Does nothing if it is unknown.
  void keep(const std::string& name);

  /// Returns the integers that a layer multiplies an image with, [B, C, H, W]; null for one that computes in float32: if it is not among
  /// these, if it reads or writes a few channels only, and if it reads one row per image (noise levels, classes).
  std::shared_ptr<const Int8Weight> find(const Tensor& weight, const Tensor& image) const;

  /// Returns the numbers of a weight that is held as integers. Throws std::logic_error if it is none of these.
  Tensor floating(const Tensor& weight) const;

  /// Returns the name of a weight.
  const std::string& name(const Tensor& weight) const;
  bool empty() const { return layers_.empty(); }

 private:
  struct Layer {
    std::string name;
    Tensor weight, scales;  ///< no scales: floating
    bool kept = false;
    mutable std::shared_ptr<const Int8Weight> ready{};
  };
  std::map<const void*, Layer> layers_;
  mutable std::mutex mutex_;  ///< of what is ready
};

/// What a layer's result in int8 is away from its result in float32, over all calls.
struct Int8Error {
  std::string name;
  double error2 = 0, norm2 = 0;  ///< sums of squares
  double products = 0;           ///< multiply-adds
  double relative() const;
};
using Int8Errors = std::vector<Int8Error>;  ///< in the order of the first calls

/// While one lives, the layers of this thread compute in int8 where `layers` say so; null = none of them. `errors`: they compute in both
/// and go on in float32, and the differences are added up there.
class Int8Scope {
 public:
  explicit Int8Scope(const Int8Layers* layers, Int8Errors* errors = nullptr);
  ~Int8Scope();
  Int8Scope(const Int8Scope&) = delete;
  Int8Scope& operator=(const Int8Scope&) = delete;

  /// Returns true if one lives in this thread.
  static bool active();
  /// Returns the layers of this thread; null if there are none.
  static const Int8Layers* layers();
  static Int8Errors* errors();

 private:
  const Int8Layers* layers_before_;
  Int8Errors* errors_before_;
  bool active_before_;
};

}  // namespace brume::nn
