#pragma once
// Classes of two origins compared by name: those of a model, a data set, a classifier, a teacher.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "brume/core/model_source.h"

namespace brume {
class Dataset;

/// The names of classes by number, and whose they are in messages: "train.data".
struct ClassList {
  std::vector<std::string> names;
  std::string owner;
};

/// Returns the number in `to` of each class of `from`, names being compared in normalization form C; empty if the lists are the same, or if
/// one side has no names (or only "0", "1", ...). Throws ConfigError with both lists if `to` lacks a name of `from`, or has one twice.
std::vector<int64_t> class_numbers(const ClassList& from, const ClassList& to);

/// Returns the data set `data`, called `owner`, with the labels of `to`; itself if they are its own. Throws ConfigError as class_numbers().
std::shared_ptr<const Dataset> with_classes(std::shared_ptr<const Dataset> data, const std::string& owner, const ClassList& to);

/// Opens the models that a model with the classes `own` works with: classifiers are given their own numbers of its classes. Throws
/// ConfigError if their names are not the same, and for a diffusion model if they have another order.
class SameClasses final : public ModelSource {
 public:
  /// Makes the source of a model with the classes `own`. `models` must outlive it.
  SameClasses(const ModelSource& models, ClassList own);
  OtherModel model(const std::string& path) const override;
  std::shared_ptr<const NoisyClassifier> classifier(const std::string& path) const override;
  FirstStage first_stage(const std::string& path, const ImageShape& image, at::ScalarType dtype) const override;
  std::shared_ptr<const Classifier> features(const std::string& path) const override;

 private:
  const ModelSource& models_;
  ClassList own_;
};

}  // namespace brume
