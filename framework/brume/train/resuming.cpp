#include "brume/train/resuming.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/core/lr_schedule.h"
#include "brume/train/differences.h"
#include "brume/train/source.h"
#include "brume/train/trainer.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Returns true if the state of the optimizers belongs to other weights after the change.
bool of_the_optimizers(const Difference& d) {
  return d.path == "train.discriminator" || d.path.starts_with("train.freeze") || d.path.starts_with("train.train_only") ||
         d.path.starts_with("train.adapters");
}

/// Returns true if the learning rate of the optimizer depends on the number of steps.
bool decays(const Registry& registry, const Value& resolved) {
  if (!nearest(resolved, "train.optimizer.decay.type").is_scalar()) return false;
  return create<LearningRateSchedule>(registry, nearest(resolved, "train.optimizer.decay"))->depends_on_steps();
}

/// Reads the metadata of a training file. Throws ConfigError if the file is no training file.
ModelMetadata training_metadata(const fs::path& file) {
  ModelMetadata::Entries entries;
  load_tensors(file.string(), &entries);
  ModelMetadata metadata(std::move(entries));
  check_training(metadata, file);
  return metadata;
}

/// Removes `plugins:` and returns the libraries that it named.
std::vector<std::string> take_plugins(Value& root) {
  std::vector<std::string> libraries;
  if (const Value* named = root.find("plugins"))
    for (const Value& library : named->items) libraries.push_back(library.scalar);
  root.erase("plugins");
  return libraries;
}

}  // namespace

Resumed read_resumed(Registry& registry, const fs::path& file, const std::optional<Value>& given,
                     const std::function<void(Value&)>& change) {
  Value stored = training_configuration(file), stored_resolved;
  const std::vector<std::string> libraries = take_plugins(stored);
  Value root = given ? *given : stored;
  if (change) change(root);
  if (given) complete_model(root, stored);
  Resumed r;
  r.config = read_stored_configuration(registry, root, file.string(), given ? std::vector<std::string>{} : libraries, &r.resolved);
  read_stored_configuration(registry, stored, file.string(), libraries, &stored_resolved);
  r.changes = changes_since(registry, stored_resolved, r.resolved, root);
  return r;
}

std::string changes_since(const Registry& registry, const Value& stored, const Value& resolved, const Value& given) {
  std::vector<Difference> changes = differences(stored, resolved);
  std::erase_if(changes, [](const Difference& d) {  // a resumed training opens no source
    return d.path.starts_with("plugins") || d.path == "train.from" || d.path.starts_with("train.adopt") || d.left_to_data();
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
    if (d.path == "train.steps" && decays(registry, resolved)) line += " (the learning rate decays towards the new number)";
  }
  if (!refused.empty()) throw ConfigError(std::move(refused));
  return line;
}

void check_training(const ModelMetadata& metadata, const fs::path& file) {
  if (!metadata.is_training())
    throw ConfigError(fmt::format("{}: not a training file (resuming needs training.safetensors, not the model)", file.string()));
}

Value training_configuration(const fs::path& file) {
  const ModelMetadata metadata = training_metadata(file);
  metadata.check_format(file.string());
  return metadata.required("config", file.string());
}

int64_t training_step(const fs::path& file) { return training_metadata(file).step(file.string()); }

}  // namespace brume
