#pragma once
// The layers of a transformer (mmdit, dit) by the names that LoRA files of diffusers, kohya's trainers and FLUX's program have for them.
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/interop/layouts/transformer_names.h"

namespace brume {

/// How another program keeps a layer: in rows of one that holds several, or in another order.
struct LayerView {
  enum class Order {
    own,
    swapped,  ///< its two halves of rows are swapped
    flux      ///< a layer of FLUX's patches (from_flux_layout)
  };
  int64_t first = 0, rows = 0;  ///< of the weight; rows 0 = all
  Order order = Order::own;
  std::string name{};  ///< of the weight in brume's network
  FluxPatches patches{};

  bool whole() const { return rows == 0 && order == Order::own; }
  /// Returns the layer of a weight, or of what is added to one, as the other program keeps it.
  at::Tensor of(const at::Tensor& weight) const;
  /// Returns `layer`, as the other program keeps it, in the order of rows_of().
  at::Tensor back(const at::Tensor& layer) const;
  /// Returns the rows that the layer is, sharing storage.
  at::Tensor rows_of(const at::Tensor& weight) const;
};

/// A layer under another name: "transformer_blocks.0.attn.to_q".
struct LayerAlias {
  std::string layer;
  LayerView view;
};

/// Other names of the layers of one transformer; of other networks there are no such names.
class TransformerLora {
 public:
  /// Reads the architecture off the weights of a network, without their prefix "network.".
  explicit TransformerLora(const std::vector<Weight>& network);
  /// Returns the other names of the layer that a weight or bias is of.
  std::vector<LayerAlias> aliases(const Weight& weight) const;
  /// Returns the layers that diffusers has for it: several if it splits the layer, none if it has no such layer.
  std::vector<LayerAlias> of_diffusers(const Weight& weight) const;
  /// Returns the layer that FLUX's program has for it; none of other networks.
  std::optional<LayerAlias> of_flux(const Weight& weight) const;

 private:
  void read_mmdit(const std::vector<Weight>& network);
  void add_parts_of_flux(const Weight& weight, std::vector<LayerAlias>& all) const;
  LayerView view(const std::string& name, bool diffusers) const;

  enum class Family { other, dit, mmdit, flux } family_ = Family::other;
  int64_t width_ = 0, depth_ = 0, single_depth_ = 0;
  LayerNames diffusers_;
  NameTable flux_;
  FluxPatches patches_;
};

}  // namespace brume
