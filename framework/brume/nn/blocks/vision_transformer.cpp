#include "brume/nn/blocks/vision_transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/upsample_bicubic2d.h>

#include <map>

#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/transformer_ops.h"

namespace brume::nn {
namespace {

using Options = VisionTransformerOptions;
using Activation = Options::Activation;

/// What a file calls the tensors; names that end with '.' or '_' are followed by "weight" or "bias".
struct Names {
  std::string class_token{}, positions{}, registers{}, patches{}, before{}, blocks{}, norm1{};
  std::vector<std::string> qkv{};  ///< one tensor of the three, or one each
  std::string out{}, scale1{}, norm2{}, up{}, down{};
  std::string gated_up{}, gated_down{};  ///< of SwiGLU
  std::string scale2{}, after{}, projection{};
};

const Names clip_names{.class_token = "visual.class_embedding",
                       .positions = "visual.positional_embedding",
                       .patches = "visual.conv1.",
                       .before = "visual.ln_pre.",
                       .blocks = "visual.transformer.resblocks.",
                       .norm1 = "ln_1.",
                       .qkv = {"attn.in_proj_"},
                       .out = "attn.out_proj.",
                       .norm2 = "ln_2.",
                       .up = "mlp.c_fc.",
                       .down = "mlp.c_proj.",
                       .after = "visual.ln_post.",
                       .projection = "visual.proj"};
const Names transformers_clip_names{.class_token = "vision_model.embeddings.class_embedding",
                                    .positions = "vision_model.embeddings.position_embedding.weight",
                                    .patches = "vision_model.embeddings.patch_embedding.",
                                    .before = "vision_model.pre_layrnorm.",
                                    .blocks = "vision_model.encoder.layers.",
                                    .norm1 = "layer_norm1.",
                                    .qkv = {"self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."},
                                    .out = "self_attn.out_proj.",
                                    .norm2 = "layer_norm2.",
                                    .up = "mlp.fc1.",
                                    .down = "mlp.fc2.",
                                    .after = "vision_model.post_layernorm.",
                                    .projection = "visual_projection.weight"};
const Names dinov2_names{.class_token = "cls_token",
                         .positions = "pos_embed",
                         .registers = "register_tokens",
                         .patches = "patch_embed.proj.",
                         .blocks = "blocks.",
                         .norm1 = "norm1.",
                         .qkv = {"attn.qkv."},
                         .out = "attn.proj.",
                         .scale1 = "ls1.gamma",
                         .norm2 = "norm2.",
                         .up = "mlp.fc1.",
                         .down = "mlp.fc2.",
                         .gated_up = "mlp.w12.",
                         .gated_down = "mlp.w3.",
                         .scale2 = "ls2.gamma",
                         .after = "norm."};
const Names transformers_dinov2_names{.class_token = "embeddings.cls_token",
                                      .positions = "embeddings.position_embeddings",
                                      .registers = "embeddings.register_tokens",
                                      .patches = "embeddings.patch_embeddings.projection.",
                                      .blocks = "encoder.layer.",
                                      .norm1 = "norm1.",
                                      .qkv = {"attention.attention.query.", "attention.attention.key.", "attention.attention.value."},
                                      .out = "attention.output.dense.",
                                      .scale1 = "layer_scale1.lambda1",
                                      .norm2 = "norm2.",
                                      .up = "mlp.fc1.",
                                      .down = "mlp.fc2.",
                                      .gated_up = "mlp.weights_in.",
                                      .gated_down = "mlp.weights_out.",
                                      .scale2 = "layer_scale2.lambda1",
                                      .after = "layernorm."};

const Names& names_of(VisionNames which) {
  switch (which) {
    case VisionNames::clip: return clip_names;
    case VisionNames::transformers_clip: return transformers_clip_names;
    case VisionNames::dinov2: return dinov2_names;
    default: return transformers_dinov2_names;
  }
}

bool of_clip(VisionNames names) { return names == VisionNames::clip || names == VisionNames::transformers_clip; }
/// OpenAI's files have the projection as [width, projection].
bool transposed(VisionNames names) { return names == VisionNames::clip; }

/// Tensors by name, and layers of them.
class Found {
 public:
  Found(const std::vector<Weight>& weights, at::Device device) : device_(device) {
    for (const Weight& w : weights) all_[w.name] = w.tensor;
  }
  Tensor operator()(const std::string& name) const { return all_.at(name).to(device_, at::kFloat).contiguous(); }
  LayerNorm norm(const std::string& name, double eps) const { return {(*this)(name + "weight"), (*this)(name + "bias"), eps}; }
  /// Returns the rows of several layers, one below the other; each multiplied by a scale, if it is named.
  Linear linear(const std::vector<std::string>& parts, const std::string& scale = "") const {
    std::vector<Tensor> weights, biases;
    for (const std::string& part : parts) weights.push_back((*this)(part + "weight")), biases.push_back((*this)(part + "bias"));
    Tensor weight = at::cat(weights), bias = at::cat(biases);
    if (!scale.empty()) {
      const Tensor by = (*this)(scale).to(at::kDouble);
      weight = (weight.to(at::kDouble) * by.unsqueeze(1)).to(at::kFloat), bias = (bias.to(at::kDouble) * by).to(at::kFloat);
    }
    return {weight, bias, std::make_shared<PackedWeight>()};
  }

 private:
  std::map<std::string, Tensor> all_;
  at::Device device_;
};

}  // namespace

std::vector<Weight> VisionTransformer::layout(const Options& o, VisionNames which) {
  const Names& n = names_of(which);
  std::vector<Weight> all;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) { all.push_back({name, at::empty(shape, at::kFloat), false}); };
  const auto layer = [&](const std::string& name, int64_t in, int64_t out) { add(name + "weight", {out, in}), add(name + "bias", {out}); };
  const auto norm = [&](const std::string& name) { add(name + "weight", {o.width}), add(name + "bias", {o.width}); };
  const int64_t places = 1 + o.positions * o.positions;
  add(n.class_token, of_clip(which) ? std::vector<int64_t>{o.width} : std::vector<int64_t>{1, 1, o.width});
  add(n.positions, of_clip(which) ? std::vector<int64_t>{places, o.width} : std::vector<int64_t>{1, places, o.width});
  if (o.registers > 0) add(n.registers, {1, o.registers, o.width});
  add(n.patches + "weight", {o.width, 3, o.patch, o.patch});
  if (o.patch_bias) add(n.patches + "bias", {o.width});
  if (o.norm_before) norm(n.before);
  const bool gated = o.activation == Activation::swiglu;
  for (int64_t i = 0; i < o.depth; ++i) {
    const std::string block = n.blocks + std::to_string(i) + ".";
    norm(block + n.norm1);
    for (const std::string& part : n.qkv) layer(block + part, o.width, 3 * o.width / int64_t(n.qkv.size()));
    layer(block + n.out, o.width, o.width);
    if (o.layer_scale) add(block + n.scale1, {o.width});
    norm(block + n.norm2);
    layer(block + (gated ? n.gated_up : n.up), o.width, gated ? 2 * o.mlp : o.mlp);
    layer(block + (gated ? n.gated_down : n.down), o.mlp, o.width);
    if (o.layer_scale) add(block + n.scale2, {o.width});
  }
  norm(n.after);
  if (o.projection > 0)
    add(n.projection, transposed(which) ? std::vector<int64_t>{o.width, o.projection} : std::vector<int64_t>{o.projection, o.width});
  return all;
}

VisionTransformer::VisionTransformer(const Options& options, VisionNames which, const std::vector<Weight>& weights, at::Device device)
    : o_(options) {
  const Names& n = names_of(which);
  const Found found(weights, device);
  class_ = found(n.class_token).view({1, 1, o_.width});
  positions_ = found(n.positions).view({1, -1, o_.width});
  if (o_.registers > 0) registers_ = found(n.registers);
  patches_ = {found(n.patches + "weight").contiguous(at::MemoryFormat::ChannelsLast), o_.patch_bias ? found(n.patches + "bias") : Tensor(),
              o_.patch, 0, std::make_shared<PackedWeight>()};
  if (o_.norm_before) before_ = found.norm(n.before, o_.eps);
  const bool gated = o_.activation == Activation::swiglu;
  for (int64_t i = 0; i < o_.depth; ++i) {
    const std::string name = n.blocks + std::to_string(i) + ".";
    std::vector<std::string> qkv;
    for (const std::string& part : n.qkv) qkv.push_back(name + part);
    Block block;
    block.norm1 = found.norm(name + n.norm1, o_.eps), block.norm2 = found.norm(name + n.norm2, o_.eps);
    block.qkv = found.linear(qkv);
    block.out = found.linear({name + n.out}, o_.layer_scale ? name + n.scale1 : "");
    block.up = found.linear({name + (gated ? n.gated_up : n.up)});
    block.down = found.linear({name + (gated ? n.gated_down : n.down)}, o_.layer_scale ? name + n.scale2 : "");
    blocks_.push_back(block);
  }
  after_ = found.norm(n.after, o_.eps);
  if (o_.projection > 0) {
    const Tensor weight = found(n.projection);
    projection_ = {transposed(which) ? weight.t().contiguous() : weight, {}, std::make_shared<PackedWeight>()};
  }
}

/// Returns [1, 1 + side^2, W].
Tensor VisionTransformer::position_table(int64_t side) const {
  if (side == o_.positions) return positions_;
  const int64_t patches = o_.positions * o_.positions;
  const Tensor table = positions_.narrow(1, 1, patches).view({1, o_.positions, o_.positions, o_.width}).permute({0, 3, 1, 2}).contiguous();
  const double scale = (double(side) + 0.1) / double(o_.positions);
  const Tensor resized = o_.resizing == Options::Positions::antialiased ? at::_upsample_bicubic2d_aa(table, {side, side}, false)
                                                                        : at::upsample_bicubic2d(table, {side, side}, false, scale, scale);
  return at::cat({positions_.narrow(1, 0, 1), resized.permute({0, 2, 3, 1}).reshape({1, side * side, o_.width})}, 1);
}

Tensor VisionTransformer::tokens(const Tensor& images) const {
  const int64_t batch = images.size(0), side = images.size(2) / o_.patch;
  const Tensor places = position_table(side).to(images.dtype());
  const Tensor patches = patches_(images).permute({0, 2, 3, 1}).reshape({batch, side * side, o_.width}) + places.narrow(1, 1, side * side);
  const Tensor first = class_.to(images.dtype()) + places.narrow(1, 0, 1);
  std::vector<Tensor> parts{first.expand({batch, -1, -1})};
  if (o_.registers > 0) parts.push_back(registers_.to(images.dtype()).expand({batch, -1, -1}));
  parts.push_back(patches);
  return at::cat(parts, 1);
}

Tensor VisionTransformer::through_blocks(const Tensor& images, size_t depth) const {
  Tensor x = tokens(images);
  if (o_.norm_before) x = before_(x);
  const int64_t batch = x.size(0), length = x.size(1), head = o_.width / o_.heads;
  for (size_t i = 0; i < depth; ++i) {
    const Block& block = blocks_[i];
    const Tensor qkv = block.qkv(block.norm1(x)).view({batch, length, 3, o_.heads, head}).permute({2, 0, 3, 1, 4});
    const Tensor a = attention(qkv[0], qkv[1], qkv[2]).transpose(1, 2).reshape({batch, length, o_.width});
    x = block.out.onto(std::move(x), a);
    const Tensor up = block.up(block.norm2(x));
    const Tensor h = o_.activation == Activation::swiglu ? swiglu(up) : o_.activation == Activation::quick_gelu ? quick_gelu(up) : gelu(up);
    x = block.down.onto(std::move(x), h);
  }
  return x;
}

Tensor VisionTransformer::penultimate(const Tensor& images) const { return through_blocks(images, blocks_.size() - 1); }

Tensor VisionTransformer::operator()(const Tensor& images) const {
  const Tensor y = after_(through_blocks(images, blocks_.size()).select(1, 0).contiguous());
  return o_.projection > 0 ? projection_(y) : y;
}

Tensor VisionTransformer::patches(const Tensor& images) const {
  const int64_t side = images.size(2) / o_.patch, count = side * side;
  const Tensor x = through_blocks(images, blocks_.size());
  const Tensor y = after_(x.narrow(1, x.size(1) - count, count).contiguous());
  return y.transpose(1, 2).reshape({images.size(0), o_.width, side, side});
}

}  // namespace brume::nn
