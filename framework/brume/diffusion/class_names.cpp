#include "brume/diffusion/class_names.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <ranges>
#include <set>

#include "brume/config/errors.h"
#include "brume/core/buckets.h"
#include "brume/core/dataset.h"
#include "brume/core/image_files.h"
#include "brume/core/names_classes.h"
#include "brume/text/unicode.h"

namespace brume {
namespace {

bool are_numbers(const std::vector<std::string>& names) {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] != std::to_string(i)) return false;
  return true;
}

std::string listed(const ClassList& list) {
  constexpr size_t most = 50;
  const std::vector<std::string> shown(list.names.begin(), list.names.begin() + int64_t(std::min(most, list.names.size())));
  return fmt::format("{} has [{}{}]", list.owner, fmt::join(shown, ", "), list.names.size() > most ? ", ..." : "");
}

class Relabelled : public Dataset {
 public:
  Relabelled(std::shared_ptr<const Dataset> data, std::vector<int64_t> numbers, std::vector<std::string> names)
      : data_(std::move(data)), numbers_(std::move(numbers)), names_(std::move(names)) {}
  int64_t size() const override { return data_->size(); }
  const std::vector<std::string>& classes() const override { return names_; }
  std::optional<EncodedSet> encoded() const override { return data_->encoded(); }
  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    return relabelled(data_->read(index, draw, pixels));
  }

 protected:
  Annotation relabelled(Annotation a) const {
    if (a.label >= 0) a.label = numbers_.at(size_t(a.label));
    return a;
  }
  std::shared_ptr<const Dataset> data_;

 private:
  std::vector<int64_t> numbers_;
  std::vector<std::string> names_;
};

class RelabelledFiles final : public Relabelled, public ImageFiles, public Buckets {
 public:
  using Relabelled::Relabelled;
  const Inventory& inventory() const override { return files().inventory(); }
  void check_image(int64_t index) const override { files().check_image(index); }
  bool skips_errors() const override { return files().skips_errors(); }
  std::vector<ImageShape> buckets() const override { return inner() ? inner()->buckets() : std::vector<ImageShape>{}; }
  size_t bucket_of(int64_t index) const override { return inner()->bucket_of(index); }
  Annotation read_bucket(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    return relabelled(inner()->read_bucket(index, draw, pixels));
  }

 private:
  const Buckets* inner() const { return buckets_of(*data_); }
  const ImageFiles& files() const { return dynamic_cast<const ImageFiles&>(*data_); }
};

class RelabelledClassifier final : public NoisyClassifier {
 public:
  RelabelledClassifier(std::shared_ptr<const NoisyClassifier> classifier, const std::vector<int64_t>& numbers,
                       std::vector<std::string> names)
      : classifier_(std::move(classifier)), numbers_(at::tensor(numbers)), names_(std::move(names)) {}
  Tensor log_probability(const Tensor& x, double sigma, const Tensor& classes) const override {
    return classifier_->log_probability(x, sigma, numbers_.index_select(0, classes.cpu()).to(classes.device()));
  }
  const std::vector<std::string>& classes() const override { return names_; }
  ImageShape shape() const override { return classifier_->shape(); }

 private:
  std::shared_ptr<const NoisyClassifier> classifier_;
  Tensor numbers_;
  std::vector<std::string> names_;
};

}  // namespace

std::vector<int64_t> class_numbers(const ClassList& from, const ClassList& to) {
  if (from.names.empty() || to.names.empty() || from.names == to.names || are_numbers(from.names) || are_numbers(to.names)) return {};
  std::map<std::string, int64_t> known;
  for (const std::string& name : to.names) known.emplace(text::composed(name), int64_t(known.size()));
  std::vector<int64_t> numbers;
  std::set<int64_t> found;
  for (const std::string& name : from.names) {
    const auto at = known.find(text::composed(name));
    if (at == known.end() || known.size() != to.names.size() || !found.insert(at->second).second)
      throw ConfigError(fmt::format("the names of the classes differ: {}, and {}", listed(from), listed(to)));
    numbers.push_back(at->second);
  }
  const bool same = std::ranges::is_sorted(numbers) && numbers.back() == int64_t(numbers.size()) - 1;
  return same && from.names.size() == to.names.size() ? std::vector<int64_t>() : numbers;
}

std::shared_ptr<const Dataset> with_classes(std::shared_ptr<const Dataset> data, const std::string& owner, const ClassList& to) {
  std::vector<int64_t> numbers = class_numbers({data->classes(), owner}, to);
  if (numbers.empty()) return data;
  if (dynamic_cast<const ImageFiles*>(data.get())) return std::make_shared<RelabelledFiles>(std::move(data), std::move(numbers), to.names);
  return std::make_shared<Relabelled>(std::move(data), std::move(numbers), to.names);
}

SameClasses::SameClasses(const ModelSource& models, ClassList own) : models_(models), own_(std::move(own)) {}

OtherModel SameClasses::model(const std::string& path) const {
  OtherModel other = models_.model(path);
  const ClassList theirs{class_names_of(*other.denoiser), path};
  const std::vector<int64_t> numbers = class_numbers(own_, theirs);
  if (!std::ranges::equal(numbers, std::views::iota(int64_t(0), int64_t(numbers.size()))))
    throw ConfigError(fmt::format("the classes have another order: {}, and {}", listed(theirs), listed(own_)));
  return other;
}

std::shared_ptr<const NoisyClassifier> SameClasses::classifier(const std::string& path) const {
  auto classifier = models_.classifier(path);
  const std::vector<int64_t> numbers = class_numbers(own_, {classifier->classes(), path});
  if (numbers.empty()) return classifier;
  return std::make_shared<RelabelledClassifier>(std::move(classifier), numbers, own_.names);
}

FirstStage SameClasses::first_stage(const std::string& path, const ImageShape& image, at::ScalarType dtype) const {
  return models_.first_stage(path, image, dtype);
}

std::shared_ptr<const Classifier> SameClasses::features(const std::string& path) const { return models_.features(path); }

}  // namespace brume
