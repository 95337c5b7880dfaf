// The image embeddings of CLIP (Radford et al. 2021, "Learning transferable visual models from natural language supervision"), and those of
// captions in the same space, with weights that the user has: OpenAI's ViT-*.pt, OpenCLIP's open_clip_pytorch_model.bin or
// open_clip_model.safetensors, or transformers' model.safetensors. CMMD (Jayasumana et al. 2024) is defined with ViT-L/14@336.
//
// Images are prepared as CLIP does: the smaller side is resized to the network's by Pillow's bicubic, the centre is cut out, and values
// become (value / 255 - mean) / std of CLIP's training data.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/features.h"
#include "brume/core/warnings.h"
#include "brume/files/json.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/image/image.h"
#include "brume/image/pillow_resize.h"
#include "brume/interop/layouts/open_clip.h"
#include "brume/nn/blocks/caption_conditioner.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/nn/blocks/vision_transformer.h"
#include "brume/numerics/image_quality.h"
#include "brume/text/clip_tokenizer.h"
#include "brume/text/unicode.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"

namespace brume::plugins {
namespace {

namespace fs = std::filesystem;
using nn::VisionNames;
using nn::VisionTransformerOptions;

enum class Activation { of_file, quick_gelu, gelu };

/// SHA-256 of OpenAI's files: ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336.
constexpr std::array openai{
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"};

/// Returns the JSON of a file next to the weights; null if there is no such file.
nlohmann::json neighbour(const fs::path& weights, const char* name) {
  const fs::path path = weights.parent_path() / name;
  if (!fs::is_regular_file(path)) return {};
  const nlohmann::json json = json_or_discarded(MappedFile::open(path.string())->bytes());
  if (!json.is_object()) throw ConfigError(fmt::format("{}: is no JSON object", path.string()));
  return json;
}

/// What tensors do not say.
struct Settings {
  std::optional<bool> quick_gelu;
  std::optional<int64_t> heads;
};

nlohmann::json section(const nlohmann::json& json, const char* key) {
  const auto found = json.is_object() ? json.find(key) : json.end();
  return found != json.end() && found->is_object() ? *found : nlohmann::json::object();
}
std::optional<int64_t> number(const nlohmann::json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? std::optional(found->get<int64_t>()) : std::nullopt;
}

/// Returns the file of the weights in a directory of transformers; any other path as it is. Throws ConfigError if the directory has none.
fs::path weights_in(const fs::path& path) {
  for (const char* name : {"model.safetensors", "pytorch_model.bin"})
    if (fs::is_regular_file(path / name)) return path / name;
  if (fs::is_directory(path)) throw ConfigError(fmt::format("path: {} holds no model.safetensors and no pytorch_model.bin", path.string()));
  return path;
}

/// Reads config.json of transformers, of a CLIP or of its image tower alone, or open_clip_config.json of OpenCLIP.
Settings settings_of(const fs::path& weights) {
  Settings s;
  const nlohmann::json transformers = neighbour(weights, "config.json"), open_clip = neighbour(weights, "open_clip_config.json");
  const bool alone = transformers.is_object() && transformers.value("model_type", "") == "clip_vision_model";
  if (const nlohmann::json vision = alone ? transformers : section(transformers, "vision_config"); !vision.empty()) {
    const auto act = vision.find("hidden_act");
    s.quick_gelu = act == vision.end() || *act == "quick_gelu";
    s.heads = number(vision, "num_attention_heads");
  }
  if (const nlohmann::json model = section(open_clip, "model_cfg"); !model.empty()) {
    const nlohmann::json vision = section(model, "vision_cfg");
    const auto quick = model.find("quick_gelu");
    s.quick_gelu = quick != model.end() && *quick == true;
    if (const auto width = number(vision, "width")) s.heads = *width / std::max<int64_t>(number(vision, "head_width").value_or(64), 1);
  }
  return s;
}

/// The tensors of a file: those of the image tower, and of the text tower under the names of transformers.
struct ClipFile {
  std::string path;
  NamedTensors image, text;
  Tensor text_projection;  ///< [D, width]; undefined without a text tower
  VisionNames names = VisionNames::transformers_clip;
  VisionTransformerOptions network{
      .patch = 32, .positions = 7, .width = 768, .depth = 12, .mlp = 3072, .projection = 512, .norm_before = true, .eps = 1e-5};
  bool jit_keys = false;  ///< has the numbers that only OpenAI's files have
  bool of_clip = true;    ///< has a tensor of an image tower

  explicit ClipFile(const std::string& file) : path(file) {
    NamedTensors rest;
    for (NamedTensor& t : load_tensors(file)) {
      if (t.name.starts_with("text.")) t.name.erase(0, 5);
      jit_keys |= t.name == "input_resolution";
      const bool open = t.name.starts_with("visual."), other = t.name.starts_with("vision_model.") || t.name == "visual_projection.weight";
      if (open) names = VisionNames::clip;
      if (t.name.ends_with("position_ids") || t.name == "visual.input_resolution") continue;
      (open || other ? image : rest).push_back(std::move(t));
    }
    measure();
    of_clip = !image.empty();
    if (of_clip)
      take_text(rest);
    else
      image = rest;  // all of it is listed
  }

 private:
  static int64_t size(const NamedTensors& tensors, const std::string& name, int64_t axis, int64_t otherwise) {
    const Tensor* t = find(tensors, name);
    return t && t->dim() > axis ? t->size(axis) : otherwise;
  }
  static int64_t layers(const NamedTensors& tensors, const std::string& prefix, const std::string& norm) {
    int64_t depth = 0;
    while (find(tensors, fmt::format("{}{}.{}.weight", prefix, depth, norm))) ++depth;
    return depth;
  }
  void measure() {
    const bool open = names == VisionNames::clip;
    const auto name = [&](const char* a, const char* b) { return std::string(open ? a : b); };
    const std::string block = name("visual.transformer.resblocks.", "vision_model.encoder.layers.");
    auto& n = network;
    n.width = size(image, name("visual.class_embedding", "vision_model.embeddings.class_embedding"), 0, n.width);
    n.patch = size(image, name("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"), 3, n.patch);
    const int64_t places = size(image, name("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"), 0, 50);
    for (n.positions = 1; 1 + (n.positions + 1) * (n.positions + 1) <= places;) ++n.positions;
    n.mlp = size(image, block + name("0.mlp.c_fc.weight", "0.mlp.fc1.weight"), 0, n.mlp);
    n.projection = open ? size(image, "visual.proj", 1, n.projection) : size(image, "visual_projection.weight", 0, n.projection);
    if (const int64_t depth = layers(image, block, open ? "ln_1" : "layer_norm1"); depth > 0) n.depth = depth;
  }
  void take_text(const NamedTensors& rest) {
    if (const Tensor* t = find(rest, "text_projection.weight")) text_projection = *t;
    if (const Tensor* t = find(rest, "text_projection"); t && t->dim() == 2) text_projection = t->t();
    const bool open = find(rest, "token_embedding.weight") != nullptr;
    for (const NamedTensor& t : open ? from_open_clip(rest, layers(rest, "transformer.resblocks.", "ln_1")) : rest)
      if (t.name.starts_with("text_model.")) text.push_back(t);
    if (text.empty()) text_projection = Tensor();
  }
};

/// Captions in the space of the images.
class TextTower {
 public:
  TextTower(const ClipFile& file, const fs::path& tokenizer, bool quick_gelu, at::Device device)
      : device_(device),
        tokenizer_(content(tokenizer / "vocab.json"), content(tokenizer / "merges.txt"), tokenizer.string()),
        options_(options(file, quick_gelu)),
        encoder_(unfilled(build_, options_)) {
    if (tokenizer_.size() != options_.rows)
      throw ConfigError(fmt::format("tokenizer: {} has {}, and {} has {}", tokenizer.string(), counted(tokenizer_.size(), "token"),
                                    file.path, options_.rows));
    load_weights(file.path, file.text, build_.weights());
    for (const Weight& w : build_.weights()) Tensor(w.tensor).set_data(w.tensor.to(device));
    projection_ = {file.text_projection.to(device, at::kFloat).contiguous(), {}, std::make_shared<nn::PackedWeight>()};
  }

  Tensor operator()(const std::vector<std::string>& captions, at::ScalarType dtype) const {
    std::vector<int64_t> ids, ends;
    for (const std::string& caption : captions) {
      std::vector<int64_t> tokens = tokenizer_.encode(text::composed(caption));
      const size_t room = size_t(options_.length - 2);
      if (tokens.size() > room) {
        cut_.warn(fmt::format("'{}'", caption), fmt::format("'{}'", tokenizer_.decode({tokens.begin() + int64_t(room), tokens.end()})),
                  options_.length);
        tokens.resize(room);
      }
      ids.push_back(tokenizer_.begin());
      ids.insert(ids.end(), tokens.begin(), tokens.end());
      ends.push_back(int64_t(ids.size()));
      ids.push_back(tokenizer_.end());
      ids.resize(size_t(int64_t(ends.size()) * options_.length), tokenizer_.padding());
    }
    const Tensor rows = at::tensor(ids).view({-1, options_.length}).to(device_);
    const Tensor y = encoder_(rows, {.keys = {}, .causal = true}, dtype).reshape({-1, options_.width});
    return projection_(y.index_select(0, at::tensor(ends).to(device_))).to(at::kCPU, at::kFloat).contiguous();
  }

 private:
  static nn::TextEncoder unfilled(const nn::Builder& build, const nn::TextEncoderOptions& options) {
    const nn::SkipInit follow;
    return {build["text_model"], options};
  }
  static std::string content(const fs::path& path) { return std::string(MappedFile::open(path.string())->bytes()); }
  static nn::TextEncoderOptions options(const ClipFile& file, bool quick_gelu) {
    const auto size = [&](const char* name, int64_t axis) {
      const Tensor* t = find(file.text, std::string("text_model.") + name);
      if (!t || t->dim() != 2) throw ConfigError(fmt::format("{}: lacks the tensor 'text_model.{}'", file.path, name));
      return t->size(axis);
    };
    nn::TextEncoderOptions o;
    o.rows = size("embeddings.token_embedding.weight", 0), o.width = size("embeddings.token_embedding.weight", 1);
    o.length = size("embeddings.position_embedding.weight", 0), o.mlp = size("encoder.layers.0.mlp.fc1.weight", 0);
    while (find(file.text, fmt::format("text_model.encoder.layers.{}.layer_norm1.weight", o.depth))) ++o.depth;
    o.heads = std::max<int64_t>(o.width / 64, 1), o.quick_gelu = quick_gelu;
    const bool fits = file.text_projection.defined() && file.text_projection.dim() == 2 && file.text_projection.size(1) == o.width &&
                      file.text_projection.size(0) == file.network.projection;
    if (!fits || o.width % o.heads != 0 || o.length < 3)
      throw ConfigError(fmt::format("{}: its text tower of width {} has no projection to the {} of its images", file.path, o.width,
                                    counted(file.network.projection, "feature")));
    return o;
  }

  at::Device device_;
  text::ClipTokenizer tokenizer_;
  nn::TextEncoderOptions options_;
  nn::Builder build_{0};
  nn::TextEncoder encoder_;
  nn::Linear projection_;
  nn::CutPrompts cut_;
};

class ClipImageFeatures final : public Features {
 public:
  struct Options {
    fs::path path, tokenizer;
    Activation activation = Activation::of_file;
    std::optional<int64_t> heads;
    void declare(Fields& f) {
      f.field("path", path, "the weights: OpenAI's ViT-L-14.pt, OpenCLIP's file, or transformers' model.safetensors or its directory");
      f.field("tokenizer", tokenizer, "for clip_score: a folder with vocab.json and merges.txt");
      f.choice("activation", activation,
               "quick_gelu (OpenAI's networks), gelu (most of OpenCLIP's); of_file: as its hash or the config.json next to it says",
               {{"of_file", Activation::of_file}, {"quick_gelu", Activation::quick_gelu}, {"gelu", Activation::gelu}});
      f.field("heads", heads, "attention heads of the image tower; as the published networks of its width if absent", within(1, 1024));
    }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the file of the weights is missing (ViT-L-14.pt, or model.safetensors of a CLIP)");
  }
  ClipImageFeatures(const Options& o, const Context& context) : ClipImageFeatures(o, context, weights_in(o.path)) {}

  std::string name() const override { return "clip_image " + o_.path.string(); }
  std::string hash() const override { return hash_; }
  at::ScalarType dtype() const override { return dtype_; }
  ImageShape input() const override { return {3, 0, 0}; }
  std::string preprocessing() const override {
    return fmt::format("rounded to 8 bits, the smaller side resized to {0}, bicubic, as Pillow does, and the centre of {0}x{0} cut out",
                       side());
  }
  int64_t width() const override { return network_options_.projection; }
  bool reads_captions() const override { return text_ != nullptr; }

  int64_t patch_width() const override { return network_options_.width; }

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
  Tensor tokens(const Tensor& images) const override {
    const at::NoGradGuard no_grad;
    const Tensor normalised = images.defined() ? prepared(images) : at::zeros({1, 3, side(), side()});
    return network_.penultimate(normalised.to(device_, dtype_)).to(at::kCPU, at::kFloat).contiguous();
  }
  Tensor embed(const std::vector<std::string>& captions) const override {
    const at::NoGradGuard no_grad;
    return text_ ? (*text_)(captions, dtype_) : Tensor();
  }

 private:
  static void expect_images(const Tensor& images) {
    if (images.dim() != 4 || images.size(1) != 3)
      throw ConfigError(fmt::format("clip_image takes images of 3 channels, not {}", images.dim() == 4 ? images.size(1) : 0));
  }

  ClipImageFeatures(Options o, const Context& context, const fs::path& weights)
      : ClipImageFeatures((o.path = weights, o), context, ClipFile(weights.string()), sha256(MappedFile::open(weights.string())->bytes())) {
  }
  ClipImageFeatures(const Options& o, const Context& context, const ClipFile& file, const std::string& hash)
      : o_(o),
        device_(context.device),
        dtype_(context.dtype),
        hash_(hash),
        network_options_(settled(o, file, hash)),
        network_(read(file, network_options_, context.device)) {
    if (o.tokenizer.empty()) return;
    if (file.text.empty()) throw ConfigError(fmt::format("tokenizer: {} has no text tower", o.path.string()));
    const bool quick_gelu = network_options_.activation == VisionTransformerOptions::Activation::quick_gelu;
    text_ = std::make_unique<const TextTower>(file, o.tokenizer, quick_gelu, device_);
  }

  /// Returns the options of the image tower, with what its tensors do not say.
  static VisionTransformerOptions settled(const Options& o, const ClipFile& file, const std::string& hash) {
    VisionTransformerOptions n = file.network;
    const Settings stored = settings_of(o.path);
    const bool known = std::find(openai.begin(), openai.end(), hash) != openai.end();
    const bool large = n.width >= 1280;  // ViT-H, ViT-g and ViT-bigG are OpenCLIP's
    std::optional<bool> quick = stored.quick_gelu;
    if (known || file.jit_keys) quick = true;
    if (!quick && (large || !file.of_clip)) quick = false;  // what is no CLIP is refused by its tensors
    if (o.activation != Activation::of_file) quick = o.activation == Activation::quick_gelu;
    if (!quick)
      throw ConfigError(fmt::format(
          "activation: {} does not say whether its network was trained with quick_gelu (OpenAI's) or gelu (most of OpenCLIP's); "
          "name one",
          o.path.string()));
    n.activation = *quick ? VisionTransformerOptions::Activation::quick_gelu : VisionTransformerOptions::Activation::gelu;
    n.heads = o.heads.value_or(stored.heads.value_or(large ? 16 : std::max<int64_t>(n.width / 64, 1)));
    if (n.heads < 1 || n.width % n.heads != 0)
      throw ConfigError(fmt::format("heads: {} do not divide the width {} of {}", n.heads, n.width, o.path.string()));
    return n;
  }
  static nn::VisionTransformer read(const ClipFile& file, const VisionTransformerOptions& network, at::Device device) {
    const std::vector<Weight> weights = nn::VisionTransformer::layout(network, file.names);
    load_weights(file.path, file.image, weights);
    return {network, file.names, weights, device};
  }

  int64_t side() const { return network_options_.positions * network_options_.patch; }
  /// images: [B, 3, H, W] in [-1, 1]; returns [B, 3, side, side] float32, normalised.
  Tensor prepared(const Tensor& images) const {
    std::vector<Tensor> all;
    for (int64_t i = 0; i < images.size(0); ++i) all.push_back(cropped(to_image(images[i])));
    const auto row = [](std::vector<float> v) { return at::tensor(v).view({1, 3, 1, 1}); };
    return (at::stack(all) / 255 - row({0.48145466f, 0.4578275f, 0.40821073f})) / row({0.26862954f, 0.26130258f, 0.27577711f});
  }
  /// Returns [3, side, side] float32, 0 to 255.
  Tensor cropped(const Image& image) const {
    const int64_t shorter = std::min(image.height, image.width), n = side();
    const auto scaled = [&](int64_t length) { return length == shorter ? n : n * length / shorter; };
    const Image resized = shorter == n ? image : resize_as_pillow(image, scaled(image.height), scaled(image.width));
    // Half of an odd margin is rounded to an even number, as Python's round() does.
    const auto margin = [&](int64_t length) { return int64_t(std::nearbyint(double(length - n) / 2)); };
    const Tensor values = byte_values(to_tensor(resized)).to(at::kFloat);
    return values.narrow(1, margin(resized.height), n).narrow(2, margin(resized.width), n).contiguous();
  }

  Options o_;
  at::Device device_;
  at::ScalarType dtype_;
  std::string hash_;
  VisionTransformerOptions network_options_;
  nn::VisionTransformer network_;
  std::unique_ptr<const TextTower> text_;
};

}  // namespace

void register_feature_clip_image(Registry& r) {
  r.add<Features, ClipImageFeatures>("clip_image", "the embeddings of CLIP, with the user's own weights");
}

}  // namespace brume::plugins
