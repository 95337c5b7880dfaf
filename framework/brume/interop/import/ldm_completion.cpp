#include "brume/interop/import/ldm_completion.h"

#include <fmt/format.h>

#include <filesystem>

#include "brume/config/counted.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view condition_prefix = "cond_stage_model.";

/// Returns the tensors of a file, or of a component of diffusers: its directory, or the one of its pipeline, in which `component` is its
/// folder.
NamedTensors tensors_of(const std::string& setting, const fs::path& path, const char* component) {
  if (fs::is_regular_file(path)) return load_tensors(path.string());
  if (!fs::is_directory(path)) throw ConfigError(fmt::format("{}={}: there is no such file or directory", setting, path.string()));
  return component_tensors(fs::is_directory(path / component) ? path / component : path, "");
}

NamedTensors below(const NamedTensors& all, std::string_view prefix) {
  NamedTensors result;
  for (const NamedTensor& t : all)
    if (t.name.starts_with(prefix)) result.push_back({t.name.substr(prefix.size()), t.tensor});
  return result;
}

/// Leaves out what stands in such a file and is no part of a first stage.
ModuleTensors first_stage_parts(const NamedTensors& tensors) {
  NamedTensors parts;
  for (const NamedTensor& t : tensors)
    for (const char* part : {"encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize."})
      if (t.name.starts_with(part)) parts.push_back(t);
  return {parts, ""};
}

}  // namespace

ModuleTensors ldm_first_stage_module(const LdmReading& r, int64_t channels) {
  if (const std::string* file = r.setting("vae")) {
    const NamedTensors all = tensors_of("vae", *file, "vae");
    ModuleTensors parts = first_stage_parts(any_begins(all, first_stage_prefix)       ? below(all, first_stage_prefix)
                                            : any_begins(all, "encoder.down_blocks.") ? from_diffusers_vae(all)
                                                                                      : all);
    if (parts.empty()) throw ConfigError(fmt::format("vae={}: holds no first stage (AutoencoderKL or VQModel)", *file));
    return parts;
  }
  ModuleTensors own(r.source.tensors, std::string(first_stage_prefix));
  if (!own.empty()) return own;
  constexpr const char* completes = "vae=FILE completes it with the one of another file";
  const std::string target = r.config.target("first_stage_config");
  if (!target.empty() && target != "IdentityFirstStage")
    r.refuse(fmt::format("lacks its first stage: {} names {}, and there is no tensor '{}'; {}", r.config.file(), target, first_stage_prefix,
                         completes));
  if (channels != 1 && channels != 3)
    r.refuse(fmt::format("lacks its first stage: its U-Net makes {}, which are no image's, and there is no tensor '{}'; {}",
                         counted(channels, "channel"), first_stage_prefix, completes));
  return own;
}

NamedTensors ldm_xl_text_tensors(const LdmReading& r) {
  constexpr std::string_view xl_text_prefix = "conditioner.embedders.";
  const std::string* file = r.setting("text_encoder");
  NamedTensors all = file ? tensors_of("text_encoder", *file, "text_encoder") : r.source.tensors;
  if (file && !any_begins(all, xl_text_prefix))
    throw ConfigError(fmt::format("text_encoder={}: holds no text encoders of SDXL ('{}'), as its checkpoints do", *file, xl_text_prefix));
  return all;
}

ModuleTensors ldm_condition_module(const LdmReading& r) {
  const std::string* file = r.setting("text_encoder");
  if (!file) return {r.source.tensors, std::string(condition_prefix)};
  const NamedTensors all = tensors_of("text_encoder", *file, "text_encoder");
  if (any_begins(all, condition_prefix)) return {all, std::string(condition_prefix)};
  NamedTensors named;
  for (const NamedTensor& t : all)
    if (t.name.starts_with("text_model.")) named.push_back({"transformer." + t.name, t.tensor});
  if (named.empty()) throw ConfigError(fmt::format("text_encoder={}: holds no text encoder of CLIP ('text_model.')", *file));
  return {named, ""};
}

}  // namespace brume
