// Several sets as one. An epoch reads each image of a set `weight` times; the part of a weight after the point is of images drawn at each
// reading. Classes of equal names are one class.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/registry.h"
#include "brume/core/buckets.h"
#include "brume/core/dataset.h"
#include "brume/core/image_files.h"
#include "brume/core/loss_weights.h"
#include "brume/core/seed.h"
#include "brume/core/warnings.h"

namespace brume::plugins {
namespace {

struct Part {
  Deferred<Dataset> data;
  double weight = 1, loss_weight = 1;
  void declare(Fields& f) {
    f.field("data", data, "a set of images, of a known number");
    f.field("weight", weight, "times that each of its images is read per epoch", more_than(0));
    f.field("loss_weight", loss_weight, "factor of the loss of its images", at_least(0));
  }
};

class Mix final : public Dataset, public ImageFiles, public LossWeights {
 public:
  struct Options {
    std::vector<Part> sets;
    void declare(Fields& f) { f.sections("sets", sets, "the sets"); }
  };

  static void check(const Options& o, const Context& context) {
    if (o.sets.empty()) throw ConfigError("missing 'sets' (a list of {data: ..., weight: ...})");
    for (const Part& part : o.sets) part.data.check(context);
  }

  Mix(const Options& o, const Context& context) {
    for (const Part& part : o.sets) add(part, part.data.make(context));
  }

  int64_t size() const override { return sets_.back().end; }
  const std::vector<std::string>& classes() const override { return classes_; }
  std::optional<EncodedSet> encoded() const override { return sets_.front().data->encoded(); }

  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    const Set& set = set_of(index);
    Annotation read = set.data->read(set.own(index, draw), draw, pixels);
    if (read.label >= 0 && !set.labels.empty()) read.label = set.labels.at(size_t(read.label));
    return read;
  }

  bool weighs() const override {
    return std::any_of(sets_.begin(), sets_.end(), [](const Set& s) { return s.loss_weight != 1 || loss_weights_of(*s.data); });
  }
  void read_weights(int64_t index, uint64_t draw, const ImageShape& shape, std::span<float> weights) const override {
    const Set& set = set_of(index);
    std::fill(weights.begin(), weights.end(), 1.0f);
    if (const LossWeights* own = loss_weights_of(*set.data)) own->read_weights(set.own(index, draw), draw, shape, weights);
    for (float& w : weights) w *= float(set.loss_weight);
  }

  const Inventory& inventory() const override { return inventory_; }
  bool skips_errors() const override { return skips_; }
  void check_image(int64_t index) const override {
    const Set& set = set_of(index);
    if (const auto* files = dynamic_cast<const ImageFiles*>(set.data.get())) files->check_image((index - set.begin) % set.data->size());
  }

 private:
  struct Set {
    std::shared_ptr<const Dataset> data;
    int64_t begin, end;  ///< of its indices in an epoch
    int64_t whole;       ///< of these, those that count its images in turn; the rest are drawn
    std::vector<int64_t> labels;
    double loss_weight;
    /// Returns the number in its set of the image that `index` is.
    int64_t own(int64_t index, uint64_t draw) const {
      constexpr uint64_t stream_of_rests = 3;
      const int64_t number = index - begin, size = data->size();
      return number < whole ? number % size : int64_t(SplitMix(mix_seed(draw, stream_of_rests)).below(uint64_t(size)));
    }
  };

  void add(const Part& part, std::shared_ptr<const Dataset> data) {
    const auto refuse = [&](const std::string& what) {
      throw ConfigError(std::vector<Problem>{{part.data.place(), part.data.path(), what}});
    };
    if (data->size() == 0) refuse("is endless, and a mix is of sets of a known number of images");
    if (!sets_.empty()) check_encoded(*data, refuse);
    if (buckets_of(*data)) warn(fmt::format("{}: its buckets have no effect in a mix, whose images have one shape", part.data.path()));
    const int64_t begin = sets_.empty() ? 0 : sets_.back().end,
                  count = std::max<int64_t>(1, std::llround(part.weight * double(data->size())));
    Set set{data, begin, begin + count, int64_t(part.weight) * data->size(), {}, part.loss_weight};
    for (const std::string& name : data->classes()) {
      auto known = std::find(classes_.begin(), classes_.end(), name);
      if (known == classes_.end()) known = classes_.insert(known, name);
      set.labels.push_back(known - classes_.begin());
    }
    if (const auto* files = dynamic_cast<const ImageFiles*>(data.get())) {
      for (const Inventory::LeftOut& left : files->inventory().left_out())
        for (int64_t i = 0; i < left.count; ++i) inventory_.leave_out(left.reason, left.example);
      inventory_.captions += files->inventory().captions;
      skips_ = skips_ && files->skips_errors();
    }
    sets_.push_back(std::move(set));
  }

  template <class F>
  void check_encoded(const Dataset& data, const F& refuse) const {
    const auto first = encoded(), other = data.encoded();
    if (first.has_value() != other.has_value()) refuse("a mix is of images or of latents, not of both");
    if (first && (first->shape != other->shape || first->autoencoder != other->autoencoder))
      refuse("holds latents of another first stage, or of another shape, than the set before");
  }

  const Set& set_of(int64_t index) const {
    if (index < 0 || index >= size()) throw std::out_of_range("mix: image " + std::to_string(index) + " of " + std::to_string(size()));
    return *std::find_if(sets_.begin(), sets_.end(), [&](const Set& s) { return index < s.end; });
  }

  std::vector<Set> sets_;
  std::vector<std::string> classes_;
  Inventory inventory_;
  bool skips_ = true;
};

}  // namespace

void register_dataset_mix(Registry& r) { r.add<Dataset, Mix>("mix", "several sets, each read so many times per epoch"); }

}  // namespace brume::plugins
