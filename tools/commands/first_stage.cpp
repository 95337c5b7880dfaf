#include "commands/first_stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "brume/config/yaml.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/fingerprint.h"
#include "brume/diffusion/model_files.h"

namespace brume::tools {
namespace {

void settle(OpenedFirstStage& stage) {
  for (const Weight& w : stage.autoencoder->weights()) {
    Tensor(w.tensor).set_requires_grad(false);
    if (!stage.compute.device.is_cpu()) Tensor(w.tensor).set_data(w.tensor.to(stage.compute.device));
  }
  stage.fingerprint = fingerprint(*stage.autoencoder, stage.type);
}

OpenedFirstStage from_checkpoint(Program& program, const std::string& source, const Overrides& overrides) {
  if (!overrides.set.empty()) throw ConfigError(fmt::format("--set {}: a checkpoint's autoencoder cannot be changed", overrides.set[0]));
  Value root = Value::map();
  root.set("autoencoder", read_autoencoder_card(source).autoencoder);
  overrides.apply(root);
  const Config config = read_stored_configuration(program.registry, root, source, read_autoencoder_card(source).plugins);
  OpenedFirstStage stage{nullptr, config.autoencoder->network.type(), "", config.image(), resolve_compute(config.compute), {}};
  const ModelFiles files(program.registry, stage.compute, "");
  stage.autoencoder = files.first_stage(source, stage.image, stage.compute.dtype).autoencoder;
  settle(stage);
  return stage;
}

OpenedFirstStage from_configuration(Program& program, const std::string& source, const Overrides& overrides) {
  Value root = load_yaml(source);
  overrides.apply(root);
  const Config config = read_configuration(program.registry, root);
  if (config.classifier) throw ConfigError(fmt::format("{}: is the configuration of a classifier, which has no first stage", source));
  const Deferred<Autoencoder>& chosen = config.autoencoder ? config.autoencoder->network : config.model.autoencoder;
  OpenedFirstStage stage{nullptr, chosen.type(), "", config.image(), resolve_compute(config.compute), {}};
  const ModelFiles files(program.registry, stage.compute, std::filesystem::path(source).parent_path());
  stage.autoencoder = chosen.make({stage.image, 0, nullptr, &files, stage.compute.dtype});
  const std::vector<Weight> weights = stage.autoencoder->weights();
  const bool untrained = std::any_of(weights.begin(), weights.end(), [](const Weight& w) { return w.trainable; });
  if (untrained && !stage.autoencoder->stored_as())
    throw ConfigError(
        fmt::format("{}: its autoencoder ({}) has weights; train it, then give the run's model.safetensors", source, stage.type));
  if (config.train) stage.data = config.train->data;
  settle(stage);
  return stage;
}

}  // namespace

OpenedFirstStage open_first_stage(Program& program, const std::string& source, const Overrides& overrides) {
  const bool yaml = source.ends_with(".yaml") || source.ends_with(".yml");
  return yaml ? from_configuration(program, source, overrides) : from_checkpoint(program, source, overrides);
}

}  // namespace brume::tools
