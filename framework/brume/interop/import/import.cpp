#include "brume/interop/import/import.h"
#include "brume/config/tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/interop/import/families.h"
#include "brume/interop/layouts/addition_kind.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

/// Returns the first names of a file, for the message that it is not known.
std::string first_names(const Source& source) {
  constexpr size_t shown = 5;
  std::string text;
  for (size_t i = 0; i < std::min(shown, source.tensors.size()); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", source.tensors[i].name);
  return text + (source.tensors.size() > shown ? ", …" : "");
}

}  // namespace

Value image_of(int64_t channels, int64_t height, int64_t width) {
  return map_of({{"channels", channels}, {"height", height}, {"width", width}});
}

Value section_of(Value tree, const std::string& source) {
  const Place place{std::make_shared<const std::string>(source), 0, 0};
  const std::function<void(Value&)> put = [&](Value& v) {
    v.place = place;
    for (Value& item : v.items) put(item);
    for (Value::Entry& e : v.entries) {
      e.place = place;
      put(e.value);
    }
  };
  put(tree);
  return tree;
}

const std::vector<Family>& families() {
  static const std::vector<Family> all{exported_directory, diffusers_transformer, diffusers_pixart,    mmdit_network,
                                       diffusers_mmdit,    diffusion_transformer, diffusers_directory, compvis_ldm,
                                       tiny_autoencoder,   compvis_first_stage,   edm_network,         edm2_network,
                                       guided_diffusion};
  return all;
}

const Family* family_of(const Source& source) {
  const auto at = std::find_if(families().begin(), families().end(), [&](const Family& f) { return f.knows(source); });
  return at == families().end() ? nullptr : &*at;
}

Source open_source(const std::filesystem::path& path) {
  Source source{path, {}, {}};
  if (!source.directory()) source.tensors = load_tensors(path.string(), &source.metadata);
  return source;
}

Imported import_model(const Source& source, const ImportOptions& options) {
  if (const Family* family = family_of(source)) return family->import(source, options);
  std::string known;
  for (const Family& f : families()) known += fmt::format("{}{}", known.empty() ? "" : ", ", f.name);
  throw ConfigError(fmt::format("{}: is of no family that brume imports ({}); it holds {}{}", source.path.string(), known,
                                source.directory() ? "no model_index.json and no config.json of a component"
                                                   : fmt::format("{}: {}", counted(source.tensors.size(), "tensor"), first_names(source)),
                                source.directory() ? "" : likely_kind(source.tensors)));
}

Imported import_model(const std::filesystem::path& path, const ImportOptions& options) { return import_model(open_source(path), options); }

Contents contents_of(const Imported& model) {
  Contents contents{model.tensors, ModelMetadata::of_model(0)};
  contents.metadata.set(model.section, model.options);
  contents.metadata.set("sample", model.sample);
  for (NamedTensor& t : file_tensors(model.files)) contents.tensors.push_back(std::move(t));
  return contents;
}

Contents open_model(const std::filesystem::path& path, const ImportOptions& options) {
  Source source = open_source(path);
  ModelMetadata metadata(source.metadata);
  if (!metadata.is_brume()) return contents_of(import_model(source, options));
  if (!options.settings.empty())
    throw ConfigError(fmt::format("{}: is a brume model, which says everything of itself; '{}' cannot be set", path.string(),
                                  options.settings.begin()->first));
  return {std::move(source.tensors), std::move(metadata)};
}

Files load_files(const std::string& path) { return files_in(open_model(path).tensors); }

void load_model(const std::string& path, const std::vector<Weight>& weights) { load_weights(path, open_model(path).tensors, weights); }

}  // namespace brume
