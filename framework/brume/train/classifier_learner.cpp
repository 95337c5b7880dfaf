// A classifier that learns: cross-entropy, and accuracy on the test images.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/diffusion/class_names.h"
#include "brume/train/class_scores.h"
#include "brume/train/learner.h"

namespace brume {
namespace {

class ClassifierLearner final : public Learner {
 public:
  ClassifierLearner(const Config& config, const Value& resolved, const Compute& compute, uint64_t seed)
      : config_(config), resolved_(resolved), pipeline_(*config.classifier, compute, seed) {
    if (pipeline_.weights().empty()) throw ConfigError("classifier.network has no weights: there is nothing to train");
    if (!config.train->test) return;
    test_ = config.train->test->data.make({config.classifier->image});
    if (test_->size() == 0) throw ConfigError("train.test.data is endless; a test needs a set that ends");
    if (int64_t(test_->classes().size()) != config.classifier->classes)
      throw ConfigError(fmt::format("classifier has {} and train.test.data has {}", counted(config.classifier->classes, "class"),
                                    test_->classes().size()));
    test_ = with_classes(test_, "train.test.data", {config.classifier->class_names, "the classifier"});
  }

  std::vector<TrainedModule> modules() const override { return {model_module(pipeline_.weights(), *config_.train)}; }

  Loss loss(const Batch& batch, int64_t, at::Generator& random) override {
    const ClassifierPipeline::Loss l = pipeline_.loss(batch.images, batch.annotations, config_.train->label_smoothing, random);
    return {l.loss, {{"accuracy", l.accuracy}}};
  }

  Metrics test(const std::vector<Weight>& averaged, const std::function<bool()>& stop) override {
    if (!test_) return {};
    take(averaged);
    ClassScores scores;
    bool whole = true;
    const int64_t batch = std::min<int64_t>(256, images_at_once(*config_.train));
    for_each_batch(*test_, config_.classifier->image, batch, 0, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
      scores.add(averaged_->classify(images).logits.cpu(), averaged_->labels(annotations));
      return whole = !(stop && stop());
    });
    if (!whole) return {};
    return {{"test_loss", scores.mean_loss()}, {"test_accuracy", scores.accuracy()}};
  }

  bool preview(const std::vector<Weight>&, const std::filesystem::path&) override { return false; }

  ModelCard card(const std::vector<Weight>&) override {
    ModelCard card;
    card.classifier = *resolved_.find("classifier");
    card.plugins = config_.model_plugins;
    return card;
  }

 private:
  void take(const std::vector<Weight>& averaged) {
    const at::NoGradGuard no_grad;
    if (!averaged_) {
      averaged_ = std::make_unique<ClassifierPipeline>(*config_.classifier, pipeline_.compute(), 0);
      averaged_->freeze();
    }
    const std::vector<Weight> into = averaged_->weights();
    for (size_t i = 0; i < into.size(); ++i) Tensor(into[i].tensor).copy_(averaged[i].tensor);
  }

  Config config_;
  Value resolved_;
  ClassifierPipeline pipeline_;
  std::unique_ptr<ClassifierPipeline> averaged_;
  std::shared_ptr<const Dataset> test_;
};

}  // namespace

std::unique_ptr<Learner> make_classifier_learner(const Config& config, const Value& resolved, const Compute& compute,
                                                 const LearnerOrigin& origin) {
  return std::make_unique<ClassifierLearner>(config, resolved, compute, origin.seed);
}

}  // namespace brume
