// The features of a classifier that brume trained: what its last linear layer sees, of images without noise.
#include <filesystem>

#include "brume/config/registry.h"
#include "brume/core/features.h"
#include "brume/core/names_classes.h"

namespace brume::plugins {
namespace {

class ClassifierFeatures final : public Features, public NamesClasses {
 public:
  struct Options {
    std::filesystem::path path;
    void declare(Fields& f) { f.field("path", path, "model.safetensors of a classifier, or the directory of its training"); }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the checkpoint of a classifier is missing");
  }
  ClassifierFeatures(const Options& o, const Context& context) : classifier_(context.classifier(o.path.string())) {}

  std::string name() const override { return classifier_->name(); }
  std::string hash() const override { return classifier_->hash(); }
  at::ScalarType dtype() const override { return classifier_->dtype(); }
  ImageShape input() const override { return classifier_->input(); }
  std::string preprocessing() const override { return classifier_->preprocessing(); }
  int64_t width() const override { return classifier_->width(); }
  int64_t classes() const override { return classifier_->classes(); }
  std::vector<std::string> class_names() const override { return class_names_of(*classifier_); }
  Output extract(const Tensor& images) const override { return classifier_->extract(images); }

 private:
  std::shared_ptr<const Features> classifier_;
};

}  // namespace

void register_feature_classifier(Registry& r) {
  r.add<Features, ClassifierFeatures>("classifier", "the features of a classifier trained by brume, and its verdict");
}

}  // namespace brume::plugins
