#pragma once
// Other models, for tests: given, not opened.
#include <memory>
#include <string>
#include <utility>

#include "brume/core/model_source.h"

namespace brume::test {

/// Whatever the path, the same model and the same classifier.
class GivenModels final : public ModelSource {
 public:
  explicit GivenModels(std::shared_ptr<const NoisyClassifier> classifier, OtherModel model = {})
      : classifier_(std::move(classifier)), model_(std::move(model)) {}
  OtherModel model(const std::string&) const override { return model_; }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { return classifier_; }

 private:
  std::shared_ptr<const NoisyClassifier> classifier_;
  OtherModel model_;
};

}  // namespace brume::test
