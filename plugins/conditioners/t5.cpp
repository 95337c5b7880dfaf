// A prompt as condition, by the encoder of T5 (Raffel et al. 2020) or T5 1.1, which PixArt, Stable Diffusion 3 and FLUX have: pieces of
// words (sentencepiece), and the encoder's tokens as what the network attends to.
//
//   context = encoder(ids),   ids = the prompt's pieces, end, padding to `length`
//
// The weights are somebody else's, under the names of transformers' T5EncoderModel, and frozen. They stay in the dtype of their file, as
// views of the mapped file, and each is converted when it is used; after a prompt is encoded the memory of large ones is given back to the
// system, which reads them again for the next.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/config/utf8.h"
#include "brume/core/conditioner.h"
#include "brume/files/mapped_file.h"
#include "brume/nn/blocks/caption_conditioner.h"
#include "brume/nn/blocks/t5_encoder.h"
#include "brume/text/sentencepiece.h"
#include "brume/text/unicode.h"
#include "brume/weights/model_weights.h"

namespace brume::plugins {
namespace {

struct T5TextOptions {
  std::filesystem::path tokenizer, weights;
  int64_t length = 256, width = 4096, depth = 24, heads = 64, head = 64, mlp = 10240, rows = 0;
  nn::T5FeedForward feed_forward = nn::T5FeedForward::gated_gelu;
  bool mask = false;
  double dropout = 0.1;
  void need_files() const {
    if (tokenizer.empty())
      throw ConfigError("tokenizer: the file spiece.model is missing; of a model of another program, t5=DIRECTORY names the encoder");
  }
  void declare(Fields& f) {
    f.field("tokenizer", tokenizer, "the sentencepiece model, spiece.model");
    f.field("weights", weights, "the published weights: .safetensors or .bin; a checkpoint needs none");
    f.field("length", length, "tokens of a prompt, the end included: 120 (PixArt-alpha), 256 (SD 3), 512 (FLUX); what is longer is cut",
            within(2, 4096));
    f.field("width", width, "width of a token", within(1, 65536));
    f.field("depth", depth, "layers of the encoder", within(1, 256));
    f.field("heads", heads, "attention heads", within(1, 1024));
    f.field("head_width", head, "channels of a head", within(1, 4096));
    f.field("mlp", mlp, "width within its feed-forward layers", within(1, 262144));
    f.choice("feed_forward", feed_forward, "those layers: gated_gelu (T5 1.1, flan-t5) or relu (t5-small to t5-11b)",
             {{"gated_gelu", nn::T5FeedForward::gated_gelu}, {"relu", nn::T5FeedForward::relu}});
    f.field("rows", rows, "tokens that have an embedding, more than the tokenizer's: 32128; 0 = as many", at_least(0));
    f.field("mask", mask, "hide the padding from the encoder and the network (PixArt); false = both see it (SD 3, FLUX)");
    f.field("dropout", dropout, "probability of the empty prompt while training; 0 = no null condition, so no cfg", within(0, 1));
  }
};

constexpr size_t large = size_t{1} << 30;  ///< bytes of weights from which on their memory is given back

class Encoder final : public ConditionEncoder {
 public:
  static constexpr bool reads_prompts = false;
  Encoder(const T5TextOptions& o, const EncoderOrigin& origin)
      : o_(o), path_(o.tokenizer.string()), bytes_(bytes(origin.stored)), tokenizer_(bytes_, path_), build_(origin.seed) {
    if (o_.rows == 0) o_.rows = tokenizer_.size();
    if (o_.rows < tokenizer_.size())
      throw ConfigError(fmt::format("rows: {} are fewer than the {} of {}", o_.rows, counted(tokenizer_.size(), "piece"), path_));
    if (!origin.stored && o_.weights.empty()) throw ConfigError("weights: the file is missing");
    const nn::SkipInit follow(!o_.weights.empty());
    encoder_ = std::make_unique<nn::T5Encoder>(build_, nn::T5Options{.rows = o_.rows,
                                                                     .width = o_.width,
                                                                     .depth = o_.depth,
                                                                     .heads = o_.heads,
                                                                     .head = o_.head,
                                                                     .mlp = o_.mlp,
                                                                     .feed_forward = o_.feed_forward});
    if (!origin.stored) view_weights(o_.weights.string(), build_.weights());
  }

  Condition encode(const ConditionRequest& request) const override {
    const at::NoGradGuard no_grad;
    Condition condition =
        nn::encode_captions(request, o_.dropout, [&](const std::vector<std::string>& texts) { return encoded(texts, request); });
    give_back();
    return condition;
  }
  std::vector<Weight> weights() const override {
    std::vector<Weight> all = build_.weights();
    for (Weight& w : all) w.trainable = false;
    return all;
  }
  Files files() const override { return {{path_, bytes_}}; }

 private:
  std::string bytes(const Files* stored) const {
    if (!stored || stored->empty()) return std::string(MappedFile::open(path_)->bytes());
    if (const auto found = stored->find(path_); found != stored->end()) return found->second;
    std::vector<std::string> names;
    for (const auto& [name, _] : *stored) names.push_back(name);
    throw ConfigError(fmt::format("tokenizer: {} is not among the files that this model holds: {}", path_, fmt::join(names, ", ")));
  }

  nn::EncodedCaptions encoded(const std::vector<std::string>& prompts, const ConditionRequest& request) const {
    std::vector<int64_t> ids;
    std::vector<float> mask;
    const auto length = size_t(o_.length);
    for (const std::string& prompt : prompts) {
      std::vector<int64_t> row = tokenizer_.encode(text::composed(prompt));
      if (row.size() > length - 1) {
        cut_.warn(in_quotes(prompt), in_quotes(tokenizer_.decode({row.begin() + int64_t(length) - 1, row.end()})), o_.length);
        row.resize(length - 1);
      }
      if (tokenizer_.end() >= 0) row.push_back(tokenizer_.end());
      mask.insert(mask.end(), row.size(), 1);
      mask.resize(mask.size() + length - row.size(), 0);
      row.resize(length, std::max<int64_t>(tokenizer_.padding(), 0));
      ids.insert(ids.end(), row.begin(), row.end());
    }
    const std::vector<int64_t> shape{int64_t(prompts.size()), o_.length};
    const Tensor seen = o_.mask ? at::tensor(mask).view(shape).to(request.device) : Tensor();
    return {(*encoder_)(at::tensor(ids).view(shape).to(request.device), seen, request.dtype), seen};
  }

  /// Lets the system take the memory of large weights: pages of a mapped file are read again if they are needed.
  void give_back() const {
    size_t bytes = 0;
    for (const Weight& w : build_.weights()) bytes += w.tensor.nbytes();
    if (bytes < large) return;
    const auto page = size_t(::sysconf(_SC_PAGESIZE));
    for (const Weight& w : build_.weights()) {
      if (!w.tensor.device().is_cpu()) continue;
      const auto first = (reinterpret_cast<size_t>(w.tensor.data_ptr()) + page - 1) / page * page;
      const auto end = (reinterpret_cast<size_t>(w.tensor.data_ptr()) + w.tensor.nbytes()) / page * page;
      if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, MADV_PAGEOUT);  // a request; nothing depends on it
    }
  }

  T5TextOptions o_;
  std::string path_, bytes_;
  text::SentencePiece tokenizer_;
  nn::Builder build_;
  std::unique_ptr<nn::T5Encoder> encoder_;
  nn::CutPrompts cut_;
};

}  // namespace

void register_conditioner_t5(Registry& r) {
  r.add<Conditioner, nn::CaptionConditioner<T5TextOptions, Encoder>>("t5", "a prompt, by T5's encoder (PixArt, SD 3, FLUX)");
}

}  // namespace brume::plugins
