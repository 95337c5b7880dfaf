// IP-Adapter (Ye et al. 2023, "IP-Adapter: Text compatible image prompt adapter for text-to-image diffusion models", sec. 3.2, eq. 4 to 6):
// an image as a prompt. Every attention to the words' tokens has a second one, to tokens c made of CLIP's view of the image.
//
//   attention(q, k, v) + scale attention(q, c W'_k, c W'_v)
//
// c, of T tokens:  plain: norm(W e), e the image's embedding;  full: norm(W2 gelu(W1 h)), h the tokens that CLIP's last block receives;
// plus: T learned latents z that look at h (Alayrac et al. 2022, sec. 3.1.1): z += attention(z, [h; z]);  z += mlp(z), `depth` times. The
// unconditional estimate has e = 0, and h of an image of the mean colour. Keys and values are computed once per run.
//
// Reads the published .bin and .safetensors files of SD 1 and SDXL: image_proj.*, ip_adapter.{1,3,...}.to_k_ip and to_v_ip, numbered as
// diffusers numbers attentions: encoder, decoder, middle.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/registry.h"
#include "brume/core/features.h"
#include "brume/core/image_prompt.h"
#include "brume/interop/control_file.h"
#include "brume/interop/lora_strength.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/blocks/tapped_attention.h"
#include "brume/nn/ops/ops.h"

namespace brume::plugins {
namespace {

/// The layers of a file, in float32.
class Layers {
 public:
  Layers(const std::string& path, at::Device device) : file(control_tensors(path)), device_(device) { expect_control(file, "ip_adapter"); }
  bool has(const std::string& name) const { return find(file.tensors, name) != nullptr; }
  Tensor tensor(const std::string& name) {
    const Tensor* t = find(file.tensors, name);
    if (!t) throw ConfigError(fmt::format("{}: lacks the tensor '{}'", file.source, name));
    taken_.insert(name);
    return t->to(device_, at::kFloat).contiguous();
  }
  nn::Linear linear(const std::string& name) {
    return {matrix(name + ".weight"), has(name + ".bias") ? tensor(name + ".bias") : Tensor(), std::make_shared<nn::PackedWeight>()};
  }
  nn::LayerNorm norm(const std::string& name) { return {tensor(name + ".weight"), tensor(name + ".bias")}; }
  void expect_all_taken() const {
    std::vector<std::string> rest;
    for (const NamedTensor& t : file.tensors)
      if (!taken_.contains(t.name)) rest.push_back(t.name);
    if (rest.empty()) return;
    const size_t more = rest.size() > 8 ? rest.size() - 8 : 0;
    rest.resize(rest.size() - more);
    throw ConfigError(fmt::format("{}: no IP-Adapter that is read (plain, plus, full) has the tensors {}{}", file.source,
                                  fmt::join(rest, ", "), more > 0 ? fmt::format(" and {} more", more) : ""));
  }

  ControlTensors file;

 private:
  Tensor matrix(const std::string& name) {
    Tensor t = tensor(name);
    if (t.dim() != 2) throw ConfigError(fmt::format("{}: '{}' has {} instead of 2", file.source, name, counted(t.dim(), "dimension")));
    return t;
  }
  at::Device device_;
  std::set<std::string> taken_;
};

/// What makes the tokens of an image, [N, T, W].
class Projection {
 public:
  virtual ~Projection() = default;
  virtual bool of_tokens() const { return true; }  ///< of CLIP's tokens [N, L, width()], else of its embedding [N, width()]
  virtual int64_t width() const = 0;
  virtual Tensor operator()(const Tensor& seen) const = 0;
};

class Plain final : public Projection {
 public:
  explicit Plain(Layers& l) : proj_(l.linear("image_proj.proj")), norm_(l.norm("image_proj.norm")) {
    if (proj_.weight.size(0) % norm_.weight.size(0) != 0)
      throw ConfigError(fmt::format("{}: image_proj.proj has {}, and a token {}", l.file.source, counted(proj_.weight.size(0), "row"),
                                    norm_.weight.size(0)));
  }
  bool of_tokens() const override { return false; }
  int64_t width() const override { return proj_.weight.size(1); }
  Tensor operator()(const Tensor& e) const override { return norm_(proj_(e).view({e.size(0), -1, norm_.weight.size(0)})); }

 private:
  nn::Linear proj_;
  nn::LayerNorm norm_;
};

class Full final : public Projection {
 public:
  explicit Full(Layers& l) : in_(l.linear("image_proj.proj.0")), out_(l.linear("image_proj.proj.2")), norm_(l.norm("image_proj.proj.3")) {}
  int64_t width() const override { return in_.weight.size(1); }
  Tensor operator()(const Tensor& h) const override { return norm_(out_(nn::gelu(in_(h)))); }

 private:
  nn::Linear in_, out_;
  nn::LayerNorm norm_;
};

/// Of `plus`; heads of width 64.
class Resampler final : public Projection {
 public:
  explicit Resampler(Layers& l)
      : latents_(l.tensor("image_proj.latents")),
        in_(l.linear("image_proj.proj_in")),
        out_(l.linear("image_proj.proj_out")),
        norm_(l.norm("image_proj.norm_out")) {
    for (int64_t i = 0; l.has(fmt::format("image_proj.layers.{}.0.to_q.weight", i)); ++i) {
      const std::string a = fmt::format("image_proj.layers.{}.0.", i), f = fmt::format("image_proj.layers.{}.1.", i);
      blocks_.push_back({l.norm(a + "norm1"), l.norm(a + "norm2"), l.norm(f + "0"), l.linear(a + "to_q"), l.linear(a + "to_kv"),
                         l.linear(a + "to_out"), l.linear(f + "1"), l.linear(f + "3")});
      if (const int64_t rows = blocks_.back().q.weight.size(0); rows % head != 0)
        throw ConfigError(fmt::format("{}: {}to_q has {}, and heads have the width {}", l.file.source, a, counted(rows, "row"), head));
    }
  }
  int64_t width() const override { return in_.weight.size(1); }
  Tensor operator()(const Tensor& h) const override {
    const Tensor x = in_(h);
    Tensor z = latents_.expand({x.size(0), -1, -1}).contiguous();
    for (const Block& b : blocks_) {
      const Tensor own = b.of_latents(z);
      const std::vector<Tensor> kv = b.kv(at::cat({b.of_image(x), own}, 1)).chunk(2, -1);
      const auto heads = [&](const Tensor& t) { return nn::split_heads(t.contiguous(), t.size(2) / head); };
      z = b.out.onto(std::move(z), nn::merge_heads(nn::attention(heads(b.q(own)), heads(kv[0]), heads(kv[1]))));
      const Tensor wide = nn::gelu(b.up(b.before(z)));
      z = b.down.onto(std::move(z), wide);
    }
    return norm_(out_(z));
  }

 private:
  static constexpr int64_t head = 64;
  struct Block {
    nn::LayerNorm of_image, of_latents, before;
    nn::Linear q, kv, out, up, down;
  };
  Tensor latents_;
  nn::Linear in_, out_;
  nn::LayerNorm norm_;
  std::vector<Block> blocks_;
};

std::unique_ptr<const Projection> projection_of(Layers& l) {
  if (l.has("image_proj.latents")) return std::make_unique<Resampler>(l);
  if (l.has("image_proj.proj.0.weight")) return std::make_unique<Full>(l);
  return std::make_unique<Plain>(l);
}

/// Returns the network's attentions to tokens in diffusers' order.
std::vector<std::string> attentions_of(const Network& network) {
  std::vector<std::string> all;
  const std::vector<std::string> names = network.tap_points().attention;
  for (const char* part : {"input_blocks.", "output_blocks.", "middle_block."})
    for (const std::string& name : names)
      if (name.starts_with(part) && name.ends_with(".attn2")) all.push_back(name);
  return all;
}

struct IPOptions : ControlSettings {
  Deferred<Features> encoder;
  std::map<std::string, std::string> layers;
  void declare(Fields& f) {
    ControlSettings::declare(f);
    f.field("encoder", encoder, "the CLIP that sees the image: {type: clip_image, path: FILE}", "clip_image");
    f.field("layers", layers, "strengths of parts of the network, times `scale`: down, mid, up, in4, out5");
  }
};

class OpenIPAdapter final : public OpenImagePrompt {
 public:
  OpenIPAdapter(const IPOptions& o, const ControlledModel& model) : source_(o.file), device_(model.device), encoder_(o.encoder) {
    Layers file(o.file, model.device);
    if (file.has("ip_adapter.0.to_q_lora.down.weight"))
      throw ConfigError(fmt::format(
          "{}: is an IP-Adapter of faces (FaceID), which sees the embedding of a face by InsightFace; plain, plus and full ones are read",
          source_));
    if (file.has("ip_adapter.1.to_k_ip.weight"))
      check_generation(file.file, "IP-Adapter", find(file.file.tensors, "ip_adapter.1.to_k_ip.weight")->size(-1), model.context_width);
    projection_ = projection_of(file);
    read_attentions(file, model.network);
    file.expect_all_taken();
    scale_parts(o.layers);
    try {
      encoder_.check({});
    } catch (const ConfigError& e) {
      refuse_encoder(e);
    }
  }

  /// Returns [N + 1, T, C], keys and values in turn.
  std::vector<Tensor> encode(const Tensor& images) const override {
    const at::NoGradGuard no_grad;
    const Tensor tokens = (*projection_)(seen(images * 2 - 1).to(device_));
    if (const int64_t width = layers_.front().k.weight.size(1); tokens.size(-1) != width)
      throw ConfigError(fmt::format("{}: makes tokens of width {}, and its attentions take {}", source_, tokens.size(-1), width));
    std::vector<Tensor> all;
    for (const Layer& layer : layers_) all.push_back(layer.k(tokens)), all.push_back(layer.v(tokens));
    return all;
  }

  void add_to(Taps& taps, const ControlledCall& call) const override {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const double scale = call.scale * layers_[i].scale;
      if (scale == 0) continue;
      Taps::Attention& tap = taps.attention[layers_[i].name];
      tap = [before = tap, keys = call.control[2 * i], values = call.control[2 * i + 1], scale, hidden = call.condition.context_mask,
             mask = call.mask, h = call.input.size(2), w = call.input.size(3)](const Tensor& q, const Tensor& k, const Tensor& v) {
        const Tensor words = before ? before(q, k, v) : nn::attention(q, k, v, {hidden});
        const auto heads = [&](const Tensor& t) { return nn::split_heads(t.to(q.scalar_type()), q.size(1)); };
        Tensor image = nn::attention(q, heads(keys), heads(values)) * scale;
        if (mask.defined()) image = image * places(mask, q.size(2), h, w).to(q.scalar_type());
        return words + image;
      };
    }
  }

 private:
  struct Layer {
    std::string name;
    nn::Linear k, v;
    double scale = 1;
  };

  void read_attentions(Layers& file, const Network& network) {
    const std::vector<std::string> names = attentions_of(network);
    if (names.empty()) throw ConfigError(fmt::format("{}: the model's network attends to no words as a unet does", source_));
    std::map<std::string, int64_t> widths;
    for (const Weight& w : network.weights())
      if (w.name.ends_with(".attn2.to_k.weight")) widths[w.name] = w.tensor.size(0);
    int64_t count = 0;
    while (file.has(fmt::format("ip_adapter.{}.to_k_ip.weight", 2 * count + 1))) ++count;
    if (count != std::ssize(names))
      throw ConfigError(fmt::format("{}: is for {} attentions to words, and the model has {}; it is of another generation of models",
                                    source_, count, names.size()));
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string layer = fmt::format("ip_adapter.{}.", 2 * i + 1);
      layers_.push_back({names[i], file.linear(layer + "to_k_ip"), file.linear(layer + "to_v_ip")});
      if (const int64_t width = widths[names[i] + ".to_k.weight"]; layers_[i].k.weight.size(0) != width)
        throw ConfigError(fmt::format("{}: '{}to_k_ip' has {}, and the model's {} has {}; it is of another model", source_, layer,
                                      counted(layers_[i].k.weight.size(0), "row"), names[i], width));
    }
  }

  void scale_parts(const std::map<std::string, std::string>& parts) {
    std::set<std::string> known;
    for (Layer& layer : layers_)
      for (const std::string& part : lora_parts("network." + layer.name)) {  // the narrowest is the last
        known.insert(part);
        const auto asked = parts.find(part);
        if (asked == parts.end()) continue;
        const auto scale = parse_number<double>(asked->second);
        if (!scale) throw ConfigError(fmt::format("layers: {} = '{}' is no number", part, asked->second));
        layer.scale = *scale;
      }
    for (const auto& [part, _] : parts)
      if (!known.contains(part))
        throw ConfigError(fmt::format("layers: no attention to words is in '{}'; the parts are {}", part, fmt::join(known, ", ")));
  }

  /// Returns which image encoder the file was trained with, and where it usually is.
  std::string wanted_encoder() const {
    const int64_t width = projection_->width();
    const bool tokens = projection_->of_tokens();
    std::string which = fmt::format("a CLIP whose {} have the width {}", tokens ? "tokens" : "embeddings", width);
    if (width == (tokens ? 1280 : 1024)) which = "OpenCLIP's ViT-H-14, usually in models/image_encoder next to the IP-Adapters of SD 1";
    if (width == (tokens ? 1664 : 1280)) which = "OpenCLIP's ViT-bigG-14, usually in sdxl_models/image_encoder next to those of SDXL";
    if (width == (tokens ? 1024 : 768)) which = "OpenAI's ViT-L-14";
    return which + "; `encoder: {type: clip_image, path: FILE}` names it";
  }
  [[noreturn]] void refuse_encoder(const ConfigError& reason) const {
    std::vector<Problem> problems = reason.problems();
    problems.insert(problems.begin(), {{}, "", fmt::format("{}: needs its image encoder, {}", source_, wanted_encoder())});
    throw ConfigError(std::move(problems));
  }
  [[noreturn]] void refuse_encoder(int64_t width) const {
    throw ConfigError(fmt::format("{}: the image encoder's {} have the width {}, and it was trained with {}", source_,
                                  projection_->of_tokens() ? "tokens" : "embeddings", width, wanted_encoder()));
  }

  std::shared_ptr<const Features> opened_encoder() const try {
    return encoder_.make({.classifier = {}, .device = device_, .dtype = at::kFloat});
  } catch (const ConfigError& e) {
    refuse_encoder(e);
  }

  /// Returns what CLIP sees of images in [-1, 1], and of none in the last row. The CLIP is let go afterwards.
  Tensor seen(const Tensor& images) const {
    const std::shared_ptr<const Features> encoder = opened_encoder();
    const auto fitting = [&](const Tensor& t) {
      if (!t.defined()) throw ConfigError(fmt::format("{}: its encoder gives no tokens; clip_image does", source_));
      if (t.size(-1) != projection_->width()) refuse_encoder(t.size(-1));
      return t;
    };
    if (projection_->of_tokens()) return at::cat({fitting(encoder->tokens(images)), fitting(encoder->tokens({}))});
    return at::cat({fitting(encoder->extract(images).features), at::zeros({1, projection_->width()})});
  }

  /// Returns [1, 1, N, 1] of a mask, for the N places of a level of x, of height h and width w.
  static Tensor places(const Tensor& mask, int64_t n, int64_t h, int64_t w) {
    while (h * w > n) h = (h + 1) / 2, w = (w + 1) / 2;
    return at::adaptive_avg_pool2d(mask, {h, w}).view({-1, 1, h * w, 1});
  }

  std::string source_;
  at::Device device_;
  Deferred<Features> encoder_;
  std::unique_ptr<const Projection> projection_;
  std::vector<Layer> layers_;
};

class IPAdapter final : public Control {
 public:
  using Options = IPOptions;
  explicit IPAdapter(const Options& o) : o_(o) {}
  const ControlSettings& settings() const override { return o_; }
  std::shared_ptr<const OpenControl> open(const ControlledModel& model) const override {
    return std::make_shared<OpenIPAdapter>(o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_control_ip_adapter(Registry& r) {
  r.add<Control, IPAdapter>("ip_adapter", "an image as a prompt: attention to what CLIP sees in it (IP-Adapter: plain, plus, full)");
}

}  // namespace brume::plugins
