// Several conditions at once, such as a class and a caption. Each part of the network's condition comes from one of them.
//
// While training each is left out by its own probability, or all at once by `dropout`: the null condition leaves out all, and a
// network learns it better where it sees it whole (Brooks et al. 2023, "InstructPix2Pix", sec. 3.2.1, leaves out each and both).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "brume/config/registry.h"
#include "brume/core/conditioner.h"
#include "brume/core/seed.h"

namespace brume::plugins {
namespace {

using Conditioners = std::vector<std::shared_ptr<const Conditioner>>;

constexpr std::pair<Tensor Condition::*, const char*> parts[] = {{&Condition::classes, "the class"},
                                                                 {&Condition::context, "the context"},
                                                                 {&Condition::context_mask, "the context's mask"},
                                                                 {&Condition::image, "the image"}};

/// `to` with the parts of `from`, which it must not have.
void add(Condition& to, const Condition& from) {
  for (const auto& [part, name] : parts) {
    if (!(from.*part).defined()) continue;
    if ((to.*part).defined()) throw ConfigError(fmt::format("of: two conditions give {}, and the network takes one", name));
    to.*part = from.*part;
  }
}

/// Rows of `null` where `dropped`, those of `kept` elsewhere.
Condition replaced(const Condition& kept, const Condition& null, const Tensor& dropped) {
  Condition out;
  for (const auto& [part, _] : parts) {
    const Tensor &a = kept.*part, &b = null.*part;
    if (!a.defined()) continue;
    std::vector<int64_t> shape(size_t(a.dim()), 1);
    shape[0] = a.size(0);
    out.*part = at::where(dropped.view(shape).to(a.device()), b, a);
  }
  return out;
}

class Encoders final : public ConditionEncoder {
 public:
  Encoders(const Conditioners& of, std::optional<double> together, bool has_null, const EncoderOrigin& origin)
      : together_(together), has_null_(has_null) {
    for (size_t i = 0; i < of.size(); ++i) all_.push_back(of[i]->encoder({mix_seed(origin.seed, i), origin.stored}));
  }

  Condition encode(const ConditionRequest& request) const override {
    if (!together_ || !request.dropout()) return merged(request);
    ConditionRequest whole = request;
    whole.whole = true;
    const Condition kept = merged(whole);
    const int64_t count = int64_t(request.annotations.size());
    const Tensor draws = at::rand({count}, *request.random, at::TensorOptions().dtype(at::kDouble));
    return kept.null ? replaced(kept, *kept.null, draws < *together_) : kept;
  }
  std::vector<Weight> weights() const override {
    std::vector<Weight> weights;
    for (size_t i = 0; i < all_.size(); ++i)
      for (Weight& w : prefixed(std::to_string(i) + ".", all_[i]->weights())) weights.push_back(std::move(w));
    return weights;
  }
  Files files() const override {
    Files files;
    for (const auto& encoder : all_) files.merge(encoder->files());
    return files;
  }

 private:
  Condition merged(const ConditionRequest& request) const {
    Condition condition, null;
    bool nulls = has_null_;
    for (const auto& encoder : all_) {
      const Condition one = encoder->encode(request);
      add(condition, one);
      nulls = nulls && one.null;
      if (nulls) add(null, *one.null);
    }
    if (nulls) condition.null = std::make_shared<Condition>(std::move(null));
    return condition;
  }

  std::vector<std::shared_ptr<const ConditionEncoder>> all_;
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
    at_most_one("classes", [](const Conditioner& c) { return c.class_rows() > 0; });
    at_most_one("tokens", [](const Conditioner& c) { return c.context_width() > 0; });
    if (o_.dropout.value_or(0) > 0 && !nulls())
      throw ConfigError("dropout: all can only be left out where each can be: one of them has dropout 0");
  }
  int64_t classes() const override { return most(&Conditioner::classes); }
  int64_t class_rows() const override { return most(&Conditioner::class_rows); }
  int64_t context_width() const override { return most(&Conditioner::context_width); }
  int64_t image_channels(const ImageShape& image, const ImageShape& latent) const override {
    int64_t channels = 0;
    for (const auto& c : o_.of) {
      const int64_t own = c->image_channels(image, latent);
      if (own > 0 && channels > 0) throw ConfigError("of: two conditions are made of images, and the network takes one");
      channels = std::max(channels, own);
    }
    return channels;
  }
  bool masks() const override { return any(&Conditioner::masks); }
  bool captions() const override { return any(&Conditioner::captions); }
  bool reads_prompts() const override { return any(&Conditioner::reads_prompts); }
  bool has_null() const override { return nulls() && o_.dropout.value_or(1) > 0; }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const override {
    return std::make_shared<Encoders>(o_.of, o_.dropout, has_null(), origin);
  }

 private:
  bool nulls() const {
    return std::all_of(o_.of.begin(), o_.of.end(), [](const auto& c) { return c->has_null(); });
  }
  bool any(bool (Conditioner::*is)() const) const {
    return std::any_of(o_.of.begin(), o_.of.end(), [&](const auto& c) { return ((*c).*is)(); });
  }
  int64_t most(int64_t (Conditioner::*of)() const) const {
    int64_t value = 0;
    for (const auto& c : o_.of) value = std::max(value, ((*c).*of)());
    return value;
  }
  void at_most_one(const char* what, const std::function<bool(const Conditioner&)>& has) const {
    if (std::count_if(o_.of.begin(), o_.of.end(), [&](const auto& c) { return has(*c); }) > 1)
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
