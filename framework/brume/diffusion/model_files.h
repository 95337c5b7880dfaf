#pragma once
// The models that a configuration names in addition to its own.
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "brume/config/registry.h"
#include "brume/core/model_source.h"
#include "brume/diffusion/compute.h"

namespace brume {
class Features;

/// Returns `path` as it is found in `folder`, that of the file which names it, or in the current one. Throws ConfigError if it is in
/// neither.
std::string find_model(const std::filesystem::path& folder, const std::string& path);

/// Opens checkpoints, each once, frozen, on the device and at the precision that `compute` says. A relative path is looked for in `folder`,
/// that of the file which names it, then in the current one.
class ModelFiles final : public ModelSource {
 public:
  ModelFiles(const Registry& registry, const Compute& compute, std::filesystem::path folder);
  OtherModel model(const std::string& path) const override;
  std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const override;
  FirstStage first_stage(const std::string& path, const ImageShape& image, at::ScalarType dtype) const override;
  std::shared_ptr<const Classifier> features(const std::string& path) const override;
  /// Opens a classifier as an extractor of features (Features::Context::classifier).
  std::shared_ptr<const Features> classifier_features(const std::string& path) const;

 private:
  std::string find(const std::string& path) const { return find_model(folder_, path); }

  const Registry& registry_;
  Compute compute_;
  std::filesystem::path folder_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, OtherModel> models_;
  mutable std::map<std::string, std::shared_ptr<const NoisyClassifier>> classifiers_;
};

}  // namespace brume
