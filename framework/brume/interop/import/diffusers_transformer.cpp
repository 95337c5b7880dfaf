#include "brume/interop/import/diffusers_transformer.h"

#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "brume/config/counted.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/import/diffusers_parts.h"
#include "brume/interop/import/diffusers_weights.h"

namespace brume {

namespace fs = std::filesystem;

bool is_diffusers_class(const fs::path& file, const std::vector<std::string>& names) {
  if (!fs::is_regular_file(file)) return false;
  const nlohmann::json config = read_json(file);
  if (!config.is_object()) return false;
  const auto name = DiffusersConfig(config, file.string(), "a component").get<std::string>("_class_name", "");
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_transformer_directory(const Source& source, const std::vector<std::string>& pipelines,
                              const std::vector<std::string>& transformers) {
  if (!source.directory()) return false;
  const fs::path index = source.path / "model_index.json";
  return fs::exists(index) ? is_diffusers_class(index, pipelines) : is_diffusers_class(source.path / "config.json", transformers);
}

std::string variant_of(const ImportOptions& options, const char* family) {
  for (const auto& [key, value] : options.settings)
    if (key != "variant")
      throw ConfigError(fmt::format("{}={}: a diffusers directory of {} has only `variant` to be set", key, value, family));
  const auto given = options.settings.find("variant");
  return given == options.settings.end() ? "" : given->second;
}

std::string variant_in(const fs::path& component, const std::string& variant) {
  return variant.empty() || has_variant(component, variant) ? variant : "";
}

void set_transformer_stage(Imported& model, Value& options, const fs::path& folder, const std::string& variant, int64_t size,
                           int64_t channels) {
  const DiffusersStage stage = read_diffusers_stage(folder, variant_in(folder, variant), size);
  if (stage.latent_channels != channels)
    throw ConfigError(fmt::format("{}: has latents of {}, and the network takes {}", folder.string(),
                                  counted(stage.latent_channels, "channel"), channels));
  options.set("image", image_of(stage.channels, size * stage.ratio, size * stage.ratio));
  options.set("autoencoder", stage.options);
  for (const NamedTensor& t : stage.tensors) model.tensors.push_back({"autoencoder." + t.name, t.tensor});
}

NamedTensors renamed_layers(const NamedTensors& tensors, const LayerNames& layout, const std::string& folder, const char* network) {
  std::map<std::string, at::Tensor> parts;  // of joined layers, by their whole names
  for (const JoinedLayer& layer : layout.joined)
    for (const std::string& name : layer.theirs)
      for (const char* what : {"weight", "bias"}) parts[name + "." + what] = at::Tensor();
  NamedTensors all;
  for (const NamedTensor& t : tensors) {
    if (const auto part = parts.find(t.name); part != parts.end()) {
      part->second = t.tensor;
      continue;
    }
    const auto ours = layout.names.ours(t.name);
    if (!ours) throw ConfigError(fmt::format("{}: the {} of brume has no place for the tensor '{}'", folder, network, t.name));
    all.push_back({*ours, t.tensor});
  }
  for (const JoinedLayer& layer : layout.joined)
    for (const std::string what : {"weight", "bias"}) {
      std::vector<at::Tensor> rows;
      for (const std::string& name : layer.theirs) {
        const at::Tensor& part = parts.at(name + "." + what);
        if (!part.defined() && what == "bias" && rows.empty()) break;  // a layer without one
        if (!part.defined()) throw ConfigError(fmt::format("{}: has no tensor '{}.{}'", folder, name, what));
        if (part.dim() != (what == "weight" ? 2 : 1) || (what == "weight" && !rows.empty() && part.size(1) != rows[0].size(1)))
          throw ConfigError(fmt::format("{}: '{}.{}' does not fit the other layers of its attention", folder, name, what));
        rows.push_back(part);
      }
      if (!rows.empty()) all.push_back({layer.ours + "." + what, at::cat(rows)});
    }
  return all;
}

}  // namespace brume
