#include "brume/interop/import/mmdit_parts.h"

#include <ATen/ops/eye.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/tree.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/interop/import/diffusers_text.h"
#include "brume/interop/import/diffusers_transformer.h"
#include "brume/interop/import/t5.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

T5Use t5_use(const MmditNetwork& n, const MmditSettings& settings) {
  const int64_t usual = n.flux && n.guidance ? 512 : 256;
  return {.length = settings.length > 0 ? settings.length : usual, .mask = false};
}

/// The text encoders of a family, as one joint_text.
struct Text {
  std::vector<Value> encoders;
  NamedTensors tensors;  ///< "0.text_model.…"
  Files files;
  std::vector<int64_t> widths, pooled;

  void add(const Value& options, const NamedTensors& some, const Files& more, int64_t width, int64_t vector) {
    for (const NamedTensor& t : some) tensors.push_back({fmt::format("{}.{}", encoders.size(), t.name), t.tensor});
    encoders.push_back(options);
    for (const auto& [name, content] : more) files[name] = content;
    widths.push_back(width), pooled.push_back(vector);
  }
};

/// Adds CLIP for SD 3: the tokens before the last layer, without the final norm, and the projection of the end token.
void add_clip(Text& text, const fs::path& folder, const std::string& ending, const VariantOf& variant) {
  DiffusersText clip = read_clip_encoder(folder, ending, variant, true);
  if (clip.vector_width == 0)
    throw ConfigError(
        fmt::format("{}: lacks text_projection.weight, which gives the pooled vector", (folder / ("text_encoder" + ending)).string()));
  clip.options.set("clip_skip", value_of(1));
  clip.options.set("final_norm", value_of(false));
  clip.options.set("projection", value_of(clip.vector_width));
  text.add(clip.options, clip.tensors, clip.files, clip.width, clip.vector_width);
}

/// Adds CLIP for FLUX: the end token itself.
void add_pooled_clip(Text& text, const fs::path& folder, const VariantOf& variant) {
  DiffusersText clip = read_clip_encoder(folder, "", variant, false);
  clip.options.set("projection", value_of(clip.width));
  clip.options.set("dropout", value_of(0));
  clip.tensors.push_back({"text_projection.weight", at::eye(clip.width, at::TensorOptions().dtype(at::kFloat))});
  text.add(clip.options, clip.tensors, clip.files, clip.width, clip.width);
}

Text read_text(const MmditNetwork& n, const fs::path& folder, const MmditSettings& settings) {
  const VariantOf variant = [&](const fs::path& component) { return variant_in(component, settings.variant); };
  const std::string t5_ending = n.flux ? "_2" : "_3";
  const fs::path t5 = folder / ("text_encoder" + t5_ending);
  for (const fs::path& part : {folder / "text_encoder", folder / "text_encoder_2", t5})
    if (!fs::is_directory(part)) throw ConfigError(fmt::format("{}: is missing, a text encoder of the model", part.string()));
  Text text;
  if (n.flux) {
    add_pooled_clip(text, folder, variant);
  } else {
    add_clip(text, folder, "", variant);
    add_clip(text, folder, "_2", variant);
  }
  T5Text words = read_t5(t5, folder / ("tokenizer" + t5_ending), variant(t5), t5_use(n, settings));
  if (n.flux) words.options.set("dropout", value_of(0));
  text.add(words.options, words.tensors, words.files, words.width, 0);
  return text;
}

Value joint_text(const MmditNetwork& n, const std::vector<Value>& encoders) {
  if (n.flux)
    return plugin_of("joint_text", {{"of", encoders},
                                    {"channels", std::vector<int64_t>{1}},
                                    {"tokens", std::vector<int64_t>{}},
                                    {"pooled", std::vector<int64_t>{0}},
                                    {"dropout", 0}});
  return plugin_of("joint_text", {{"of", encoders},
                                  {"channels", std::vector<int64_t>{0, 1}},
                                  {"tokens", std::vector<int64_t>{2}},
                                  {"pooled", std::vector<int64_t>{0, 1}}});
}

/// Adds the guidance scale, if the network takes it.
Value with_guidance(const MmditNetwork& n, const Value& text) {
  if (!n.guidance) return text;
  return plugin_of("composite", {{"of", std::vector<Value>{text, plugin_of("guidance_scale", {{"scale", 3.5}})}}});
}

}  // namespace

Value MmditNetwork::options() const {
  Value o = plugin_of("mmdit", {{"patch", patch},
                                {"width", width},
                                {"depth", depth},
                                {"single_depth", single_depth},
                                {"heads", heads},
                                {"mlp_ratio", mlp_ratio},
                                {"qk_norm", qk_norm}});
  if (flux)
    o.set("rotary_axes", value_of(rotary_axes));
  else
    o.set("position_size", value_of(position_size));
  if (!dual_blocks.empty()) o.set("dual_blocks", value_of(dual_blocks));
  return o;
}

void add_mmdit_parts(Imported& model, Value& options, const MmditNetwork& n, const fs::path& folder, const MmditSettings& settings) {
  if (folder.empty()) {
    options.set("image", image_of(n.in, n.size, n.size));
    options.set("conditioner", with_guidance(n, missing_t5(n.words, t5_use(n, settings))));
    model.losses.emplace_back(
        "no text encoders with their tokenizers are taken, without which the model cannot be sampled from, and no first "
        "stage: pipeline=DIRECTORY names a diffusers directory that has them");
    return;
  }
  set_transformer_stage(model, options, folder / "vae", settings.variant, n.size, n.in);
  const Text text = read_text(n, folder, settings);
  int64_t pooled = 0;
  for (const int64_t width : text.pooled) pooled += width;
  if (pooled != n.pooled)
    throw ConfigError(fmt::format("{}: its encoders give a pooled vector of {}, and the network takes {}", folder.string(),
                                  counted(pooled, "channel"), n.pooled));
  if (text.widths.back() != n.words)
    throw ConfigError(fmt::format("{}: T5 gives tokens of {}, and the network takes {}", folder.string(),
                                  counted(text.widths.back(), "channel"), n.words));
  options.set("conditioner", with_guidance(n, joint_text(n, text.encoders)));
  model.files = text.files;
  for (const NamedTensor& t : text.tensors) model.tensors.push_back({(n.guidance ? "conditioner.0." : "conditioner.") + t.name, t.tensor});
}

void set_mmdit_sampling(Imported& model, Value& options, const MmditNetwork& n, const fs::path& scheduler) {
  nlohmann::json config = nlohmann::json::object({{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"shift", n.flux ? 1.0 : 3.0}});
  const std::string place = scheduler.empty() ? "scheduler" : scheduler.string();
  if (!scheduler.empty()) config = read_json(scheduler);
  if (!config.is_object()) throw ConfigError(fmt::format("{}: is no object", place));
  const bool dynamic =
      scheduler.empty() ? n.guidance : DiffusersConfig(config, place, "a scheduler of brume").get("use_dynamic_shifting", false);
  if (dynamic) config["use_dynamic_shifting"] = false, config["shift"] = 1.0;
  const DiffusersConfig read(config, place, "a scheduler of brume");
  DiffusersScheduler s = read_diffusers_scheduler(read, false);
  if (dynamic) {
    if (read.get<std::string>("time_shift_type", "exponential") != "exponential") read.refuse("time_shift_type", "exponential");
    s.spacing = plugin_of(
        "flow",
        {{"tokens", std::vector<int64_t>{read.get<int64_t>("base_image_seq_len", 256), read.get<int64_t>("max_image_seq_len", 4096)}},
         {"mus", std::vector<double>{read.get("base_shift", 0.5), read.get("max_shift", 1.15)}},
         {"patch", n.patch}});
  }
  if (n.flux) {  // its pipeline gives the levels 1, 1 - 1/n, ...
    s.spacing.set("s_max", value_of(1));
    s.spacing.set("s_min", value_of(0));
    s.spacing.set("inclusive", value_of(false));
  }
  options.set("noise", s.noise);
  options.set("parameterization", s.parameterization);
  const std::vector<Value> guidance = n.flux ? std::vector<Value>{} : std::vector<Value>{plugin_of("cfg", {{"scale", 7}})};
  model.sample = section_of(s.sample(n.flux && !n.guidance ? 4 : 28, guidance), place);
  model.losses.insert(model.losses.end(), s.losses.begin(), s.losses.end());
}

}  // namespace brume
