// A diffusers directory that brume wrote: `brume.yaml` in it says the model as it was, the components hold the tensors
// (interop/export/diffusers.cpp).
#include <fmt/format.h>

#include "brume/config/errors.h"
#include "brume/config/yaml.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/import/families.h"
#include "brume/interop/layouts/conditioning.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/interop/layouts/sections.h"
#include "brume/interop/layouts/unet_layout.h"
#include "brume/weights/safetensors.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

bool knows(const Source& source) { return source.directory() && fs::is_regular_file(source.path / "brume.yaml"); }

/// Returns a component's tensors: those of its program, and those that are brume's own.
NamedTensors component(const fs::path& folder, const char* weights) {
  NamedTensors all;
  for (const char* name : {weights, "brume.safetensors"})
    if (fs::is_regular_file(folder / name))
      for (NamedTensor& t : SafetensorsFile((folder / name).string()).tensors()) all.push_back(std::move(t));
  if (all.empty()) throw ConfigError(fmt::format("{}: there is no {}", folder.string(), weights));
  return all;
}

void add(Imported& model, const std::string& prefix, const NamedTensors& tensors) {
  for (const NamedTensor& t : tensors) model.tensors.push_back({prefix + t.name, t.tensor});
}

/// Returns a file of the directory; what lies elsewhere is not read, whatever the note says.
fs::path within(const fs::path& folder, const std::string& name) {
  const fs::path path = fs::path(name).lexically_normal();
  if (path.empty() || path.is_absolute() || *path.begin() == "..")
    throw ConfigError(fmt::format("{}: files: '{}' is not within the directory", (folder / "brume.yaml").string(), name));
  return folder / path;
}

/// Adds the tensors of a directory of transformers, by the importer of the plain directory.
void add_transformer(Imported& model, const fs::path& folder) {
  const Source plain{folder, {}, {}};
  for (const Family* family : {&diffusers_transformer, &diffusers_pixart, &diffusers_mmdit})
    if (family->knows(plain)) {
      model.tensors = family->import(plain, {}).tensors;
      return;
    }
  throw ConfigError(fmt::format("{}: there is neither unet/ nor a transformer", folder.string()));
}

void add_model(Imported& model, const fs::path& folder) {
  if (!fs::is_directory(folder / "unet")) return add_transformer(model, folder);
  constexpr const char* weights = "diffusion_pytorch_model.safetensors";
  const UnetLayout layout = unet_layout(part_of(model.options, "network"));
  const NamedTensors unet = read_diffusers_unet(folder / "unet/config.json").tensors(component(folder / "unet", weights));
  add(model, "network.", in_attention_order(unet, layout));
  for (const char* stage : {"vae", "vqvae"})
    if (fs::is_directory(folder / stage)) add(model, "autoencoder.", from_diffusers_vae(component(folder / stage, weights)));
  const Words words = words_of(part_of(model.options, "conditioner"));
  for (const TextEncoderPlace& e : words.encoders())
    add(model, e.prefix, component(folder / ("text_encoder" + e.ending), "model.safetensors"));
  const fs::path text = folder / "text_encoder";
  if (words.encoders().empty() && fs::is_regular_file(text / "brume.safetensors"))
    add(model, words.prefix, component(text, "model.safetensors"));
}

Imported import_directory(const Source& source, const ImportOptions& options) {
  if (!options.settings.empty())
    throw ConfigError(
        fmt::format("{}: brume.yaml says all of it; '{}' cannot be set", source.path.string(), options.settings.begin()->first));
  const Value root = load_yaml(source.path / "brume.yaml");
  Imported model;
  if (root.find("autoencoder")) model.section = "autoencoder";
  const Value* section = root.find(model.section);
  if (!section) throw ConfigError(fmt::format("{}: has neither 'model' nor 'autoencoder'", (source.path / "brume.yaml").string()));
  model.options = *section;
  if (const Value* sample = root.find("sample")) model.sample = *sample;
  if (const Value* files = root.find("files"))
    for (const Value::Entry& f : files->entries)
      model.files[f.key] = std::string(MappedFile::open(within(source.path, f.value.scalar).string())->bytes());
  if (model.section == "model")
    add_model(model, source.path);
  else
    add(model, "autoencoder.", from_diffusers_vae(component(source.path, "diffusion_pytorch_model.safetensors")));
  return model;
}

}  // namespace

const Family exported_directory{"diffusers directory that brume wrote", knows, import_directory};

}  // namespace brume
