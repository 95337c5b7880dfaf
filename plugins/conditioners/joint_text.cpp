// A prompt by several text encoders (SDXL: Podell et al. 2023, sec. 2.1; SD 3: Esser et al. 2024, sec. 5.1; FLUX). Each gives tokens and
// perhaps a pooled vector; the network receives them joined:
//
//   context = [ [channels[0] | channels[1] | …] ; tokens[0] ; tokens[1] ; … ]     | along channels, ; along tokens
//   vector  = [ pooled[0] | pooled[1] | … ]
//
// Tokens of different widths are filled up with zeros to the widest.
//
//   SDXL   of: [CLIP ViT-L, OpenCLIP bigG]       channels: [0, 1]               pooled: [1]      empty: zeros
//   SD 3   of: [CLIP ViT-L, OpenCLIP bigG, T5]   channels: [0, 1], tokens: [2]  pooled: [0, 1]
//   FLUX   of: [CLIP ViT-L, T5]                  channels: [1]                  pooled: [0]
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/conditioner.h"
#include "brume/core/prompt.h"
#include "brume/core/warnings.h"
#include "brume/nn/blocks/encoder_group.h"

namespace brume::plugins {
namespace {

struct JointTextOptions {
  std::vector<std::shared_ptr<const Conditioner>> of;
  std::vector<int64_t> channels{0}, tokens, pooled;
  bool zeros = false;
  double dropout = 0.1;
  void declare(Fields& f) {
    f.field("of", of, "the text encoders, like [{type: clip_text, …}, {type: clip_text, …}]");
    f.field("channels", channels, "encoders, by their numbers from 0 on, whose tokens are joined along channels: [0, 1] (SDXL, SD 3)",
            at_least(0));
    f.field("tokens", tokens, "encoders whose tokens follow those: [2] (SD 3)", at_least(0));
    f.field("pooled", pooled, "encoders whose pooled vectors are joined: [1] (SDXL), [0, 1] (SD 3)", at_least(0));
    f.choice("empty", zeros, "the null condition of an empty negative prompt: its encoding, or zeros (SDXL)",
             {{"encoded", false}, {"zeros", true}});
    f.field("dropout", dropout, "probability of the empty prompt while training; 0 = no null condition, so no cfg", within(0, 1));
  }
};

Tensor mask_of(const Condition& c) {
  return c.context_mask.defined() ? c.context_mask
                                  : at::ones({c.context.size(0), c.context.size(1)}, c.context.options().dtype(at::kFloat));
}

class JointEncoder final : public ConditionEncoder {
 public:
  JointEncoder(const JointTextOptions& o, int64_t width, const EncoderOrigin& origin) : o_(o), width_(width), all_(o.of, origin) {
    for (const auto& conditioner : o_.of) widths_.push_back(conditioner->traits().context_width);
  }

  Condition encode(const ConditionRequest& request) const override {
    ConditionRequest whole = request;
    whole.whole = true;
    std::vector<Condition> kept, nulls;
    for (size_t i = 0; i < all_.size(); ++i) {
      const std::optional<PromptReading> reading = reading_of(request.reading, i);
      whole.reading = reading ? &*reading : nullptr;
      kept.push_back(all_[i].encode(whole));
      if (kept.back().null) nulls.push_back(*kept.back().null);
    }
    Condition all = joined(kept);
    if (o_.dropout == 0) return all;
    Condition null = joined(nulls);
    if (o_.zeros) null = nn::replaced(null, zero(null), empty_negatives(request));
    if (request.dropout())
      return nn::replaced(all, null, nn::dropped_rows(int64_t(request.annotations.size()), o_.dropout, *request.dropout()));
    all.null = std::make_shared<Condition>(std::move(null));
    return all;
  }
  std::vector<Weight> weights() const override { return all_.weights(); }
  Files files() const override { return all_.files(); }

 private:
  /// Throws ConfigError if vectors of a textual inversion fit no encoder.
  void check_widths(const Word& word) const {
    std::vector<Tensor> all{word.vectors};
    all.insert(all.end(), word.others.begin(), word.others.end());
    for (const Tensor& vectors : all)
      if (std::find(widths_.begin(), widths_.end(), vectors.size(1)) == widths_.end())
        throw ConfigError(
            fmt::format("sample.prompts: the vectors of the embedding '{}' have {} numbers, and this model's text encoders have {}",
                        word.text, vectors.size(1), fmt::join(widths_, " and ")));
  }
  /// Warns once that an encoder reads a word of a textual inversion as text.
  void warn_of(const Word& word, size_t encoder) const {
    if (!o_.of[encoder]->traits().reads_prompts) return;
    const std::lock_guard guard(lock_);
    if (told_.insert(word.text).second)
      warn(fmt::format("the embedding '{}' has no vectors of {} numbers, so that one of the text encoders reads it as a word", word.text,
                       widths_[encoder]));
  }
  /// Returns the reading with the vectors of each textual inversion for one encoder; without the words that have none for it. Throws
  /// ConfigError if they fit no encoder.
  std::optional<PromptReading> reading_of(const PromptReading* whole, size_t encoder) const {
    if (!whole) return {};
    PromptReading own = *whole;
    own.words.clear();
    for (const Word& w : whole->words) {
      check_widths(w);
      if (const Tensor vectors = vectors_for(w, encoder, widths_[encoder]); vectors.defined())
        own.words.push_back({w.text, vectors});
      else
        warn_of(w, encoder);
    }
    return own;
  }
  Condition joined(const std::vector<Condition>& each) const {
    std::vector<Tensor> groups, masks, vectors, side;
    for (const int64_t i : o_.channels) side.push_back(each[size_t(i)].context);
    for (const Tensor& t : side)
      if (t.size(1) != side[0].size(1))
        throw ConfigError(fmt::format("channels: the encoders give {} and {}, and those joined along channels need as many",
                                      side[0].size(1), counted(t.size(1), "token")));
    groups.push_back(side.size() == 1 ? side[0] : at::cat(side, 2));
    masks.push_back(mask_of(each[size_t(o_.channels[0])]));
    bool masked = each[size_t(o_.channels[0])].context_mask.defined();
    for (const int64_t i : o_.tokens) {
      groups.push_back(each[size_t(i)].context);
      masks.push_back(mask_of(each[size_t(i)]));
      masked = masked || each[size_t(i)].context_mask.defined();
    }
    for (Tensor& g : groups)
      if (g.size(2) < width_) g = at::constant_pad_nd(g, {0, width_ - g.size(2)});
    for (const int64_t i : o_.pooled) vectors.push_back(each[size_t(i)].vector);
    return Condition{.classes = {},
                     .context = groups.size() == 1 ? groups[0] : at::cat(groups, 1),
                     .context_mask = masked ? at::cat(masks, 1) : Tensor(),
                     .vector = vectors.empty() ? Tensor() : at::cat(vectors, 1)};
  }

  /// Returns zeros for the tokens and the vector, as diffusers has them with force_zeros_for_empty_prompt.
  static Condition zero(const Condition& c) {
    return Condition{
        .classes = {}, .context = c.context * 0, .context_mask = c.context_mask, .vector = c.vector.defined() ? c.vector * 0 : Tensor()};
  }
  static Tensor empty_negatives(const ConditionRequest& request) {
    std::vector<uint8_t> empty;
    for (const Annotation& a : request.annotations) empty.push_back(a.negative.empty());
    return at::tensor(empty).to(at::kBool);
  }

  JointTextOptions o_;
  int64_t width_;
  nn::EncoderGroup all_;
  std::vector<int64_t> widths_;  ///< of the tokens of each
  mutable std::mutex lock_;
  mutable std::set<std::string> told_;  ///< words that were warned of
};

class JointText final : public Conditioner {
 public:
  using Options = JointTextOptions;
  explicit JointText(const Options& o) : o_(o) {
    if (o_.of.empty()) throw ConfigError("of: is empty; it takes a list of text encoders");
    for (const auto& c : o_.of) each_.push_back(c->traits());
    for (size_t i = 0; i < each_.size(); ++i) {
      if (each_[i].context_width == 0 || !each_[i].captions)
        throw ConfigError(fmt::format("of: entry {} is no text encoder: it gives no tokens of a prompt", i));
      if (o_.dropout > 0 && !each_[i].has_null)
        throw ConfigError(fmt::format("dropout: entry {} of `of` has dropout 0, so that there is no null condition", i));
    }
    if (o_.channels.empty()) throw ConfigError("channels: is empty; it takes the numbers of one encoder at least");
    check("channels", o_.channels, [](const ConditionerTraits&) { return true; });
    check("tokens", o_.tokens, [](const ConditionerTraits&) { return true; });
    check("pooled", o_.pooled, [](const ConditionerTraits& t) { return t.vector_width > 0; });
  }
  ConditionerTraits traits() const override {
    ConditionerTraits t{.context_width = width(), .captions = true, .has_null = o_.dropout > 0};
    for (const int64_t i : o_.pooled) t.vector_width += each_[size_t(i)].vector_width;
    t.reads_prompts = std::any_of(each_.begin(), each_.end(), [](const ConditionerTraits& e) { return e.reads_prompts; });
    return t;
  }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const override {
    return std::make_shared<JointEncoder>(o_, width(), origin);
  }

 private:
  template <class F>
  void check(const char* field, const std::vector<int64_t>& numbers, const F& fits) const {
    for (const int64_t i : numbers) {
      if (size_t(i) >= each_.size())
        throw ConfigError(fmt::format("{}: there is no encoder {}; `of` has {} (the first is 0)", field, i, each_.size()));
      if (!fits(each_[size_t(i)])) throw ConfigError(fmt::format("{}: encoder {} gives no pooled vector; its `projection` is 0", field, i));
    }
  }
  int64_t width() const {
    int64_t side = 0, widest = 0;
    for (const int64_t i : o_.channels) side += each_[size_t(i)].context_width;
    for (const int64_t i : o_.tokens) widest = std::max(widest, each_[size_t(i)].context_width);
    return std::max(side, widest);
  }

  Options o_;
  std::vector<ConditionerTraits> each_;
};

}  // namespace

void register_conditioner_joint_text(Registry& r) {
  r.add<Conditioner, JointText>("joint_text",
                                "a prompt, by several text encoders whose tokens and pooled vectors are joined (SDXL, SD 3, FLUX)");
}

}  // namespace brume::plugins
