#include "brume/interop/import/guided_unet.h"
#include "brume/config/tree.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "brume/config/counted.h"
#include "brume/config/errors.h"

namespace brume {
namespace {

/// Tensors by name, in constant time.
class Weights {
 public:
  explicit Weights(const Source& source) : file_(source.path.filename().string()) {
    for (const NamedTensor& t : source.tensors) shapes_[t.name] = t.tensor.sizes().vec();
  }
  bool has(const std::string& name) const { return shapes_.contains(name); }
  bool is_matrix(const std::string& name) const { return has(name) && shapes_.at(name).size() == 2; }
  int64_t size(const std::string& name, size_t dim) const {
    const auto at = shapes_.find(name);
    if (at == shapes_.end() || at->second.size() <= dim)
      throw ConfigError(fmt::format("{}: looks like a U-Net of guided-diffusion, but has no tensor '{}'", file_, name));
    return at->second[dim];
  }

 private:
  std::string file_;
  std::unordered_map<std::string, std::vector<int64_t>> shapes_;
};

/// An entry of input_blocks.
struct Stage {
  bool block = false, conv = false, attention = false;
  int64_t in = 0, out = 0;
  bool down() const { return !attention && (!block || in == out); }
  std::string resampling() const { return block ? "residual" : conv ? "conv" : "pool"; }
};

std::vector<Stage> encoder(const Weights& w) {
  std::vector<Stage> stages;
  for (int64_t i = 0, last = 0; i <= last + 2; ++i) {  // one that is not there is a pooling without weights
    const std::string here = fmt::format("input_blocks.{}.", i), conv = here + "0.in_layers.2.weight";
    Stage stage{w.has(conv), w.has(here + "0.op.weight"), w.has(here + "1.qkv.weight")};
    if (stage.block) stage.in = w.size(conv, 1), stage.out = w.size(conv, 0);
    if (stage.block || stage.conv || i == 0) last = i;
    stages.push_back(stage);
  }
  while (stages.size() > 1 && !stages.back().block) stages.pop_back();
  return stages;
}

/// Returns how an entry of output_blocks ends: by a layer that doubles the resolution, or not (or by one without weights).
std::string decoder_stage_end(const Weights& w, size_t i, bool attention) {
  const std::string last = fmt::format("output_blocks.{}.{}.", i, attention ? 2 : 1);
  return w.has(last + "conv.weight") ? "conv" : w.has(last + "in_layers.2.weight") ? "residual" : "pool";
}

/// Returns true if the stages are levels of `blocks` residual blocks with a resampling between two levels.
bool fits(const Weights& w, const std::vector<Stage>& stages, size_t blocks, bool encoder) {
  const size_t period = blocks + 1;
  if (stages.size() % period) return false;
  std::optional<std::string> resampling;
  for (size_t i = 1; i < stages.size(); ++i) {
    const Stage &stage = stages[i], &first = stages[i - i % period + 1];
    if (i % period == 0) {
      if (!stage.down() || stage.resampling() != resampling.value_or(stage.resampling())) return false;
      resampling = stage.resampling();
    } else if (!stage.block || stage.attention != first.attention || stage.out != first.out) {
      return false;
    }
  }
  for (size_t i = 0; !encoder && i < stages.size(); ++i) {  // the decoder mirrors it, its resampling at the end of a level
    const Stage& mirror = stages[stages.size() - 1 - i / period * period];
    const bool doubles = i % period == blocks && i + 1 < stages.size();
    if (decoder_stage_end(w, i, mirror.attention) != (doubles ? *resampling : "pool")) return false;
  }
  return true;
}

size_t blocks_of(const Weights& w, const std::vector<Stage>& stages, bool encoder, const Flags& flags, const std::string& name) {
  std::vector<size_t> possible;
  for (size_t blocks = 1; blocks < stages.size(); ++blocks)
    if (fits(w, stages, blocks, encoder)) possible.push_back(blocks);
  const auto given = flags.integer(name);
  if (possible.empty()) throw ConfigError("input_blocks: are not levels of equally many residual blocks, as guided-diffusion has them");
  if (given && std::find(possible.begin(), possible.end(), size_t(*given)) == possible.end()) flags.refuse_difference(name);
  if (possible.size() > 1 && !given)
    flags.refuse_missing(name, fmt::format("the weights could be of {} residual blocks per level", fmt::join(possible, " or ")));
  return given ? size_t(*given) : possible.front();
}

void read_classifier(const Weights& w, GuidedUnet& u) {
  if (w.has("out.2.positional_embedding")) {
    u.pooling = "attention";
    u.positions = w.size("out.2.positional_embedding", 1) - 1;
    u.out = w.size("out.2.c_proj.weight", 0);
  } else if (w.is_matrix("out.0.weight")) {
    const bool normed = w.has("out.1.weight");
    u.pooling = normed ? "spatial_v2" : "spatial";
    u.out = w.size(normed ? "out.3.weight" : "out.2.weight", 0);
  } else {
    u.pooling = "adaptive";
    u.out = w.size("out.3.weight", 0);
  }
}

}  // namespace

bool is_guided_unet(const NamedTensors& tensors) {
  const auto has = [&](const char* name) { return find(tensors, name) != nullptr; };
  return has("time_embed.0.weight") && has("input_blocks.0.0.weight") && has("middle_block.0.in_layers.2.weight");
}

GuidedUnet read_guided_unet(const Source& source, const Flags& flags, const std::string& blocks) {
  const Weights w(source);
  if (w.has("input_blocks.1.1.proj_in.weight") || w.has("middle_block.1.proj_in.weight"))
    throw ConfigError(fmt::format(
        "{}: a U-Net that attends to tokens, without the encoder that makes them; the whole checkpoint it is a part of can be imported",
        source.path.filename().string()));
  GuidedUnet u;
  u.encoder = !w.has("output_blocks.0.0.in_layers.2.weight");
  u.channels = w.size("time_embed.0.weight", 1);
  u.in = w.size("input_blocks.0.0.weight", 1);
  const std::vector<Stage> stages = encoder(w);
  const size_t count = blocks_of(w, stages, u.encoder, flags, blocks), period = count + 1;
  u.blocks = int64_t(count);
  for (size_t i = 1; i < stages.size(); i += period) {
    u.multipliers.push_back(double(stages[i].out) / double(u.channels));
    u.attention.push_back(stages[i].attention);
  }
  if (u.levels() > 16)
    throw ConfigError(fmt::format("{}: has {} of resolution; networks of brume have 16 at most", source.path.filename().string(),
                                  counted(u.levels(), "level")));
  if (stages.size() > period) u.resampling = stages[period].resampling();
  u.scale_shift = w.size("input_blocks.1.0.emb_layers.1.weight", 0) == 2 * stages[1].out;
  if (w.has("label_emb.weight")) u.classes = w.size("label_emb.weight", 0);
  if (u.encoder)
    read_classifier(w, u);
  else
    u.out = w.size("out.2.weight", 0);
  return u;
}

Value GuidedUnet::options(int64_t height, const Value& heads, double dropout) const {
  std::vector<int64_t> attending;
  for (size_t level = 0; level < levels(); ++level)
    if (attention[level]) attending.push_back(height >> level);
  Value unet = plugin_of(encoder ? "unet_encoder" : "unet",
                         {{"channels", channels}, {"multipliers", multipliers}, {"blocks", blocks}, {"attention_resolutions", attending}});
  for (const Value::Entry& e : heads.entries) unet.set(e.key, e.value);
  unet.set("scale_shift", value_of(scale_shift));
  unet.set("resampling", value_of(resampling));
  unet.set("dropout", value_of(dropout));
  if (encoder) unet.set("pooling", value_of(pooling));
  return unet;
}

}  // namespace brume
