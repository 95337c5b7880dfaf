#include "brume/train/prior_preservation.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "brume/config/errors.h"
#include "brume/core/buckets.h"
#include "brume/core/conditioner.h"
#include "brume/core/image_files.h"
#include "brume/core/loss_weights.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/files/mapped_file.h"
#include "brume/image/image.h"
#include "brume/image/image_finder.h"
#include "brume/image/resize_crop.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// The images of a set, then as many readings of images of a class.
class WithPrior final : public Dataset, public ImageFiles, public Buckets, public LossWeights {
 public:
  WithPrior(std::shared_ptr<const Dataset> own, std::vector<fs::path> files, const PriorOptions& o, const ImageShape& shape)
      : own_(std::move(own)),
        files_(dynamic_cast<const ImageFiles*>(own_.get())),
        buckets_(buckets_of(*own_)),
        weights_(loss_weights_of(*own_)),
        class_files_(std::move(files)),
        o_(o),
        shape_(shape) {
    if (!buckets_) return;
    shapes_ = buckets_->buckets();
    bucket_ = size_t(std::find(shapes_.begin(), shapes_.end(), shape_) - shapes_.begin());
    if (bucket_ == shapes_.size()) shapes_.push_back(shape_);
  }
  int64_t size() const override { return 2 * own_->size(); }
  const std::vector<std::string>& classes() const override { return own_->classes(); }
  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    return is_own(index) ? own_->read(index, draw, pixels) : read_class(index, draw, pixels);
  }

  std::vector<ImageShape> buckets() const override { return shapes_; }
  size_t bucket_of(int64_t index) const override { return is_own(index) ? buckets_->bucket_of(index) : bucket_; }
  Annotation read_bucket(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    return is_own(index) ? buckets_->read_bucket(index, draw, pixels) : read_class(index, draw, pixels);
  }

  bool weighs() const override { return weights_ || o_.loss_weight != 1; }
  void read_weights(int64_t index, uint64_t draw, const ImageShape& shape, std::span<float> weights) const override {
    if (is_own(index) && weights_) return weights_->read_weights(index, draw, shape, weights);
    std::fill(weights.begin(), weights.end(), is_own(index) ? 1.0f : float(o_.loss_weight));
  }

  const Inventory& inventory() const override { return files_ ? files_->inventory() : none_; }
  bool skips_errors() const override { return files_ && files_->skips_errors(); }
  void check_image(int64_t index) const override {
    if (is_own(index) && files_) files_->check_image(index);
    if (!is_own(index)) fit_.check_file(MappedFile::open(class_file(index))->bytes(), class_file(index), shape_);
  }

 private:
  bool is_own(int64_t index) const {
    if (index < 0 || index >= size()) throw std::out_of_range(fmt::format("image {} of {} with those of the class", index, size()));
    return index < own_->size();
  }
  std::string class_file(int64_t index) const { return class_files_[size_t(index - own_->size()) % class_files_.size()].string(); }
  Annotation read_class(int64_t index, uint64_t draw, std::span<float> pixels) const {
    const std::string file = class_file(index);
    const SizeIds sizes = fit_.read(MappedFile::open(file)->bytes(), file, shape_, draw, pixels);
    return {.label = -1, .caption = o_.class_prompt, .sizes = sizes};
  }

  std::shared_ptr<const Dataset> own_;
  const ImageFiles* files_;
  const Buckets* buckets_;
  const LossWeights* weights_;
  std::vector<fs::path> class_files_;
  PriorOptions o_;
  ImageShape shape_;
  ResizeCrop fit_;
  std::vector<ImageShape> shapes_;  ///< of the buckets
  size_t bucket_ = 0;               ///< of the class images
  Inventory none_;
};

std::vector<fs::path> images_in(const fs::path& folder) {
  if (!fs::is_directory(folder)) return {};
  Inventory inventory;
  std::vector<fs::path> images = ImageFinder(folder, image_extensions(), ImageFinder::Texts::left_out, inventory).find(folder).images;
  std::sort(images.begin(), images.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return images;
}

[[noreturn]] void refuse(const std::string& what) { throw ConfigError(std::vector<Problem>{{{}, "train.prior_preservation", what}}); }

fs::path class_image(const fs::path& folder, int64_t number) { return folder / fmt::format("class_{:05}.png", number); }

/// Returns the numbers of `count` images that the folder lacks.
std::vector<int64_t> lacking(const fs::path& folder, int64_t count) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; int64_t(numbers.size()) < count; ++i)
    if (!fs::exists(class_image(folder, i))) numbers.push_back(i);
  return numbers;
}

/// Makes the images of these numbers; each depends on the seed of the training and its number alone.
void make_images(const Config& config, const std::vector<int64_t>& numbers, const StoredModel& source, const ModelSource& models,
                 const Compute& compute, const Preparing& preparing) {
  const PriorOptions& o = *config.train->prior;
  const at::NoGradGuard no_grad;
  const Pipeline model(config.model, compute, StoredWeights{config.train->from.string(), source.tensors, source.card.files}, models);
  SampleRequest request;
  request.seed = uint64_t(config.train->seed);
  request.models = &models;
  request.batch = 4;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    request.first = numbers[begin];
    request.images.assign(end - begin, Annotation{.label = -1, .caption = o.class_prompt});
    request.observer = [&](int64_t first, const Step& step) {
      const int64_t done = (int64_t(begin) + first) * config.sample.steps + step.x.size(0) * (step.index + 1);
      return !preparing || preparing(done, int64_t(numbers.size()) * config.sample.steps);
    };
    request.made = [&](int64_t first, const Tensor& images) {
      for (int64_t i = 0; i < images.size(0); ++i)
        write_png(class_image(o.class_data, numbers[begin] + first + i).string(), to_image(images[i]));
    };
    sample_batches(model, request, config.sample);
    begin = end;
  }
}

/// Makes what the folder lacks.
void complete(const Config& config, int64_t missing, const StoredModel* source, const ModelSource& models, const Compute& compute,
              World& world, const Preparing& preparing) {
  const PriorOptions& o = *config.train->prior;
  const std::string lack = fmt::format("'{}' lacks {} of {} class images", o.class_data.string(), missing, o.class_images);
  if (!source) refuse(lack + ", which are made when a training begins; this one is resumed");
  if (config.train->from.empty()) refuse(lack + ", and there is no train.from that could make them");
  if (config.train->adopt) refuse(lack + ", which a model that train.adopt changes does not make; make them with `brume sample`");
  std::error_code error;
  fs::create_directories(o.class_data, error);
  if (error) refuse(fmt::format("'{}' cannot be made: {}", o.class_data.string(), error.message()));
  if (world.leads()) warn(fmt::format("train.prior_preservation: {}; they are made first, of '{}'", lack, o.class_prompt));
  const std::vector<int64_t> all = lacking(o.class_data, missing);
  world.barrier();  // all have looked
  const NumberRange part = world.part(missing);
  make_images(config, {all.begin() + part.begin, all.begin() + part.end}, *source, models, compute, preparing);
  world.barrier();
}

}  // namespace

std::shared_ptr<const Dataset> training_images(const Config& config, const StoredModel* source, const ModelSource& models,
                                               const Compute& compute, World& world, const Preparing& preparing) {
  const TrainOptions& t = *config.train;
  std::shared_ptr<const Dataset> data = t.data.make({config.image()});
  if (!t.prior) return data;
  if (!config.model.conditioner->traits().captions) refuse("needs a model of prompts, and model.conditioner reads none");
  if (data->encoded()) refuse("needs images, and train.data holds latents");
  if (data->size() == 0) refuse("needs a set of a known number of images, and train.data is endless");
  ResizeCrop::check(config.image());
  const int64_t have = int64_t(images_in(t.prior->class_data).size());
  if (have < t.prior->class_images) complete(config, t.prior->class_images - have, source, models, compute, world, preparing);
  return std::make_shared<WithPrior>(std::move(data), images_in(t.prior->class_data), *t.prior, config.image());
}

}  // namespace brume
