#include "brume/interop/import/diffusers_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <optional>
#include <set>
#include <unordered_set>
#include <vector>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// What the weights of diffusers and of transformers are called, in the order of preference.
constexpr std::pair<const char*, const char*> names[] = {
    {"diffusion_pytorch_model", ".safetensors"}, {"model", ".safetensors"}, {"diffusion_pytorch_model", ".bin"}, {"pytorch_model", ".bin"}};

std::string with_variant(const std::string& stem, const std::string& variant, const std::string& end) {
  return variant.empty() ? stem + end : stem + "." + variant + end;
}

/// Returns the weights file of a variant, or its index.
std::optional<fs::path> file_of(const fs::path& folder, const std::string& variant) {
  for (const auto& [stem, end] : names) {
    const fs::path whole = folder / with_variant(stem, variant, end),
                   index = folder / with_variant(fmt::format("{}{}.index", stem, end), variant, ".json");
    if (fs::is_regular_file(whole)) return whole;
    if (fs::is_regular_file(index)) return index;
  }
  return {};
}

/// Returns the variants that are there: "fp16" of model.fp16.safetensors and of model.safetensors.index.fp16.json.
std::set<std::string> variants_in(const fs::path& folder) {
  std::set<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    for (const auto& [stem, end] : names) {
      const std::string whole = std::string(stem) + ".", index = fmt::format("{}{}.index.", stem, end);
      std::string middle;
      if (file.starts_with(index) && file.ends_with(".json") && file.size() > index.size() + 5)
        middle = file.substr(index.size(), file.size() - index.size() - 5);
      else if (file.starts_with(whole) && file.ends_with(end) && file.size() > whole.size() + std::string_view(end).size())
        middle = file.substr(whole.size(), file.size() - whole.size() - std::string_view(end).size());
      if (!middle.empty() && middle.find("-of-") == std::string::npos && file_of(folder, middle)) found.insert(middle);
    }
  }
  return found;
}

fs::path weights_file(const fs::path& folder, const std::string& variant) {
  if (!fs::is_directory(folder)) throw ConfigError(fmt::format("{}: there is no such directory", folder.string()));
  if (const auto file = file_of(folder, variant)) return *file;
  const std::set<std::string> variants = variants_in(folder);
  if (variant.empty() && variants.size() == 1) return *file_of(folder, *variants.begin());
  const std::string there = variants.empty() ? "" : fmt::format("; variants that are there: {}", fmt::join(variants, ", "));
  if (!variant.empty()) throw ConfigError(fmt::format("{}: has no weights of variant '{}'{}", folder.string(), variant, there));
  if (!variants.empty())
    throw ConfigError(fmt::format("{}: has several variants of its weights and none without one{}; variant={} takes that", folder.string(),
                                  there, *variants.begin()));
  throw ConfigError(
      fmt::format("{}: holds no weights: neither diffusion_pytorch_model, model nor pytorch_model, as .safetensors, .bin or an index of "
                  "either",
                  folder.string()));
}

/// Returns all shards of an index; every tensor it lists must be in the file it says. What a shard holds in addition is no less a part of
/// the weights, unless it is listed elsewhere.
NamedTensors sharded(const fs::path& index) {
  const DiffusersConfig c(index, "an index of weights");
  const auto map = c.get<std::map<std::string, std::string>>("weight_map", {});
  if (map.empty()) throw ConfigError(fmt::format("{}: lists no tensors (weight_map)", index.string()));
  std::map<std::string, std::unordered_set<std::string>> shards;
  for (const auto& [tensor, file] : map) shards[file].insert(tensor);
  std::vector<Problem> problems;
  NamedTensors all;
  for (auto& [file, wanted] : shards) {
    const fs::path path = index.parent_path() / file;
    if (fs::path(file).has_parent_path() || !fs::is_regular_file(path)) {
      problems.push_back(
          {{},
           "",
           fmt::format("{}: names the file '{}' with {}, which does not exist", index.string(), file, counted(wanted.size(), "tensor"))});
      continue;
    }
    for (NamedTensor& t : load_tensors(path.string()))
      if (wanted.erase(t.name) > 0 || !map.contains(t.name)) all.push_back(std::move(t));
    for (const std::string& name : wanted)
      problems.push_back({{}, "", fmt::format("{}: says that '{}' is in '{}', and it is not", index.string(), name, file)});
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  return all;
}

}  // namespace

bool has_variant(const fs::path& folder, const std::string& variant) { return file_of(folder, variant).has_value(); }

NamedTensors component_tensors(const fs::path& folder, const std::string& variant) {
  const fs::path file = weights_file(folder, variant);
  return file.extension() == ".json" ? sharded(file) : load_tensors(file.string());
}

}  // namespace brume
