#include "brume/diffusion/model_files.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/split.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/yaml.h"
#include "brume/core/names_classes.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/classifier_features.h"
#include "brume/diffusion/classifier_pipeline.h"
#include "brume/diffusion/configuration.h"
#include "brume/diffusion/pipeline.h"
#include "brume/files/hub_cache.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/interop/import/import.h"

namespace brume {
namespace {

/// A denoiser with the model it belongs to.
class Frozen final : public Denoiser, public NamesClasses {
 public:
  Frozen(const ModelOptions& options, const Compute& compute, const std::string& file, const StoredModel& stored)
      : pipeline_(options, compute, StoredWeights{file, stored.tensors, stored.card.files}), denoiser_(pipeline_.denoiser()) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    return denoiser_->denoise(x, sigma, condition);
  }
  std::vector<std::string> class_names() const override { return pipeline_.options().class_names; }
  const Pipeline& pipeline() const { return pipeline_; }

 private:
  Pipeline pipeline_;
  std::shared_ptr<const Denoiser> denoiser_;
};

/// log p(y | x): the softmax of a classifier that knows noise.
class FrozenClassifier final : public NoisyClassifier {
 public:
  FrozenClassifier(const ClassifierOptions& options, const Compute& compute, const std::string& file)
      : pipeline_(options, compute), names_(options.class_names) {
    load_model(file, pipeline_.weights());
    pipeline_.freeze();
    for (int64_t i = int64_t(names_.size()); i < options.classes; ++i) names_.push_back(std::to_string(i));
  }
  Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const override {
    const auto of = [&](const Tensor& part) { return pipeline_.classify(part, std::vector<double>(size_t(part.size(0)), sigma)).logits; };
    Tensor logits;
    if (x.device().is_cpu()) {  // image by image: with gradients, LibTorch's operations take paths that depend on the batch
      std::vector<Tensor> rows;
      for (const Tensor& image : x.split(1)) rows.push_back(of(image));
      logits = at::cat(rows);
    } else {
      logits = of(x);
    }
    return logits.log_softmax(1).gather(1, classes.to(logits.device()).unsqueeze(1)).squeeze(1);
  }
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return pipeline_.options().image; }

 private:
  ClassifierPipeline pipeline_;
  std::vector<std::string> names_;
};

/// The network of a classifier, for what it sees.
class FrozenFeatures final : public Classifier {
 public:
  FrozenFeatures(const ClassifierOptions& options, const Compute& compute, const std::string& file) : pipeline_(options, compute) {
    load_model(file, pipeline_.weights());
    for (Weight& w : pipeline_.weights()) w.tensor.set_requires_grad(false);
  }
  Output forward(const Tensor& input, const Tensor& c_noise, at::Generator* dropout) const override {
    return pipeline_.network().forward(input, c_noise, dropout);
  }
  NoiseQuantity quantity() const override { return pipeline_.network().quantity(); }
  std::vector<Weight> weights() const override { return pipeline_.weights(); }

 private:
  ClassifierPipeline pipeline_;
};

}  // namespace

ModelFiles::ModelFiles(const Registry& registry, const Compute& compute, std::filesystem::path folder)
    : registry_(registry), compute_(compute), folder_(std::move(folder)) {}

std::string find_model(const std::filesystem::path& folder, const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path in_folder = folder / path;
  if (fs::exists(in_folder)) return in_folder.lexically_normal().string();
  if (fs::exists(path)) return fs::path(path).lexically_normal().string();
  if (const std::string fetched = from_hub(path); fetched != path) return fetched;
  const bool two = fs::path(path).is_relative() && !folder.empty();
  throw ConfigError(two ? fmt::format("there is no file '{}', neither in '{}' nor in the current folder", path, folder.string())
                        : fmt::format("there is no file '{}'", path));
}

OtherModel ModelFiles::model(const std::string& path) const {
  const std::string file = find(path);
  const std::lock_guard lock(mutex_);
  if (const auto it = models_.find(file); it != models_.end()) return it->second;
  const StoredModel stored = open_stored(file);
  const auto options = read_section<ModelOptions>(registry_, "model", stored.card.model, file, stored.card.plugins);
  const auto frozen = std::make_shared<const Frozen>(options, compute_, file, stored);
  const auto tapped = [frozen](Taps taps) { return frozen->pipeline().denoiser(TimestepRounding::exact, {}, std::move(taps)); };
  return models_[file] = {frozen,
                          options.noise,
                          frozen->pipeline().latent(),
                          options.controls().classes,
                          options.controls().has_null,
                          frozen->pipeline().network().tap_points(),
                          tapped};
}

std::shared_ptr<const NoisyClassifier> ModelFiles::classifier(const std::string& path) const {
  const std::string file = find(path);
  const std::lock_guard lock(mutex_);
  if (const auto it = classifiers_.find(file); it != classifiers_.end()) return it->second;
  const ModelCard card = read_classifier_card(file);
  const auto options = read_section<ClassifierOptions>(registry_, "classifier", card.classifier, file, card.plugins);
  if (!options.noise)
    throw ConfigError(
        fmt::format("{}: was trained on clean images; guidance needs a classifier that knows noise (classifier.noise)", file));
  return classifiers_[file] = std::make_shared<const FrozenClassifier>(options, compute_, file);
}

FirstStage ModelFiles::first_stage(const std::string& path, const ImageShape& image, at::ScalarType dtype) const {
  const std::string file = find(path);
  const ModelCard card = read_autoencoder_card(file);
  const auto options = read_section<AutoencoderOptions>(registry_, "autoencoder", card.autoencoder, file, card.plugins);
  if (options.image.channels != image.channels)
    throw ConfigError(
        fmt::format("{}: is for images of {}, and model.image has {}", file, counted(options.image.channels, "channel"), image.channels));
  const Files stored = load_files(file);
  const auto autoencoder = options.network.make({image, 0, &stored, this, dtype});
  load_model(file, prefixed("autoencoder.", autoencoder->weights()));
  return {autoencoder, dump_yaml(*card.autoencoder.find("network"))};
}

std::shared_ptr<const Classifier> ModelFiles::features(const std::string& path) const {
  const std::string file = find(path);
  const ModelCard card = read_classifier_card(file);
  const auto options = read_section<ClassifierOptions>(registry_, "classifier", card.classifier, file, card.plugins);
  return std::make_shared<FrozenFeatures>(options, compute_, file);
}

std::shared_ptr<const Features> ModelFiles::classifier_features(const std::string& path) const {
  const std::string file = model_file(find(path));
  const ModelCard card = read_classifier_card(file);
  auto classifier = std::make_shared<ClassifierPipeline>(
      read_section<ClassifierOptions>(registry_, "classifier", card.classifier, file, card.plugins), compute_);
  load_model(file, classifier->weights());
  classifier->freeze();
  return features_of(std::move(classifier), file, sha256(MappedFile::open(file)->bytes()));
}

}  // namespace brume
