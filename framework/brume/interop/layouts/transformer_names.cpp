#include "brume/interop/layouts/transformer_names.h"

#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/errors.h"

namespace brume {
namespace {

/// Adds the two layers of an embedder, whose diffusers' name has no dot at its end.
void add_embedder(NameTable& names, const std::string& ours, const std::string& theirs) {
  names.add(ours + ".mlp.0.", theirs + ".linear_1.");
  names.add(ours + ".mlp.2.", theirs + ".linear_2.");
}

/// Adds what DiT and PixArt share: self-attention and perceptron of a block.
void add_dit_block(LayerNames& all, const std::string& ours, const std::string& theirs) {
  all.names.add(ours + "attn.proj.", theirs + "attn1.to_out.0.");
  all.names.add(ours + "mlp.fc1.", theirs + "ff.net.0.proj.");
  all.names.add(ours + "mlp.fc2.", theirs + "ff.net.2.");
  all.joined.push_back({ours + "attn.qkv", {theirs + "attn1.to_q", theirs + "attn1.to_k", theirs + "attn1.to_v"}});
}

void add_joint_block(LayerNames& all, int64_t i, bool last_of_words) {
  const std::string theirs = fmt::format("transformer_blocks.{}.", i), block = fmt::format("joint_blocks.{}.", i);
  const std::string x = block + "x_block.", words = block + "context_block.";
  NameTable& n = all.names;
  n.add(x + "adaLN_modulation.1.", theirs + "norm1.linear.");
  n.add(x + "attn.proj.", theirs + "attn.to_out.0.");
  n.add(x + "attn.ln_q.", theirs + "attn.norm_q.");
  n.add(x + "attn.ln_k.", theirs + "attn.norm_k.");
  n.add(x + "attn2.proj.", theirs + "attn2.to_out.0.");
  n.add(x + "attn2.ln_q.", theirs + "attn2.norm_q.");
  n.add(x + "attn2.ln_k.", theirs + "attn2.norm_k.");
  n.add(x + "mlp.fc1.", theirs + "ff.net.0.proj.");
  n.add(x + "mlp.fc2.", theirs + "ff.net.2.");
  n.add(words + "adaLN_modulation.1.", theirs + "norm1_context.linear.");
  n.add(words + "attn.ln_q.", theirs + "attn.norm_added_q.");
  n.add(words + "attn.ln_k.", theirs + "attn.norm_added_k.");
  if (!last_of_words) {
    n.add(words + "attn.proj.", theirs + "attn.to_add_out.");
    n.add(words + "mlp.fc1.", theirs + "ff_context.net.0.proj.");
    n.add(words + "mlp.fc2.", theirs + "ff_context.net.2.");
  }
  const std::string a = theirs + "attn.";
  all.joined.push_back({x + "attn.qkv", {a + "to_q", a + "to_k", a + "to_v"}});
  all.joined.push_back({words + "attn.qkv", {a + "add_q_proj", a + "add_k_proj", a + "add_v_proj"}});
}

/// Returns the joined layer that has this weight or bias; null if it is of none.
const JoinedLayer* joined_of(const LayerNames& layout, const std::string& layer) {
  for (const JoinedLayer& j : layout.joined)
    if (j.ours == layer) return &j;
  return nullptr;
}

}  // namespace

LayerNames dit_names(int64_t depth) {
  LayerNames all;
  NameTable& names = all.names;
  names.add("x_embedder.proj.", "pos_embed.proj.");
  names.add("final_layer.adaLN_modulation.1.", "proj_out_1.");
  names.add("final_layer.linear.", "proj_out_2.");
  for (int64_t i = 0; i < depth; ++i) {
    const std::string ours = fmt::format("blocks.{}.", i), theirs = fmt::format("transformer_blocks.{}.", i);
    names.add(ours + "adaLN_modulation.1.", theirs + "norm1.linear.");
    add_dit_block(all, ours, theirs);
  }
  const std::string embedders = dit_embedders;
  add_embedder(names, "t_embedder", embedders + "timestep_embedder");
  names.add("y_embedder.embedding_table.", embedders + "class_embedder.embedding_table.");
  return all;
}

LayerNames pixart_names(int64_t depth) {
  LayerNames all;
  NameTable& names = all.names;
  names.add("x_embedder.proj.", "pos_embed.proj.");
  names.add("t_block.1.", "adaln_single.linear.");
  names.add("final_layer.scale_shift_table", "scale_shift_table");
  names.add("final_layer.linear.", "proj_out.");
  add_embedder(names, "t_embedder", "adaln_single.emb.timestep_embedder");
  add_embedder(names, "csize_embedder", "adaln_single.emb.resolution_embedder");
  add_embedder(names, "ar_embedder", "adaln_single.emb.aspect_ratio_embedder");
  names.add("y_embedder.y_proj.fc1.", "caption_projection.linear_1.");
  names.add("y_embedder.y_proj.fc2.", "caption_projection.linear_2.");
  for (int64_t i = 0; i < depth; ++i) {
    const std::string ours = fmt::format("blocks.{}.", i), theirs = fmt::format("transformer_blocks.{}.", i);
    names.add(ours + "scale_shift_table", theirs + "scale_shift_table");
    add_dit_block(all, ours, theirs);
    names.add(ours + "cross_attn.q_linear.", theirs + "attn2.to_q.");
    names.add(ours + "cross_attn.proj.", theirs + "attn2.to_out.0.");
    all.joined.push_back({ours + "cross_attn.kv_linear", {theirs + "attn2.to_k", theirs + "attn2.to_v"}});
  }
  return all;
}

LayerNames mmdit_names(bool flux, int64_t depth, int64_t single_depth, const std::vector<int64_t>& dual_blocks) {
  LayerNames all;
  NameTable& n = all.names;
  n.add("x_embedder.proj.", flux ? "x_embedder." : "pos_embed.proj.");
  n.add("pos_embed", "pos_embed.pos_embed");
  n.add("context_embedder.", "context_embedder.");
  n.add("final_layer.adaLN_modulation.1.", "norm_out.linear.");
  n.add("final_layer.linear.", "proj_out.");
  add_embedder(n, "t_embedder", "time_text_embed.timestep_embedder");
  add_embedder(n, "y_embedder", "time_text_embed.text_embedder");
  add_embedder(n, "g_embedder", "time_text_embed.guidance_embedder");
  for (int64_t i = 0; i < depth; ++i) {
    add_joint_block(all, i, i + 1 == depth && single_depth == 0);
    if (std::find(dual_blocks.begin(), dual_blocks.end(), i) == dual_blocks.end()) continue;
    const std::string a = fmt::format("transformer_blocks.{}.attn2.", i);
    all.joined.push_back({fmt::format("joint_blocks.{}.x_block.attn2.qkv", i), {a + "to_q", a + "to_k", a + "to_v"}});
  }
  for (int64_t i = 0; i < single_depth; ++i) {
    const std::string ours = fmt::format("single_blocks.{}.", i), theirs = fmt::format("single_transformer_blocks.{}.", i);
    n.add(ours + "modulation.lin.", theirs + "norm.linear.");
    n.add(ours + "linear2.", theirs + "proj_out.");
    n.add(ours + "ln_q.", theirs + "attn.norm_q.");
    n.add(ours + "ln_k.", theirs + "attn.norm_k.");
    all.joined.push_back({ours + "linear1", {theirs + "attn.to_q", theirs + "attn.to_k", theirs + "attn.to_v", theirs + "proj_mlp"}});
  }
  return all;
}

NameTable flux_names(int64_t depth, int64_t single_depth) {
  NameTable names;
  names.add("x_embedder.proj.", "img_in.");
  names.add("context_embedder.", "txt_in.");
  names.add("final_layer.", "final_layer.");
  const std::vector<std::pair<const char*, const char*>> embedders{
      {"t_embedder", "time_in"}, {"y_embedder", "vector_in"}, {"g_embedder", "guidance_in"}};
  for (const auto& [ours, theirs] : embedders) {
    names.add(fmt::format("{}.mlp.0.", ours), fmt::format("{}.in_layer.", theirs));
    names.add(fmt::format("{}.mlp.2.", ours), fmt::format("{}.out_layer.", theirs));
  }
  for (int64_t i = 0; i < depth; ++i)
    for (const bool words : {false, true}) {
      const std::string ours = fmt::format("joint_blocks.{}.{}.", i, words ? "context_block" : "x_block");
      const std::string theirs = fmt::format("double_blocks.{}.{}_", i, words ? "txt" : "img");
      names.add(ours + "adaLN_modulation.1.", theirs + "mod.lin.");
      names.add(ours + "attn.qkv.", theirs + "attn.qkv.");
      names.add(ours + "attn.proj.", theirs + "attn.proj.");
      names.add(ours + "attn.ln_q.weight", theirs + "attn.norm.query_norm.scale");
      names.add(ours + "attn.ln_k.weight", theirs + "attn.norm.key_norm.scale");
      names.add(ours + "mlp.fc1.", theirs + "mlp.0.");
      names.add(ours + "mlp.fc2.", theirs + "mlp.2.");
    }
  for (int64_t i = 0; i < single_depth; ++i) {
    const std::string block = fmt::format("single_blocks.{}.", i);
    for (const char* layer : {"linear1.", "linear2.", "modulation.lin."}) names.add(block + layer, block + layer);
    names.add(block + "ln_q.weight", block + "norm.query_norm.scale");
    names.add(block + "ln_k.weight", block + "norm.key_norm.scale");
  }
  return names;
}

bool mmdit_swaps(const std::string& ours, int64_t depth, int64_t single_depth) {
  if (ours.starts_with("final_layer.adaLN_modulation.")) return true;
  return single_depth == 0 && ours.starts_with(fmt::format("joint_blocks.{}.context_block.adaLN_modulation.1.", depth - 1));
}

at::Tensor swapped_halves(const at::Tensor& rows) {
  const int64_t half = rows.size(0) / 2;
  return at::cat({rows.narrow(0, half, rows.size(0) - half), rows.narrow(0, 0, half)});
}

at::Tensor from_flux_layout(const std::string& name, const at::Tensor& t, const FluxPatches& p) {
  const int64_t squares = p.patch * p.patch;
  if (name == "x_embedder.proj.weight" && t.dim() == 2 && t.size(1) == p.in * squares)
    return t.reshape({t.size(0), p.in, p.patch, p.patch});
  if (name.starts_with("final_layer.linear.") && t.dim() >= 1 && t.size(0) == p.out * squares)
    return t.reshape({p.out, squares, -1}).transpose(0, 1).reshape(t.sizes());
  return t;
}

at::Tensor to_flux_layout(const std::string& name, const at::Tensor& t, const FluxPatches& p) {
  if (name == "x_embedder.proj.weight") return t.reshape({t.size(0), -1});
  if (name.starts_with("final_layer.linear.")) return t.reshape({p.patch * p.patch, p.out, -1}).transpose(0, 1).reshape(t.sizes());
  return t;
}

NamedTensors split_layers(const NamedTensors& tensors, const LayerNames& layout, int64_t width, const std::string& source) {
  NamedTensors all;
  for (const NamedTensor& t : tensors) {
    const size_t dot = t.name.rfind('.');
    const std::string what = dot == std::string::npos ? "" : t.name.substr(dot);
    if (const JoinedLayer* layer = dot == std::string::npos ? nullptr : joined_of(layout, t.name.substr(0, dot))) {
      for (size_t i = 0; i < layer->theirs.size(); ++i) {
        const int64_t first = int64_t(i) * width, rest = t.tensor.size(0) - first;
        const bool last = i + 1 == layer->theirs.size();
        if (rest < (last ? 1 : width)) throw ConfigError(fmt::format("{}: '{}' has {}", source, t.name, counted(t.tensor.size(0), "row")));
        all.push_back({layer->theirs[i] + what, t.tensor.narrow(0, first, last ? rest : width)});
      }
      continue;
    }
    const auto theirs = layout.names.theirs(t.name);
    if (!theirs) throw ConfigError(fmt::format("{}: diffusers has no place for the tensor '{}'", source, t.name));
    all.push_back({*theirs, t.tensor});
  }
  return all;
}

}  // namespace brume
