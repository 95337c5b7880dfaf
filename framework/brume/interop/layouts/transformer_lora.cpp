#include "brume/interop/layouts/transformer_lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace brume {
namespace {

const Weight* weight_of(const std::vector<Weight>& network, std::string_view name) {
  const auto at = std::find_if(network.begin(), network.end(), [&](const Weight& w) { return w.name == name; });
  return at == network.end() ? nullptr : &*at;
}

int64_t count_of(const std::vector<Weight>& network, const char* form) {
  int64_t n = 0;
  while (weight_of(network, fmt::format(fmt::runtime(form), n))) ++n;
  return n;
}

/// Returns the layer of a tensor's name: without ".weight" or ".bias".
std::string layer_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

}  // namespace

at::Tensor LayerView::rows_of(const at::Tensor& weight) const { return rows > 0 ? weight.narrow(0, first, rows) : weight; }

at::Tensor LayerView::of(const at::Tensor& weight) const {
  at::Tensor part = rows_of(weight);
  switch (order) {
    case Order::swapped: return swapped_halves(part);
    case Order::flux: return to_flux_layout(name, part, patches);
    case Order::own: break;
  }
  return part;
}

at::Tensor LayerView::back(const at::Tensor& layer) const {
  switch (order) {
    case Order::swapped: return swapped_halves(layer);
    case Order::flux: return from_flux_layout(name, layer, patches);
    case Order::own: break;
  }
  return layer;
}

TransformerLora::TransformerLora(const std::vector<Weight>& network) {
  if (weight_of(network, "joint_blocks.0.x_block.attn.qkv.weight")) {
    read_mmdit(network);
    return;
  }
  const Weight* qkv = weight_of(network, "blocks.0.attn.qkv.weight");
  if (!qkv || !weight_of(network, "x_embedder.proj.weight")) return;
  family_ = Family::dit;
  width_ = qkv->tensor.size(1), depth_ = count_of(network, "blocks.{}.attn.qkv.weight");
  diffusers_ = weight_of(network, "blocks.0.cross_attn.q_linear.weight") ? pixart_names(depth_) : dit_names(depth_);
}

void TransformerLora::read_mmdit(const std::vector<Weight>& network) {
  const Weight *first = weight_of(network, "x_embedder.proj.weight"), *last = weight_of(network, "final_layer.linear.weight");
  if (!first || !last || first->tensor.dim() != 4) return;
  width_ = first->tensor.size(0);
  depth_ = count_of(network, "joint_blocks.{}.x_block.attn.qkv.weight");
  single_depth_ = count_of(network, "single_blocks.{}.linear1.weight");
  const int64_t patch = first->tensor.size(2);
  patches_ = {first->tensor.size(1), last->tensor.size(0) / (patch * patch), patch};
  family_ = weight_of(network, "pos_embed") ? Family::mmdit : Family::flux;
  std::vector<int64_t> dual;
  for (int64_t i = 0; i < depth_; ++i)
    if (weight_of(network, fmt::format("joint_blocks.{}.x_block.attn2.qkv.weight", i))) dual.push_back(i);
  diffusers_ = mmdit_names(family_ == Family::flux, depth_, single_depth_, dual);
  if (family_ == Family::flux) flux_ = flux_names(depth_, single_depth_);
}

LayerView TransformerLora::view(const std::string& name, bool diffusers) const {
  LayerView v{.name = name, .patches = patches_};
  const bool patched = name == "x_embedder.proj.weight" || name.starts_with("final_layer.linear.");
  if (family_ == Family::flux && patched) v.order = LayerView::Order::flux;
  const bool modulates = family_ == Family::flux || family_ == Family::mmdit;
  if (diffusers && modulates && mmdit_swaps(name, depth_, single_depth_)) v.order = LayerView::Order::swapped;
  return v;
}

std::vector<LayerAlias> TransformerLora::of_diffusers(const Weight& weight) const {
  std::vector<LayerAlias> all;
  if (family_ == Family::other) return all;
  const std::string layer = layer_of(weight.name);
  for (const JoinedLayer& joined : diffusers_.joined) {
    if (joined.ours != layer) continue;
    for (size_t i = 0; i < joined.theirs.size(); ++i) {
      LayerView v{.first = int64_t(i) * width_, .name = weight.name};
      v.rows = i + 1 < joined.theirs.size() ? width_ : weight.tensor.size(0) - v.first;
      all.push_back({joined.theirs[i], v});
    }
    return all;
  }
  if (const auto theirs = diffusers_.names.theirs(weight.name)) all.push_back({layer_of(*theirs), view(weight.name, true)});
  return all;
}

std::optional<LayerAlias> TransformerLora::of_flux(const Weight& weight) const {
  const auto theirs = family_ == Family::flux ? flux_.theirs(weight.name) : std::nullopt;
  if (!theirs || theirs->ends_with(".scale")) return {};
  return LayerAlias{layer_of(*theirs), view(weight.name, false)};
}

/// Adds the names of files that change the queries, keys and values of a single block, which are rows of its first layer.
void TransformerLora::add_parts_of_flux(const Weight& weight, std::vector<LayerAlias>& all) const {
  const std::string layer = layer_of(weight.name);
  constexpr std::string_view first = ".linear1", second = ".linear2";
  if (!layer.starts_with("single_blocks.")) return;
  if (layer.ends_with(first))
    for (const std::string& name : {layer + "_qkv", layer.substr(0, layer.size() - first.size()) + ".qkv"})
      all.push_back({name, {.first = 0, .rows = 3 * width_, .name = weight.name}});
  if (layer.ends_with(second)) all.push_back({layer.substr(0, layer.size() - second.size()) + ".proj", {.name = weight.name}});
}

std::vector<LayerAlias> TransformerLora::aliases(const Weight& weight) const {
  std::vector<LayerAlias> all = of_diffusers(weight);
  if (const auto flux = of_flux(weight)) all.push_back(*flux);
  if (family_ == Family::flux) add_parts_of_flux(weight, all);
  return all;
}

}  // namespace brume
