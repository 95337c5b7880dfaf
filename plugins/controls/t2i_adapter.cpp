// T2I-Adapter (Mou et al. 2023, "T2I-Adapter: Learning adapters to dig out more controllable ability for text-to-image diffusion models",
// sec. 3.3, eq. 2 and 3): a small network makes features of the image once, and each is added to the encoder's features of its size.
//
//   F_1 = R_1(conv(unshuffle(image)));  F_i = R_i(half(F_{i-1}));  h_i += scale F_i
//
// R: residual blocks conv2(relu(conv1(x))) + x; `light` has them between two 1x1 convolutions. h_i is the output of the last block of a
// level that attends to tokens, of the downsampler of one that does not (SDXL's first); a feature more is for the middle block. So the
// U-Net says where the features are halved: SD 1 and 2 before each level, SDXL before the third feature.
//
// Reads files with TencentARC's names and directories and files of diffusers: full, full_xl and light.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/pixel_unshuffle.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/control.h"
#include "brume/core/control_branch.h"
#include "brume/core/warnings.h"
#include "brume/interop/control_file.h"
#include "brume/interop/layouts/diffusers_unet.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/ops.h"

namespace brume::plugins {
namespace {

/// A layer without a weight is absent.
struct ResidualBlock {
  nn::Conv2d in, one, two, skip;
};
struct Level {
  nn::Conv2d down, in, out;
  std::vector<ResidualBlock> blocks;
  int64_t channels = 0;
  bool halved = false;
};

/// The layers of a file.
struct AdapterFile {
  explicit AdapterFile(const std::string& path, at::Device device) : file(control_tensors(path)), device_(device) {
    expect_control(file, "t2i_adapter");
    light = has("body.0.out_conv");
    const bool grouped = light || has("body.0.resnets.0.block1");
    input = optional("conv_in");
    if (grouped)
      for (int64_t i = 0; below(fmt::format("body.{}.", i)); ++i) levels.push_back(level_of_blocks(fmt::format("body.{}", i)));
    else
      read_flat();
    if (levels.empty() || light == input.weight.defined()) refuse_control(file, "T2I-Adapter");
    std::vector<std::string> rest;
    for (const NamedTensor& t : file.tensors)
      if (!taken_.contains(t.name)) rest.push_back(t.name);
    if (!rest.empty()) throw ConfigError(fmt::format("{}: a T2I-Adapter has no tensors {}", path, fmt::join(rest, ", ")));
  }

  /// Returns the channels of an image and the factor by which pixels are laid into channels; {0, 0} if they cannot be told.
  std::pair<int64_t, int64_t> image() const {
    const int64_t width = (input.weight.defined() ? input : levels.front().in).weight.size(1);
    for (const int64_t channels : {3, 1})
      for (int64_t factor = 1; factor <= 64; factor *= 2)
        if (channels * factor * factor == width) return {channels, factor};
    return {0, 0};
  }

  ControlTensors file;
  bool light = false;
  nn::Conv2d input;
  std::vector<Level> levels;

 private:
  bool has(const std::string& layer) const { return find(file.tensors, layer + ".weight") != nullptr; }
  bool below(const std::string& prefix) const {
    for (const NamedTensor& t : file.tensors)
      if (t.name.starts_with(prefix)) return true;
    return false;
  }
  nn::Conv2d optional(const std::string& name, int64_t stride = 1) {
    const Tensor* weight = find(file.tensors, name + ".weight");
    if (!weight) return {};
    const Tensor* bias = find(file.tensors, name + ".bias");
    if (weight->dim() != 4) throw ConfigError(fmt::format("{}: '{}' is no convolution", file.source, name));
    taken_.insert(name + ".weight");
    if (bias) taken_.insert(name + ".bias");
    const auto ready = [&](const Tensor& t) { return t.to(device_, at::kFloat); };
    return {ready(*weight).contiguous(at::MemoryFormat::ChannelsLast), bias ? ready(*bias).contiguous() : Tensor(), stride,
            weight->size(2) / 2, std::make_shared<nn::PackedWeight>()};
  }
  nn::Conv2d layer(const std::string& name) {
    if (!has(name)) throw ConfigError(fmt::format("{}: lacks the tensor '{}.weight'", file.source, name));
    return optional(name);
  }
  ResidualBlock block(const std::string& name) {
    return {optional(name + ".in_conv"), layer(name + ".block1"), layer(name + ".block2"), optional(name + ".skep")};
  }
  /// Returns diffusers' blocks of a level, and those of `light` (TencentARC: body.0.body.0).
  Level level_of_blocks(const std::string& name) {
    Level level;
    level.in = optional(name + ".in_conv"), level.out = optional(name + ".out_conv");
    for (const char* part : {"resnets", "body"})
      for (int64_t j = 0; has(fmt::format("{}.{}.{}.block1", name, part, j)); ++j)
        level.blocks.push_back(block(fmt::format("{}.{}.{}", name, part, j)));
    if (level.blocks.empty()) throw ConfigError(fmt::format("{}: lacks the tensor '{}.resnets.0.block1.weight'", file.source, name));
    level.channels = (level.out.weight.defined() ? level.out : level.blocks.back().two).weight.size(0);
    return level;
  }
  /// TencentARC's full adapters number the blocks of all levels in one row; a level begins where the width or the size changes.
  void read_flat() {
    int64_t total = 0, per_level = 0;
    while (has(fmt::format("body.{}.block1", total))) ++total;
    for (int64_t k = total - 1; k > 0; --k) {
      const Tensor* in = find(file.tensors, fmt::format("body.{}.in_conv.weight", k));
      if (has(fmt::format("body.{}.down_opt.op", k)) || (in && in->size(0) != in->size(1))) per_level = k;
    }
    if (per_level == 0 || total % per_level != 0)
      throw ConfigError(fmt::format("{}: the levels of its {} cannot be told: the first begins at block {}", file.source,
                                    counted(total, "block"), per_level));
    for (int64_t k = 0; k < total; ++k) {
      const std::string name = fmt::format("body.{}", k);
      if (k % per_level == 0) levels.emplace_back().down = optional(name + ".down_opt.op", 2);
      levels.back().blocks.push_back(block(name));
      levels.back().channels = levels.back().blocks.back().two.weight.size(0);
    }
  }

  at::Device device_;
  std::set<std::string> taken_;
};

/// Where a U-Net takes a feature.
struct Place {
  std::string name;
  int64_t scale = 1;  ///< places of x per place of the feature and side
  int64_t channels = 0;
};

std::vector<Place> places_of(const Network& network) {
  std::vector<std::string> names;
  std::map<std::string, int64_t> widths;
  for (const Weight& w : network.weights()) {
    names.push_back(w.name);
    widths[w.name] = w.tensor.dim() > 0 ? w.tensor.size(0) : 0;
  }
  const UnetModules modules = unet_modules(names);
  const auto levels = int64_t(modules.attention.size());
  std::vector<Place> places;
  const auto add = [&](const std::string& name, int64_t scale) {
    int64_t channels = 0;
    for (const char* layer : {".0.out_layers.3.weight", ".0.op.weight"})
      if (const auto w = widths.find(name + layer); w != widths.end()) channels = w->second;
    places.push_back({name, scale, channels});
  };
  for (int64_t i = 0, scale = 1; i < levels; ++i, scale *= 2) {
    const bool last = i + 1 == levels, after = !modules.attention[size_t(i)] && !last;
    add(fmt::format("input_blocks.{}", i * (modules.blocks + 1) + modules.blocks + (after ? 1 : 0)), after ? 2 * scale : scale);
    if (last) add("middle_block", scale);
  }
  return places;
}

class OpenT2IAdapter final : public OpenControl {
 public:
  OpenT2IAdapter(const ControlSettings& settings, const ControlledModel& model) {
    if (!dynamic_cast<const HasControlBranch*>(&model.network))
      throw ConfigError(fmt::format("{}: the model's network takes no T2I-Adapter; a unet does", settings.file));
    AdapterFile adapter(settings.file, model.device);
    std::tie(channels_, factor_) = adapter.image();
    source_ = settings.file, input_ = adapter.input, levels_ = std::move(adapter.levels);
    const std::vector<Place> places = places_of(model.network);
    if (channels_ == 0) throw ConfigError(source_ + ": takes neither colour nor grey images");
    if (const int64_t wanted = model.ratio * places.front().scale; factor_ != wanted)
      throw ConfigError(
          fmt::format("{}: its first features are {} times smaller than images, and those of the model {} times; the "
                      "T2I-Adapters of SD 1 and SD 2 have 8, those of SDXL 16",
                      source_, factor_, wanted));
    if (levels_.size() > places.size())
      throw ConfigError(fmt::format("{}: makes {}, and the model takes {}", source_, counted(levels_.size(), "feature"), places.size()));
    // A light adapter halves its features before each level: one more than the model has is too small for the middle block.
    if (adapter.light && levels_.size() == places.size()) {
      warn(fmt::format("{}: its feature {} is smaller than those of the model's middle block, and is left out", source_,
                       levels_.size() - 1));
      levels_.pop_back();
    }
    for (size_t i = 0; i < levels_.size(); ++i) {
      if (places[i].channels != levels_[i].channels)
        throw ConfigError(fmt::format("{}: feature {} has {}, and the model's {} has {}; it is of another model", source_, i,
                                      counted(levels_[i].channels, "channel"), places[i].name, places[i].channels));
      levels_[i].halved = i > 0 && places[i].scale != places[i - 1].scale;
      places_.push_back(places[i].name);
    }
    device_ = model.device;
  }

  std::vector<Tensor> encode(const Tensor& images) const override {
    if (images.size(2) % factor_ != 0 || images.size(3) % factor_ != 0)
      throw ConfigError(
          fmt::format("{}: takes images whose sides are multiples of {}, not {}x{}", source_, factor_, images.size(3), images.size(2)));
    const at::NoGradGuard no_grad;
    const Tensor seen = (channels_ == 3 ? images : images.mean(at::IntArrayRef({1}), true)).to(device_, at::kFloat);
    Tensor x = at::pixel_unshuffle(seen, factor_);
    if (input_.weight.defined()) x = input_(x);
    std::vector<Tensor> features;
    for (const Level& level : levels_) features.push_back(x = feature(level, x));
    return features;
  }

  void add_to(Taps& taps, const ControlledCall& call) const override {
    for (size_t i = 0; i < call.control.size(); ++i) add_residual(taps.residuals, places_[i], call.weighed(call.control[i]));
  }

 private:
  static Tensor feature(const Level& level, Tensor x) {
    if (level.halved) x = level.down.weight.defined() ? level.down(x) : at::avg_pool2d(x, {2, 2}, {2, 2}, {0, 0}, true);
    if (level.in.weight.defined()) x = level.in(x);
    for (const ResidualBlock& b : level.blocks) {
      if (b.in.weight.defined()) x = b.in(x);
      const Tensor h = b.two(nn::relu(b.one(x)));
      x = h + (b.skip.weight.defined() ? b.skip(x) : x);
    }
    return level.out.weight.defined() ? level.out(x) : x;
  }

  std::string source_;
  int64_t channels_ = 3, factor_ = 8;
  at::Device device_ = at::kCPU;
  nn::Conv2d input_;
  std::vector<Level> levels_;
  std::vector<std::string> places_;
};

class T2IAdapter final : public Control {
 public:
  struct Options : ControlSettings {};
  explicit T2IAdapter(const Options& o) : o_(o) {}
  const ControlSettings& settings() const override { return o_; }
  std::shared_ptr<const OpenControl> open(const ControlledModel& model) const override {
    return std::make_shared<OpenT2IAdapter>(o_, model);
  }

 private:
  Options o_;
};

}  // namespace

void register_control_t2i_adapter(Registry& r) {
  r.add<Control, T2IAdapter>("t2i_adapter", "a small network that adds features of an image to the U-Net's encoder (T2I-Adapter)");
}

}  // namespace brume::plugins
