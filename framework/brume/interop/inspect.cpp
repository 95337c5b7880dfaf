#include "brume/interop/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/files/refuse.h"
#include "brume/interop/additions.h"
#include "brume/interop/import/import.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// As what brume opens a source.
struct Reception {
  std::string family;               ///< "" if none knows it
  std::string use;                  ///< of a file that adds to a model: how; "" for models
  std::string problem;              ///< why it cannot be imported; "" if it can
  std::vector<std::string> losses;  ///< of Imported
};

Reception reception_of(const Source& source) {
  if (const std::string kind = ModelMetadata(source.metadata).kind(); !kind.empty()) return {fmt::format("brume {}", kind), "", "", {}};
  const Family* family = family_of(source);
  if (family == nullptr) {
    const Addition addition = source.directory() ? Addition() : addition_of(source.path.string(), source.tensors);
    return {addition.name, addition.use, addition.problem, {}};
  }
  Reception reception{std::string(family->name), "", "", {}};
  try {
    reception.losses = family->import(source, {}).losses;
  } catch (const ConfigError& error) {
    reception.problem = error.what();
  }
  return reception;
}

/// A part of a directory: a folder with a configuration, or a file of weights.
struct Part {
  std::string path;            ///< within the directory
  std::string description;     ///< its class: "UNet2DConditionModel"
  std::vector<Listing> files;  ///< of weights
  std::vector<std::string> problems;
};

/// Returns the class that the JSON file of a folder names, as diffusers and transformers write it.
std::string class_in(const fs::path& folder) {
  for (const char* name :
       {"model_index.json", "config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json"}) {
    if (!fs::is_regular_file(folder / name)) continue;
    std::ifstream stream(folder / name);
    const auto config = stream ? nlohmann::json::parse(stream, nullptr, false) : nlohmann::json();
    if (!config.is_object()) continue;
    for (const char* key : {"_class_name", "tokenizer_class", "feature_extractor_type"})
      if (const auto at = config.find(key); at != config.end() && at->is_string()) return *at;
    if (const auto at = config.find("architectures"); at != config.end() && at->is_array() && !at->empty() && at->front().is_string())
      return at->front();
  }
  return "";
}

std::vector<fs::path> sorted_entries(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

Part part_of(const fs::path& folder, const std::string& name) {
  constexpr std::array endings{".safetensors", ".bin", ".pt", ".pth", ".ckpt"};
  Part part{name, class_in(folder), {}, {}};
  for (const fs::path& path : sorted_entries(folder)) {
    if (std::find(endings.begin(), endings.end(), path.extension()) == endings.end() || !fs::is_regular_file(path)) continue;
    try {
      part.files.push_back(list_file(path.string()));
    } catch (const ConfigError& error) {
      part.problems.push_back(error.what());
    }
  }
  return part;
}

std::vector<Part> parts_of(const fs::path& directory) {
  std::vector<Part> parts{part_of(directory, ".")};
  for (const fs::path& path : sorted_entries(directory))
    if (fs::is_directory(path)) parts.push_back(part_of(path, path.filename().string()));
  const auto empty = [](const Part& part) { return part.description.empty() && part.files.empty() && part.problems.empty(); };
  parts.erase(std::remove_if(parts.begin(), parts.end(), empty), parts.end());
  if (parts.empty()) refuse(directory.string(), "is a directory without weights or configurations of models");
  return parts;
}

struct Totals {
  uint64_t tensors = 0, parameters = 0, bytes = 0;
  std::set<std::string> dtypes;
  explicit Totals(const std::vector<Listing::Row>& rows) {
    for (const auto& row : rows) {
      ++tensors, parameters += row.parameters(), bytes += row.bytes;
      dtypes.insert(row.dtype);
    }
  }
  std::string text() const { return fmt::format("{}, {} parameters, {} bytes", counted(tensors, "tensor"), parameters, bytes); }
};

std::string text_of(const Reception& reception) {
  if (reception.family.empty()) return "family: none that brume knows\n";
  std::string text = fmt::format("family: {}{}\n", reception.family, reception.use.empty() ? "" : ", " + reception.use);
  if (!reception.problem.empty()) text += fmt::format("cannot be imported: {}\n", reception.problem);
  for (const auto& loss : reception.losses) text += fmt::format("lost by an import: {}\n", loss);
  return text;
}

/// Returns the lines of YAML, each two further to the right for each level; what a file says is not to steer a terminal.
std::string indented(const std::string& yaml, size_t levels) {
  std::string text;
  for (size_t begin = 0, end; begin < yaml.size(); begin = end + 1) {
    end = std::min(yaml.find('\n', begin), yaml.size());
    const std::string_view line = std::string_view(yaml).substr(begin, end - begin);
    text += std::string(2 * levels, ' ') + shortened(line, line.size() + 1) + "\n";
  }
  return text;
}

std::string configuration_of(const Listing& listing) {
  const ModelMetadata metadata(listing.metadata);
  std::string text;
  for (const std::string& section : ModelMetadata::sections()) {
    const std::string* yaml = metadata.text(section);
    if (!yaml) continue;
    const bool whole = section == "config";
    if (!whole) text += fmt::format("  {}:\n", section);
    text += indented(*yaml, whole ? 1 : 2);
  }
  return text.empty() ? text : "configuration:\n" + text;
}

std::string metadata_of(const Listing& listing) {
  constexpr size_t max_name = 100;
  const size_t max_text = listing.image ? 1000 : 100;
  std::string text;
  for (const auto& [key, value] : listing.metadata)
    if (!ModelMetadata::is_section(key)) text += fmt::format("  {} = {}\n", shortened(key, max_name), shortened(value, max_text));
  return text;
}

std::string tensors_of(const Listing& listing) {
  constexpr size_t max_name = 100;
  size_t width = 0;
  for (const auto& row : listing.rows) width = std::max(width, std::min(row.name.size(), max_name));
  std::string text;
  for (const auto& row : listing.rows) {
    const auto shape = fmt::format("[{}]", fmt::join(row.shape, ", "));
    text += fmt::format("  {:<{}}  {:<8} {:<20} {:>12} bytes\n", shortened(row.name, max_name), width, row.dtype, shape, row.bytes);
  }
  return text.empty() ? text : "tensors:\n" + text;
}

std::string text_of(const Listing& listing) {
  const std::string head = fmt::format("{}: {}\n", listing.path, listing.format), metadata = metadata_of(listing);
  if (listing.image) return head + metadata;
  const std::string family = ModelMetadata(listing.metadata).is_training()
                                 ? "family: a training of brume, which can be resumed\n"
                                 : text_of(reception_of({listing.path, listing.tensors, listing.metadata}));
  return head + family + Totals(listing.rows).text() + "\n" + (metadata.empty() ? "" : "metadata:\n" + metadata) +
         configuration_of(listing) + tensors_of(listing);
}

std::string text_of(const Part& part) {
  std::string text = fmt::format("  {}{}\n", part.path, part.description.empty() ? "" : ": " + shortened(part.description));
  for (const auto& file : part.files) {
    const Totals totals(file.rows);
    text += fmt::format("    {}: {}, {}, {}\n", fs::path(file.path).filename().string(), file.format, totals.text(),
                        fmt::join(totals.dtypes, " and "));
  }
  for (const auto& problem : part.problems) text += fmt::format("    {}\n", problem);
  return text;
}

ordered_json json_of(const Listing& listing) {
  const Totals totals(listing.rows);
  ordered_json json{{"path", listing.path},         {"format", listing.format},
                    {"metadata", listing.metadata}, {"parameters", totals.parameters},
                    {"bytes", totals.bytes},        {"tensors", ordered_json::array()}};
  for (const auto& row : listing.rows)
    json["tensors"].push_back({{"name", row.name}, {"dtype", row.dtype}, {"shape", row.shape}, {"bytes", row.bytes}});
  return json;
}

ordered_json json_of(const Part& part) {
  ordered_json json{{"path", part.path}, {"class", part.description}, {"files", ordered_json::array()}, {"problems", part.problems}};
  for (const auto& file : part.files) json["files"].push_back(json_of(file));
  return json;
}

void add(ordered_json& json, const Reception& reception) {
  json["family"] = reception.family.empty() ? ordered_json() : ordered_json(reception.family);
  json["use"] = reception.use.empty() ? ordered_json() : ordered_json(reception.use);
  json["problem"] = reception.problem.empty() ? ordered_json() : ordered_json(reception.problem);
  json["losses"] = reception.losses;
}

/// Returns the text of JSON, with names that are no UTF-8 as well.
std::string written(const ordered_json& json) { return json.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n"; }

}  // namespace

std::string inspect(const std::string& path) {
  if (!fs::is_directory(path)) return text_of(list_file(path));
  std::string parts;
  for (const Part& part : parts_of(path)) parts += text_of(part);
  return fmt::format("{}: directory\n", path) + text_of(reception_of({path, {}, {}})) + "parts:\n" + parts;
}

std::string inspect_json(const std::string& path) {
  ordered_json json;
  if (fs::is_directory(path)) {
    json = {{"path", path}, {"format", "directory"}, {"parts", ordered_json::array()}};
    for (const Part& part : parts_of(path)) json["parts"].push_back(json_of(part));
    add(json, reception_of({path, {}, {}}));
  } else {
    const Listing listing = list_file(path);
    json = json_of(listing);
    add(json, reception_of({path, listing.tensors, listing.metadata}));
  }
  return written(json);
}

}  // namespace brume
