#pragma once
// What the tests of classifiers share: a tiny one on grey shapes, trained for a moment.
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/classifier_pipeline.h"
#include "brume/train/trainer.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {

/// `more`: further keys of the classifier; `train`: of the training.
inline std::string tiny_classifier(int64_t steps, const std::string& more = "", const std::string& train = "") {
  return fmt::format(
      "classifier:\n"
      "  image: {{channels: 1, height: 16, width: 16}}\n"
      "  network: {{type: unet_encoder, channels: 16, multipliers: [1, 2], blocks: 1, groups: 4, heads: 2, middle_attention: false, "
      "dropout: 0.1}}\n"
      "  classes: 5\n{}"
      "train:\n"
      "  data: {{type: shapes, label: form, rotation: 0, position: 0.2, backgrounds: [dark]}}\n"
      "  optimizer: {{type: adamw, lr: 0.004, warmup: 10}}\n"
      "  batch: 32\n  steps: {}\n  ema: {{decay: 0.9}}\n  log_every: 10\n{}"
      "compute: {{precision: fp32, threads: 2}}\n",
      more, steps, train);
}

struct ReadConfig {
  Registry registry = builtins();
  Value resolved;
  Config config;
  explicit ReadConfig(const std::string& yaml) { config = read_configuration(registry, parse_yaml(yaml, "x.yaml"), &resolved); }
  explicit ReadConfig(const Value& root) { config = read_configuration(registry, root, &resolved); }
};

/// Trains into `folder`; stops after `stop_at` steps if that is given.
inline void train_into(const std::string& yaml, const std::filesystem::path& folder, int64_t stop_at = -1) {
  const ReadConfig read(yaml);
  Trainer trainer(read.config, read.resolved, folder);
  trainer.run([&] { return trainer.step() == stop_at; });
}

inline std::vector<nlohmann::json> metrics_of(const std::filesystem::path& folder) {
  std::vector<nlohmann::json> lines;
  std::ifstream in(folder / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// A classifier out of a run's folder.
inline std::unique_ptr<ClassifierPipeline> trained(const std::filesystem::path& folder) {
  const std::string file = (folder / "model.safetensors").string();
  Value root = Value::map();
  root.set("classifier", read_classifier_card(file).classifier);
  ReadConfig read(root);
  auto classifier = std::make_unique<ClassifierPipeline>(*read.config.classifier, Compute{});
  load_weights(file, classifier->weights());
  classifier->freeze();
  return classifier;
}

}  // namespace brume::test
