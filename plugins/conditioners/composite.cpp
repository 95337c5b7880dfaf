// Several conditions at once, such as a class and a caption. Each part of the network's condition comes from one of them.
//
// While training each is left out by its own probability, or all at once by `dropout`: the null condition leaves out all, and a
// network learns it better if it sees it whole (Brooks et al. 2023, "InstructPix2Pix", sec. 3.2.1, leaves out each and both).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/conditioner.h"
#include "brume/nn/blocks/encoder_group.h"

namespace brume::plugins {
namespace {

using Conditioners = std::vector<std::shared_ptr<const Conditioner>>;

constexpr std::pair<Tensor Condition::*, const char*> parts[] = {{&Condition::classes, "the class"},
                                                                 {&Condition::context, "the context"},
                                                                 {&Condition::context_mask, "the context's mask"},
                                                                 {&Condition::image, "the image"},
                                                                 {&Condition::vector, "the pooled vector"},
                                                                 {&Condition::sizes, "the sizes"},
                                                                 {&Condition::guidance, "the guidance scale"}};

/// `to` with the parts of `from`, which it must not have.
void add(Condition& to, const Condition& from) {
  for (const auto& [part, name] : parts) {
    if (!(from.*part).defined()) continue;
    if ((to.*part).defined()) throw ConfigError(fmt::format("of: two conditions give {}, and the network takes one", name));
    to.*part = from.*part;
  }
}

class Encoders final : public ConditionEncoder {
 public:
  Encoders(const Conditioners& of, std::optional<double> together, bool has_null, const EncoderOrigin& origin)
      : all_(of, origin), together_(together), has_null_(has_null) {}

  Condition encode(const ConditionRequest& request) const override {
    if (!together_ || !request.dropout()) return merged(request);
    ConditionRequest whole = request;
    whole.whole = true;
    const Condition kept = merged(whole);
    const Tensor dropped = nn::dropped_rows(int64_t(request.annotations.size()), *together_, *request.random);
    return kept.null ? nn::replaced(kept, *kept.null, dropped) : kept;
  }
  std::vector<Weight> weights() const override { return all_.weights(); }
  Files files() const override { return all_.files(); }

 private:
  Condition merged(const ConditionRequest& request) const {
    Condition condition, null;
    bool nulls = has_null_;
    for (size_t i = 0; i < all_.size(); ++i) {
      const Condition one = all_[i].encode(request);
      add(condition, one);
      nulls = nulls && one.null;
      if (nulls) add(null, *one.null);
    }
    if (nulls) condition.null = std::make_shared<Condition>(std::move(null));
    return condition;
  }

  nn::EncoderGroup all_;
  std::optional<double> together_;
  bool has_null_;
};

class Composite final : public Conditioner {
 public:
  struct Options {
    Conditioners of;
    std::optional<double> dropout;
    void declare(Fields& f) {
      f.field("of", of, "the conditions, like [{type: class_label, classes: 10}, {type: text, tokenizer: t.model}]");
      f.field("dropout", dropout, "probability of leaving out all at once while training; absent = each by its own", within(0, 1));
    }
  };
  explicit Composite(const Options& o) : o_(o) {
    if (o_.of.empty()) throw ConfigError("of: is empty; it takes a list of conditions");
    const std::vector<ConditionerTraits> all = each();
    at_most_one("classes", all, [](const ConditionerTraits& t) { return t.class_rows > 0; });
    at_most_one("tokens", all, [](const ConditionerTraits& t) { return t.context_width > 0; });
    at_most_one("pooled vectors", all, [](const ConditionerTraits& t) { return t.vector_width > 0; });
    at_most_one("sizes", all, [](const ConditionerTraits& t) { return t.size_ids > 0; });
    if (o_.dropout.value_or(0) > 0 && !nulls(all))
      throw ConfigError("dropout: all can only be left out if each can be: one of them has dropout 0");
  }
  ConditionerTraits traits() const override {
    const std::vector<ConditionerTraits> all = each();
    ConditionerTraits merged;
    for (const ConditionerTraits& t : all) {
      merged.classes = std::max(merged.classes, t.classes);
      merged.class_rows = std::max(merged.class_rows, t.class_rows);
      merged.context_width = std::max(merged.context_width, t.context_width);
      merged.vector_width = std::max(merged.vector_width, t.vector_width);
      merged.size_ids = std::max(merged.size_ids, t.size_ids);
      merged.guidance = merged.guidance || t.guidance;
      merged.masks = merged.masks || t.masks;
      merged.captions = merged.captions || t.captions;
      merged.reads_prompts = merged.reads_prompts || t.reads_prompts;
    }
    merged.image_channels = channels_of_image(all);
    merged.has_null = nulls(all) && o_.dropout.value_or(1) > 0;
    return merged;
  }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const override {
    return std::make_shared<Encoders>(o_.of, o_.dropout, traits().has_null, origin);
  }

 private:
  std::vector<ConditionerTraits> each() const {
    std::vector<ConditionerTraits> all;
    for (const auto& conditioner : o_.of) all.push_back(conditioner->traits());
    return all;
  }
  static bool nulls(const std::vector<ConditionerTraits>& all) {
    return std::all_of(all.begin(), all.end(), [](const ConditionerTraits& t) { return t.has_null; });
  }
  static ConditionerTraits::ImageChannels channels_of_image(const std::vector<ConditionerTraits>& all) {
    std::vector<ConditionerTraits::ImageChannels> found;
    for (const ConditionerTraits& t : all)
      if (t.image_channels) found.push_back(t.image_channels);
    if (found.empty()) return {};
    return [found](const ImageShape& image, const ImageShape& latent) {
      if (found.size() > 1) throw ConfigError("of: two conditions are made of images, and the network takes one");
      return found.front()(image, latent);
    };
  }
  static void at_most_one(const char* what, const std::vector<ConditionerTraits>& all, bool (*has)(const ConditionerTraits&)) {
    if (std::count_if(all.begin(), all.end(), has) > 1)
      throw ConfigError(fmt::format("of: two conditions are made of {}, and the network takes one", what));
  }
  Options o_;
};

}  // namespace

void register_conditioner_composite(Registry& r) {
  r.add<Conditioner, Composite>("composite", "several conditions at once, such as a class and a caption");
  r.renamed(Conditioner::kind, "several", "composite");
}

}  // namespace brume::plugins
