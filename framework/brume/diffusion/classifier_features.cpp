#include "brume/diffusion/classifier_features.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include "brume/core/names_classes.h"

namespace brume {
namespace {

class OfPipeline final : public Features, public NamesClasses {
 public:
  OfPipeline(std::shared_ptr<const ClassifierPipeline> classifier, const std::string& name, const std::string& hash)
      : classifier_(std::move(classifier)), name_("classifier " + name), hash_(hash) {
    const ImageShape s = input();
    width_ = extract(at::zeros({1, s.channels, s.height, s.width})).features.size(1);
  }
  std::string name() const override { return name_; }
  std::string hash() const override { return hash_; }
  at::ScalarType dtype() const override { return classifier_->compute().dtype; }
  ImageShape input() const override { return classifier_->options().image; }
  std::string preprocessing() const override { return "none"; }
  int64_t width() const override { return width_; }
  int64_t classes() const override { return classifier_->options().classes; }
  std::vector<std::string> class_names() const override { return classifier_->options().class_names; }
  Output extract(const Tensor& images) const override {
    const ImageShape given{images.size(1), images.size(2), images.size(3)};
    if (given != input()) throw ConfigError(fmt::format("{} takes {} images, not {}", name_, input().text(), given.text()));
    const Classifier::Output y = classifier_->classify(images);
    return {y.features.cpu(), y.logits.cpu(), {}};
  }

 private:
  std::shared_ptr<const ClassifierPipeline> classifier_;
  std::string name_, hash_;
  int64_t width_ = 0;
};

}  // namespace

std::shared_ptr<const Features> features_of(std::shared_ptr<const ClassifierPipeline> classifier, const std::string& name,
                                            const std::string& hash) {
  return std::make_shared<OfPipeline>(std::move(classifier), name, hash);
}

}  // namespace brume
