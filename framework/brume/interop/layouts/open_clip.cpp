#include "brume/interop/layouts/open_clip.h"
#include "brume/config/number.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "brume/config/errors.h"

namespace brume {
namespace {

using Names = std::pair<std::string_view, std::string_view>;  // OpenCLIP's, transformers'

/// Within a layer; q, k and v apart are in_proj.
constexpr Names in_layer[] = {{"ln_1.", "layer_norm1."},
                              {"ln_2.", "layer_norm2."},
                              {"attn.out_proj.", "self_attn.out_proj."},
                              {"mlp.c_fc.", "mlp.fc1."},
                              {"mlp.c_proj.", "mlp.fc2."}};
constexpr Names whole[] = {{"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
                           {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
                           {"ln_final.weight", "text_model.final_layer_norm.weight"},
                           {"ln_final.bias", "text_model.final_layer_norm.bias"}};
constexpr std::string_view theirs = "transformer.resblocks.", ours = "text_model.encoder.layers.";

/// Returns the layer and the rest of "transformer.resblocks.3.ln_1.bias"; -1 if it is no layer's tensor.
std::pair<int64_t, std::string_view> layer_of(std::string_view name, std::string_view layers) {
  const size_t dot = name.find('.', layers.size());
  if (!name.starts_with(layers) || dot == std::string_view::npos) return {-1, {}};
  return {parse_number<int64_t>(name.substr(layers.size(), dot - layers.size())).value_or(0), name.substr(dot + 1)};
}

/// Adds a tensor of a layer as one of transformers' or, of in_proj, three.
void add_layer(NamedTensors& result, int64_t layer, std::string_view rest, const NamedTensor& t) {
  const std::string to = fmt::format("{}{}.", ours, layer);
  if (rest == "attn.in_proj_weight" || rest == "attn.in_proj_bias") {
    if (t.tensor.dim() == 0) throw ConfigError(fmt::format("tensor 'cond_stage_model.model.{}' is one number", t.name));
    const int64_t width = t.tensor.size(0) / 3;
    const char* part = rest.ends_with("weight") ? "weight" : "bias";
    for (int64_t i = 0; i < 3; ++i)
      result.push_back({fmt::format("{}self_attn.{}_proj.{}", to, "qkv"[i], part), t.tensor.narrow(0, i * width, width)});
    return;
  }
  for (const auto& [from, name] : in_layer)
    if (rest.starts_with(from)) result.push_back({fmt::format("{}{}{}", to, name, rest.substr(from.size())), t.tensor});
}

/// Returns a layer of transformers' in OpenCLIP's words.
NamedTensors open_clip_layer(const NamedTensors& tensors, int64_t layer) {
  const std::string from = fmt::format("{}{}.", ours, layer), to = fmt::format("{}{}.", theirs, layer);
  const auto part = [&](const std::string& name) {
    if (const at::Tensor* t = find(tensors, from + name)) return *t;
    throw ConfigError(fmt::format("its clip_text has no '{}{}'", from, name));
  };
  NamedTensors result;
  for (const char* of : {"weight", "bias"}) {
    std::vector<at::Tensor> parts;
    for (const char which : {'q', 'k', 'v'}) parts.push_back(part(fmt::format("self_attn.{}_proj.{}", which, of)));
    result.push_back({fmt::format("{}attn.in_proj_{}", to, of), at::cat(parts)});
    for (const auto& [name, inner] : in_layer)
      result.push_back({fmt::format("{}{}{}", to, name, of), part(fmt::format("{}{}", inner, of))});
  }
  return result;
}

}  // namespace

NamedTensors from_open_clip(const NamedTensors& tensors, int64_t depth) {
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    for (const auto& [from, to] : whole)
      if (t.name == from) result.push_back({std::string(to), t.tensor});
    const auto [layer, rest] = layer_of(t.name, theirs);
    if (layer >= 0 && layer < depth) add_layer(result, layer, rest, t);
  }
  return result;
}

NamedTensors to_open_clip(const NamedTensors& tensors, int64_t depth, bool spare) {
  NamedTensors result;
  for (const auto& [to, from] : whole) {
    const at::Tensor* t = find(tensors, std::string(from));
    if (!t) throw ConfigError(fmt::format("its clip_text has no '{}'", from));
    result.push_back({std::string(to), *t});
  }
  NamedTensors last;
  for (int64_t layer = 0; layer < depth; ++layer)
    for (NamedTensor& t : last = open_clip_layer(tensors, layer)) result.push_back(t);
  if (!spare) last.clear();
  for (const NamedTensor& t : last) {
    const std::string name = fmt::format("{}{}.{}", theirs, depth, layer_of(t.name, theirs).second);
    result.push_back({name, at::zeros_like(t.tensor)});
  }
  return result;
}

}  // namespace brume
