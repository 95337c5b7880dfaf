#include "brume/train/adapted_learner.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "brume/config/counted.h"
#include "brume/core/file_pages.h"
#include "brume/core/formed_weights.h"
#include "brume/core/seed.h"
#include "brume/core/warnings.h"
#include "brume/interop/lora_generation.h"
#include "brume/interop/lora_writing.h"
#include "brume/interop/textual_inversion.h"
#include "brume/text/prompt.h"
#include "brume/text/unicode.h"
#include "brume/train/adapter_targets.h"
#include "brume/train/base_hash.h"
#include "brume/train/new_word.h"
#include "brume/weights/model_hash.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/safetensors.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Changes of one weight, by the number of the adapter.
using Changes = std::map<size_t, WeightChange>;

/// A weight that adapters change.
struct Target {
  Weight weight;  ///< of the model; its layers form the sum if it may have any dtype, else it holds the sum while a loss is computed
  Tensor base;    ///< in the dtype of its file
  Changes changes{};
};

class AdaptedLearner final : public Learner {
 public:
  AdaptedLearner(std::unique_ptr<Learner> learner, const Config& config, const StoredModel& base, uint64_t seed)
      : learner_(std::move(learner)),
        train_(*config.train),
        weights_(learner_->weights()),
        names_(weights_),
        hash_(train_.from.string(), "adapters.base_hash", base),
        files_(base.card.files) {
    for (size_t i = 0; i < train_.adapters.size(); ++i)
      if (const auto word = train_.adapters[i]->word())
        add(i, new_word(*word, weights_, base.card.files, path_of(i)));
      else
        add(i, base, mix_seed(seed, i));
    learner_->teach(words_of(parameters_));
    for (const Target& t : targets_)
      if (t.weight.any_dtype) formed_.add(t.weight.tensor, [t, order = t.weight.tensor.strides().vec()] { return formed(t, order); });
  }

  std::vector<TrainedModule> modules() const override {
    std::vector<TrainedModule> all = learner_->modules();
    all.front().weights = parameters_;
    return all;
  }

  Loss loss(const Batch& batch, int64_t step, at::Generator& random) override {
    for (Target& t : targets_) {
      if (t.weight.any_dtype) continue;
      Tensor& w = t.weight.tensor;
      {
        const at::NoGradGuard no_grad;
        w.detach_();
        w.copy_(t.base);
      }
      add_changes(t, w);
    }
    look_for_words(batch.annotations);
    return learner_->loss(batch, step, random);
  }

  std::vector<Weight> state() const override {
    std::vector<Weight> all = learner_->state();
    all.push_back(hash_.state());
    return all;
  }
  void restored() override { hash_.check("the adapters of this training are"); }

  Metrics test(const std::vector<Weight>& averaged, const std::function<bool()>& stop) override {
    const Taught words(*this, averaged);
    return learner_->test(stored(averaged), stop);
  }
  bool preview(const std::vector<Weight>& averaged, const fs::path& file) override {
    const Taught words(*this, averaged);
    return learner_->preview(stored(averaged), file);
  }
  void keep_base(const std::vector<Weight>& averaged, const fs::path& folder) override { learner_->keep_base(stored(averaged), folder); }
  ModelCard card(const std::vector<Weight>&) override { return learner_->card(weights_); }

  /// The sums are formed when they are read, until the next call: all of them would be the whole model in float32.
  std::vector<Weight> stored(const std::vector<Weight>& averaged) const override {
    std::vector<Weight> all = weights_;
    std::map<std::string, Target> merged;
    for (Target& t : with(averaged)) merged.emplace(t.weight.name, std::move(t));
    stored_ = std::make_unique<FormedWeights>();
    for (Weight& w : all) {
      const auto own = merged.find(w.name);
      if (own == merged.end()) continue;
      w.tensor = at::empty({1}, at::TensorOptions().dtype(at::kFloat)).expand(w.tensor.sizes());
      stored_->add(w.tensor, [t = own->second] {
        const at::NoGradGuard no_grad;
        return formed(t, t.base.strides());
      });
    }
    return all;
  }

  std::vector<Weight> stored_shapes(const std::vector<Weight>&) const override { return weights_; }

  void save_parts(const fs::path& directory, const std::vector<Weight>& averaged, int64_t step) const override {
    const std::vector<Target> merged = with(averaged);
    const std::vector<Word> words = words_of(averaged);
    for (size_t i = 0; i < words.size(); ++i)
      write_embedding((directory / fmt::format("embedding{}.safetensors", words.size() == 1 ? "" : fmt::format("_{}", i + 1))).string(),
                      words[i],
                      {{metadata_key::base_hash, hash_.text()},
                       {metadata_key::step, std::to_string(step)},
                       {metadata_key::nearest_words, nearest_words(words[i], weights_, files_)}});
    for (size_t i = 0; i < train_.adapters.size(); ++i) {
      if (train_.adapters[i]->word()) continue;
      std::map<std::string, WeightChange> changes;
      for (const Target& t : merged)
        if (const auto own = t.changes.find(i); own != t.changes.end()) changes[t.weight.name] = own->second;
      const std::string name = train_.adapters.size() == 1 ? "adapter" : fmt::format("adapter_{}", i + 1);
      const LoraDescription description{hash_.text(), generation_of(weights_), step, fmt::format("{}", fmt::join(train_.triggers, ", "))};
      write_lora((directory / (name + ".safetensors")).string(), LoraLayout::kohya, changes, names_, description);
      if (can_write(LoraLayout::diffusers, changes))
        write_lora((directory / (name + "_diffusers.safetensors")).string(), LoraLayout::diffusers, changes, names_, description);
    }
  }

 private:
  /// Teaches the words of other parameters for as long as it lives, also if what is made of them fails: the training goes on then.
  class Taught {
   public:
    Taught(const AdaptedLearner& owner, const std::vector<Weight>& parameters) : owner_(owner) {
      owner_.learner_->teach(owner_.words_of(parameters));
    }
    ~Taught() { owner_.learner_->teach(owner_.words_of(owner_.parameters_)); }
    Taught(const Taught&) = delete;
    Taught& operator=(const Taught&) = delete;

   private:
    const AdaptedLearner& owner_;
  };

  /// Returns the base with its changes in float32, in this order in memory.
  static Tensor formed(const Target& t, at::IntArrayRef order) {
    Tensor w;
    {
      const at::NoGradGuard no_grad;
      w = at::empty_strided(t.base.sizes(), order, at::TensorOptions().dtype(at::kFloat).device(t.weight.tensor.device()));
      w.copy_(t.base);
    }
    add_changes(t, w);
    discard_file_pages(t.base.data_ptr(), t.base.nbytes());  // read again at the next use, from the system's cache
    return w;
  }

  /// Recorded: w leads to the parameters.
  static void add_changes(const Target& t, Tensor& w) {
    for (const auto& [adapter, change] : t.changes) w.add_(added_by(change, t.base, 1));
  }

  static std::string name_of(size_t adapter, const std::string& weight, const std::string& role) {
    return fmt::format("adapters.{}.{}.{}", adapter, weight, role);
  }

  /// Returns the role of a word's vectors in text encoder number `encoder` of CLIP.
  static std::string vectors_of(size_t encoder) { return encoder == 0 ? "vectors" : fmt::format("vectors_{}", encoder + 1); }

  static std::string path_of(size_t adapter) { return fmt::format("train.adapters.{}", adapter); }

  /// Warns of new words that no caption of the first images holds.
  void look_for_words(const std::vector<Annotation>& annotations) {
    constexpr size_t enough = 50;  // images
    if (seen_ >= enough || unseen_.empty()) return;
    for (const Annotation& a : annotations)
      std::erase_if(unseen_, [&, caption = text::composed(a.caption)](const auto& word) {
        return text::find_word(caption, word.second) != std::string::npos;
      });
    seen_ += annotations.size();
    for (const auto& [number, word] : unseen_)
      if (seen_ >= enough)
        warn(fmt::format("{}.token: no caption of the first {} holds '{}', which learns from captions that do", path_of(number),
                         counted(seen_, "image"), word));
  }

  void add(size_t number, const Word& word) {
    for (const auto& [other, text] : words_)
      if (text == word.text)
        throw ConfigError({Problem{{}, path_of(number) + ".token", fmt::format("'{}' is the token of adapter {} as well", text, other)}});
    words_.emplace_back(number, word.text);
    unseen_.emplace_back(number, word.text);
    parameters_.push_back({name_of(number, "word", vectors_of(0)), word.vectors});
    for (size_t i = 0; i < word.others.size(); ++i) parameters_.push_back({name_of(number, "word", vectors_of(i + 1)), word.others[i]});
  }

  void add(size_t number, const StoredModel& base, uint64_t seed) {
    const Adapter& adapter = *train_.adapters[number];
    at::Generator random = at::detail::createCPUGenerator(seed);
    for (const Weight& w : adapter_targets(adapter, weights_, path_of(number))) {
      Target& target = target_of(w, base);
      WeightChange& change = target.changes[number];
      for (const Weight& p : adapter.parameters(target.base.to(at::kFloat), random)) {
        change.parts[p.name] = p.tensor;
        parameters_.push_back({name_of(number, w.name, p.name), p.tensor});
      }
      discard_file_pages(target.base.data_ptr(), target.base.nbytes());
      change.alpha = double(float(adapter.alpha()));  // as files have it
      change.has_alpha = change.alpha > 0;
      if (!change.has_alpha && change.rank() > 0) change.alpha = double(change.rank()), change.has_alpha = true;
    }
  }

  Target& target_of(const Weight& w, const StoredModel& base) {
    const auto known = std::find_if(targets_.begin(), targets_.end(), [&](const Target& t) { return t.weight.name == w.name; });
    if (known != targets_.end()) return *known;
    const Tensor* file = find(base.tensors, w.name);
    return targets_.emplace_back(Target{w, file && file->sizes() == w.tensor.sizes() ? *file : w.tensor.clone()});
  }

  /// Returns the new words with vectors of these parameters.
  std::vector<Word> words_of(const std::vector<Weight>& parameters) const {
    std::vector<Word> words;
    for (const auto& [number, text] : words_) {
      Word word{text, {}};
      for (const Weight& p : parameters) {
        if (!p.name.starts_with(name_of(number, "word", ""))) continue;
        if (p.name == name_of(number, "word", vectors_of(0)))
          word.vectors = p.tensor;
        else
          word.others.push_back(p.tensor);
      }
      words.push_back(std::move(word));
    }
    return words;
  }

  /// Returns the targets with changes of other parameters.
  std::vector<Target> with(const std::vector<Weight>& parameters) const {
    std::map<std::string, Tensor> by_name;
    for (const Weight& p : parameters) by_name[p.name] = p.tensor;
    std::vector<Target> all = targets_;
    for (Target& t : all)
      for (auto& [number, change] : t.changes)
        for (auto& [role, tensor] : change.parts) tensor = by_name.at(name_of(number, t.weight.name, role));
    return all;
  }

  std::unique_ptr<Learner> learner_;
  TrainOptions train_;
  std::vector<Weight> weights_;  ///< of the model
  LoraNames names_;
  BaseHash hash_;
  Files files_;  ///< of the base
  std::vector<Target> targets_;
  FormedWeights formed_;
  mutable std::unique_ptr<FormedWeights> stored_;       ///< what stored() gave last
  std::vector<std::pair<size_t, std::string>> words_;   ///< adapters, and what they teach
  std::vector<std::pair<size_t, std::string>> unseen_;  ///< those of words_ that no caption held
  size_t seen_ = 0;                                     ///< images whose captions were looked at
  std::vector<Weight> parameters_;
};

}  // namespace

bool is_adapter(const fs::path& file) {
  const std::string name = file.filename().string();
  return (name.starts_with("adapter") || name.starts_with("embedding")) && file.extension() == ".safetensors";
}

std::unique_ptr<Learner> adapted(std::unique_ptr<Learner> learner, const Config& config, const StoredModel& base, uint64_t seed) {
  return std::make_unique<AdaptedLearner>(std::move(learner), config, base, seed);
}

}  // namespace brume
