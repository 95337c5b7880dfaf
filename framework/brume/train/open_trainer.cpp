// Trainers from a configuration alone: they own the registry, unless the caller does, and the models that the training opens.
#include <fmt/format.h>

#include "brume/config/plugin_loader.h"
#include "brume/config/yaml.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/model_files.h"
#include "brume/train/resuming.h"
#include "brume/train/source.h"
#include "brume/train/trainer.h"

namespace brume {
namespace fs = std::filesystem;

std::unique_ptr<Trainer> Trainer::open(Value root, const fs::path& folder, const TrainerOptions& o) {
  auto own = o.registry ? nullptr : std::make_unique<Registry>();
  if (own) register_builtins(*own);
  Registry& registry = own ? *own : *o.registry;
  Resumed r;
  if (o.resume.empty())
    r.config = read_training(registry, std::move(root), folder, &r.resolved);
  else
    r = read_resumed(registry, o.resume, std::move(root));
  if (!r.config.train) throw ConfigError("the configuration has no section 'train'");
  if (!r.changes.empty()) warn(fmt::format("{}: goes on with other settings: {}", o.resume.string(), r.changes));
  auto models = std::make_unique<ModelFiles>(registry, resolve_compute(r.config.compute), folder);
  auto trainer = std::make_unique<Trainer>(r.config, std::move(r.resolved), o.directory, o.resume, *models, o.overwrite);
  trainer->registry_ = std::move(own);
  trainer->models_ = std::move(models);
  return trainer;
}

std::unique_ptr<Trainer> Trainer::from_yaml(const std::string& yaml, const TrainerOptions& options) {
  return open(parse_yaml(yaml, "configuration"), "", options);
}

std::unique_ptr<Trainer> Trainer::from_file(const fs::path& configuration, const TrainerOptions& options) {
  return open(load_yaml(configuration.string()), configuration.parent_path(), options);
}

}  // namespace brume
