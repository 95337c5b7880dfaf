#include "brume/train/resuming.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "brume/config/version.h"
#include "brume/config/yaml.h"
#include "brume/train/differences.h"
#include "brume/train/trainer.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Whether the state of the optimizers belongs to other weights after the change.
bool of_the_optimizers(const Difference& d) { return d.path == "train.discriminator" || d.path.starts_with("train.freeze"); }

/// Whether the learning rate of the optimizer depends on the number of steps.
bool decays(const Value& resolved) {
  const Value& decay = nearest(resolved, "train.optimizer.decay");
  return decay.is_scalar() && decay.scalar != "constant";
}

using Metadata = std::map<std::string, std::string>;

/// Returns the metadata of a training file. Throws ConfigError if it is none.
Metadata training_metadata(const fs::path& file) {
  Metadata metadata;
  load_tensors(file.string(), &metadata);
  if (!metadata.contains("brume.config"))
    throw ConfigError(fmt::format("{}: not a training file (resuming needs training.safetensors, not the model)", file.string()));
  return metadata;
}

/// Returns a count in the metadata of a training file.
int64_t count_in(const Metadata& metadata, const std::string& key, const fs::path& file) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) throw ConfigError(fmt::format("{}: is damaged: its metadata has no '{}'", file.string(), key));
  const std::string& text = it->second;
  int64_t count = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count < 0)
    throw ConfigError(fmt::format("{}: is damaged: its metadata '{}' is '{}', expected a count from 0 on", file.string(), key, text));
  return count;
}

}  // namespace

std::string changes_since(const Value& stored, const Value& resolved, const Value& given) {
  std::vector<Difference> changes = differences(stored, resolved);
  std::erase_if(changes, [](const Difference& d) {  // a resumed training opens no source
    return d.path.starts_with("plugins") || d.path == "train.from" || d.left_to_data();
  });
  std::vector<Problem> refused;
  std::string line;
  for (const Difference& d : changes) {
    const auto refuse = [&, &d = d](const char* what) {
      refused.push_back({nearest(given, d.path).place, "",
                         fmt::format("{} cannot be changed: {} is {} and would be {}", what, d.path, d.before, d.after)});
    };
    if (d.of_model()) refuse("a training's model");
    if (of_the_optimizers(d)) refuse("the weights of a training's optimizers");
    line += fmt::format("{}{} {} -> {}", line.empty() ? "" : ", ", d.path, d.before, d.after);
    if (d.path == "train.steps" && decays(resolved)) line += " (the learning rate decays towards the new number)";
  }
  if (!refused.empty()) throw ConfigError(std::move(refused));
  return line;
}

Value training_configuration(const fs::path& file) {
  Metadata metadata = training_metadata(file);
  if (const int64_t format = count_in(metadata, "brume.format", file); format > model_format)
    throw ConfigError(fmt::format("{}: written by brume {} in format {}; this is brume {}, which reads up to format {}", file.string(),
                                  metadata["brume.version"], format, version(), model_format));
  return parse_stored_yaml(metadata["brume.config"], file.string());
}

int64_t training_step(const fs::path& file) { return count_in(training_metadata(file), "brume.step", file); }

}  // namespace brume
