// The features of DINOv2 (Oquab et al. 2023, "DINOv2: learning robust visual features without supervision"), with or without registers
// (Darcet et al. 2023), with weights that the user has: dinov2_vit{s,b,l,g}14_pretrain.pth or dinov2_vit…14_reg4_pretrain.pth of
// torch.hub, or model.safetensors of transformers. The Fréchet distance of those of ViT-L/14 is FD-DINOv2 (Stein et al. 2023, "Exposing
// flaws of generative model evaluation metrics and their unfair treatment of diffusion models").
//
// Images are resized to 224x224 without keeping their proportions, in one of two ways that give different scores. `edm2`: antialiased
// bicubic interpolation in float32, without rounding. `dgm_eval`: Pillow's, rounded to 8 bits. Then (value / 255 - mean) / std of ImageNet.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/features.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/image/image.h"
#include "brume/image/pillow_resize.h"
#include "brume/nn/blocks/vision_transformer.h"
#include "brume/numerics/image_quality.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"

namespace brume::plugins {
namespace {

using nn::VisionNames;
using nn::VisionTransformerOptions;

/// The tensors of a file that the network takes, and what they say of it.
struct Dinov2File {
  NamedTensors tensors;
  VisionNames names = VisionNames::dinov2;
  VisionTransformerOptions network{.width = 768, .depth = 12, .mlp = 3072, .patch_bias = true};

  explicit Dinov2File(const std::string& path) {
    for (NamedTensor& t : load_tensors(path)) {
      if (t.name.starts_with("dinov2.")) t.name.erase(0, 7);
      const bool trained_with = t.name == "mask_token" || t.name == "embeddings.mask_token" || t.name.starts_with("classifier.");
      if (!trained_with) tensors.push_back(std::move(t));
    }
    const bool transformers = find(tensors, "embeddings.cls_token") != nullptr;
    if (transformers) names = VisionNames::transformers_dinov2;
    const auto name = [&](const char* hub, const char* other) { return std::string(transformers ? other : hub); };
    const std::string block = name("blocks.", "encoder.layer.");
    const auto size = [&](const std::string& tensor, int64_t axis, int64_t otherwise) {
      const Tensor* t = find(tensors, tensor);
      return t && t->dim() > axis ? t->size(axis) : otherwise;
    };
    auto& n = network;
    n.width = size(name("cls_token", "embeddings.cls_token"), 2, n.width);
    n.patch = size(name("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"), 3, n.patch);
    const int64_t places = size(name("pos_embed", "embeddings.position_embeddings"), 1, 1370);
    for (n.positions = 1; 1 + (n.positions + 1) * (n.positions + 1) <= places;) ++n.positions;
    n.registers = size(name("register_tokens", "embeddings.register_tokens"), 1, 0);
    if (n.registers > 0) n.resizing = VisionTransformerOptions::Positions::antialiased;
    n.layer_scale = find(tensors, block + name("0.ls1.gamma", "0.layer_scale1.lambda1")) != nullptr;
    const int64_t gated = size(block + name("0.mlp.w12.weight", "0.mlp.weights_in.weight"), 0, 0);
    if (gated > 0) n.activation = VisionTransformerOptions::Activation::swiglu;
    n.mlp = gated > 0 ? gated / 2 : size(block + "0.mlp.fc1.weight", 0, n.mlp);
    int64_t depth = 0;
    while (find(tensors, fmt::format("{}{}.norm1.weight", block, depth))) ++depth;
    if (depth > 0) n.depth = depth;
  }
};

class Dinov2Features final : public Features {
 public:
  enum class Resize { edm2, dgm_eval };
  struct Options {
    std::filesystem::path path;
    Resize resize = Resize::edm2;
    std::optional<int64_t> heads;
    int64_t size = 224;
    void declare(Fields& f) {
      f.field("path", path, "file of the weights: dinov2_vitl14_pretrain.pth and its like, or transformers' model.safetensors");
      f.choice("resize", resize, "whose resizing: edm2 (antialiased, float32) or dgm_eval (Pillow's, 8 bits)",
               {{"edm2", Resize::edm2}, {"dgm_eval", Resize::dgm_eval}});
      f.field("size", size, "pixels per side that images are resized to, a multiple of the patch of 14", within(14, 4096));
      f.field("heads", heads, "attention heads; one per 64 channels if absent, as in the published networks", within(1, 1024));
    }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the file of the weights is missing (dinov2_vitl14_pretrain.pth)");
  }
  Dinov2Features(const Options& o, const Context& context)
      : o_(o), device_(context.device), dtype_(context.dtype), network_(read(o, device_, width_)) {
    hash_ = sha256(MappedFile::open(o.path.string())->bytes());
  }

  std::string name() const override { return "dinov2 " + o_.path.string(); }
  std::string hash() const override { return hash_; }
  at::ScalarType dtype() const override { return dtype_; }
  std::string frechet_name() const override { return "fd_dinov2"; }
  ImageShape input() const override { return {3, 0, 0}; }
  std::string preprocessing() const override {
    return fmt::format("rounded to 8 bits, resized to {0}x{0}, bicubic and antialiased, as {1}", o_.size,
                       o_.resize == Resize::edm2 ? "EDM2 does" : "dgm-eval does with Pillow");
  }
  int64_t width() const override { return width_; }

  int64_t patch_width() const override { return width_; }

  Output extract(const Tensor& images) const override {
    expect_images(images);
    const at::NoGradGuard no_grad;
    return {network_(prepared(images).to(device_, dtype_)).to(at::kCPU, at::kFloat).contiguous(), {}};
  }
  Tensor patches(const Tensor& images) const override {
    expect_images(images);
    const at::NoGradGuard no_grad;
    return network_.patches(prepared(images).to(device_, dtype_)).to(at::kCPU, at::kFloat).contiguous();
  }

 private:
  static void expect_images(const Tensor& images) {
    if (images.dim() != 4 || images.size(1) != 3)
      throw ConfigError(fmt::format("dinov2 takes images of 3 channels, not {}", images.dim() == 4 ? images.size(1) : 0));
  }
  static nn::VisionTransformer read(const Options& o, at::Device device, int64_t& width) {
    Dinov2File file(o.path.string());
    const std::vector<Weight> weights = nn::VisionTransformer::layout(file.network, file.names);
    load_weights(o.path.string(), file.tensors, weights);
    auto& n = file.network;
    n.heads = o.heads.value_or(std::max<int64_t>(n.width / 64, 1));
    if (n.width % n.heads != 0)
      throw ConfigError(fmt::format("heads: {} do not divide the width {} of {}", n.heads, n.width, o.path.string()));
    if (o.size % n.patch != 0)
      throw ConfigError(fmt::format("size: {} is no multiple of the patch of {}", o.size, counted(n.patch, "pixel")));
    width = n.width;
    return {n, file.names, weights, device};
  }

  /// images: [B, 3, H, W] in [-1, 1]; returns [B, 3, size, size] float32, normalised.
  Tensor prepared(const Tensor& images) const {
    const auto row = [](std::vector<float> v) { return at::tensor(v).view({1, 3, 1, 1}); };
    return (resized(byte_values(images).cpu()) / 255 - row({0.485f, 0.456f, 0.406f})) / row({0.229f, 0.224f, 0.225f});
  }
  /// bytes: [B, 3, H, W]; returns [B, 3, size, size] float32, 0 to 255.
  Tensor resized(const Tensor& bytes) const {
    const Tensor values = bytes.to(at::kFloat).contiguous();
    if (o_.resize == Resize::edm2) return at::_upsample_bicubic2d_aa(values, {o_.size, o_.size}, false);
    std::vector<Tensor> all;
    for (int64_t i = 0; i < values.size(0); ++i)
      all.push_back(byte_values(to_tensor(resize_as_pillow(to_image(values[i] / 127.5 - 1), o_.size, o_.size))));
    return at::stack(all).to(at::kFloat);
  }

  Options o_;
  at::Device device_;
  at::ScalarType dtype_;
  int64_t width_ = 0;
  nn::VisionTransformer network_;
  std::string hash_;
};

}  // namespace

void register_feature_dinov2(Registry& r) {
  r.add<Features, Dinov2Features>("dinov2", "the features of DINOv2, with the user's own weights");
}

}  // namespace brume::plugins
