#include "support/vision.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cmath>
#include <utility>
#include <vector>

#include "support/inception.h"

namespace brume::test {
namespace {

using at::Tensor;

/// Values by the rule, in the shape; the kind of tensor, which its name says, decides on their size.
Tensor by_rule(const std::string& name, const std::vector<int64_t>& shape) {
  const Tensor t = at::empty(shape, at::kFloat);
  const auto is = [&](const char* word) { return name.find(word) != std::string::npos; };
  double factor = 0.1, offset = 0;
  if (is("token") || is("embedding") || name == "pos_embed")
    factor = 0.5;
  else if (shape.size() >= 2)
    factor = std::sqrt(3 * double(shape[0]) / double(t.numel()));
  else if (name.ends_with("weight") || name.ends_with("gamma"))
    factor = 0.25, offset = 1;
  for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = float(rule_value(name, 1, uint64_t(i)) * factor + offset);
  return t;
}

/// Collects tensors by the rule.
struct Tensors {
  NamedTensors all;
  void add(const std::string& name, const std::vector<int64_t>& shape) { all.push_back({name, by_rule(name, shape)}); }
  void layer(const std::string& name, int64_t out, int64_t in) { add(name + "weight", {out, in}), add(name + "bias", {out}); }
  void norm(const std::string& name, int64_t width) { add(name + "weight", {width}), add(name + "bias", {width}); }
  void clip_blocks(const std::string& prefix, int64_t width, int64_t mlp) {
    for (int i = 0; i < 2; ++i) {
      const std::string b = fmt::format("{}transformer.resblocks.{}.", prefix, i);
      norm(b + "ln_1.", width), layer(b + "attn.in_proj_", 3 * width, width), layer(b + "attn.out_proj.", width, width);
      norm(b + "ln_2.", width), layer(b + "mlp.c_fc.", mlp, width), layer(b + "mlp.c_proj.", width, mlp);
    }
  }
};

using Renames = std::vector<std::pair<std::string, std::string>>;

/// Renames by prefixes and words; q, k and v get names of their own where `joint` stands.
NamedTensors renamed(const NamedTensors& tensors, const Renames& words, const std::string& joint, const std::vector<std::string>& apart) {
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    std::string name = t.name;
    for (const auto& [from, to] : words)
      if (const size_t at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
    const size_t at = name.find(joint);
    if (at == std::string::npos) {
      result.push_back({name, t.tensor});
      continue;
    }
    const int64_t rows = t.tensor.size(0) / 3;
    for (size_t i = 0; i < 3; ++i) {
      std::string part = name;
      result.push_back({part.replace(at, joint.size(), apart[i]), t.tensor.narrow(0, int64_t(i) * rows, rows).contiguous()});
    }
  }
  return result;
}

}  // namespace

NamedTensors clip_tensors() {
  Tensors t;
  constexpr int64_t width = 128, text = 64, features = 24;
  t.add("visual.class_embedding", {width}), t.add("visual.positional_embedding", {17, width});
  t.add("visual.conv1.weight", {width, 3, 8, 8});
  t.norm("visual.ln_pre.", width), t.clip_blocks("visual.", width, 256), t.norm("visual.ln_post.", width);
  t.add("visual.proj", {width, features});
  t.add("token_embedding.weight", {521, text}), t.add("positional_embedding", {16, text});
  t.clip_blocks("", text, 128), t.norm("ln_final.", text);
  t.add("text_projection", {text, features}), t.add("logit_scale", {1});
  return t.all;
}

NamedTensors transformers_clip_tensors() {
  const Renames words{{"visual.class_embedding", "vision_model.embeddings.class_embedding"},
                      {"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"},
                      {"visual.conv1", "vision_model.embeddings.patch_embedding"},
                      {"visual.ln_pre", "vision_model.pre_layrnorm"},
                      {"visual.ln_post", "vision_model.post_layernorm"},
                      {"visual.proj", "visual_projection.weight"},
                      {"visual.transformer.resblocks", "vision_model.encoder.layers"},
                      {"transformer.resblocks", "text_model.encoder.layers"},
                      {"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
                      {"ln_final", "text_model.final_layer_norm"},
                      {"ln_1", "layer_norm1"},
                      {"ln_2", "layer_norm2"},
                      {"c_fc", "fc1"},
                      {"c_proj", "fc2"},
                      {"attn.out_proj", "self_attn.out_proj"}};
  NamedTensors all = renamed(clip_tensors(), words, "attn.in_proj_", {"self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."});
  for (NamedTensor& t : all) {
    if (t.name == "positional_embedding") t.name = "text_model.embeddings.position_embedding.weight";
    if (t.name == "text_projection") t.name = "text_projection.weight";
    if (t.name == "text_projection.weight" || t.name == "visual_projection.weight") t.tensor = t.tensor.t().contiguous();
  }
  return all;
}

NamedTensors dinov2_tensors(int64_t registers, bool gated) {
  Tensors t;
  constexpr int64_t width = 128;
  t.add("cls_token", {1, 1, width}), t.add("pos_embed", {1, 26, width});
  if (registers > 0) t.add("register_tokens", {1, registers, width});
  t.add("mask_token", {1, width});
  t.add("patch_embed.proj.weight", {width, 3, 14, 14}), t.add("patch_embed.proj.bias", {width});
  for (int i = 0; i < 2; ++i) {
    const std::string b = fmt::format("blocks.{}.", i);
    t.norm(b + "norm1.", width), t.layer(b + "attn.qkv.", 3 * width, width), t.layer(b + "attn.proj.", width, width);
    t.add(b + "ls1.gamma", {width}), t.norm(b + "norm2.", width);
    gated ? t.layer(b + "mlp.w12.", 320, width) : t.layer(b + "mlp.fc1.", 256, width);
    gated ? t.layer(b + "mlp.w3.", width, 160) : t.layer(b + "mlp.fc2.", width, 256);
    t.add(b + "ls2.gamma", {width});
  }
  t.norm("norm.", width);
  return t.all;
}

NamedTensors transformers_dinov2_tensors(int64_t registers, bool gated) {
  const Renames words{{"cls_token", "embeddings.cls_token"},
                      {"pos_embed", "embeddings.position_embeddings"},
                      {"register_tokens", "embeddings.register_tokens"},
                      {"mask_token", "embeddings.mask_token"},
                      {"patch_embed.proj", "embeddings.patch_embeddings.projection"},
                      {"blocks.", "encoder.layer."},
                      {"ls1.gamma", "layer_scale1.lambda1"},
                      {"ls2.gamma", "layer_scale2.lambda1"},
                      {"attn.proj", "attention.output.dense"},
                      {"mlp.w12", "mlp.weights_in"},
                      {"mlp.w3", "mlp.weights_out"}};
  NamedTensors all = renamed(dinov2_tensors(registers, gated), words, "attn.qkv.",
                             {"attention.attention.query.", "attention.attention.key.", "attention.attention.value."});
  for (NamedTensor& t : all)
    if (t.name.starts_with("norm.")) t.name = "layer" + t.name;
  return all;
}

Tensor vision_image(int64_t n, int64_t height, int64_t width) {
  const Tensor t = at::empty({1, 3, height, width}, at::kFloat);
  float* out = t.data_ptr<float>();
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        *out++ = float((7 * x + 5 * (c + 1) * y + 40 * n + 60 * ((x / 6 + y / 5) % 2)) % 256) / 127.5f - 1;
  return t;
}

}  // namespace brume::test
