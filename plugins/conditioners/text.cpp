// A caption as condition, by a transformer that is trained together with the network (Rombach et al. 2022, "High-Resolution Image
// Synthesis with Latent Diffusion Models", sec. 3.3): pieces of words (sentencepiece), a bidirectional encoder, and its tokens as what
// the network attends to.
//
//   context = norm(encoder(token[ids] + position)),   ids = begin, the caption's pieces, end; padding is seen by nobody
//
// While training a caption is replaced by the empty one with probability `dropout` (Ho & Salimans 2022); that, or a negative caption, is
// then the null condition. A checkpoint holds the tokenizer.
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "brume/config/registry.h"
#include "brume/config/utf8.h"
#include "brume/core/conditioner.h"
#include "brume/files/mapped_file.h"
#include "brume/nn/blocks/caption_conditioner.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/text/sentencepiece.h"
#include "brume/text/unicode.h"

namespace brume::plugins {
namespace {

struct TextOptions {
  std::filesystem::path tokenizer;
  int64_t length = 32, width = 256, depth = 4, heads = 4, mlp_ratio = 4;
  double dropout = 0.1;
  bool checkpoint = false;
  void need_files() const {
    if (tokenizer.empty()) throw ConfigError("tokenizer: the file is missing; `brume tokenizer train` makes one");
  }
  void declare(Fields& f) {
    f.field("tokenizer", tokenizer, "a sentencepiece model, as `brume tokenizer train` makes it");
    f.field("length", length, "tokens of a caption, begin and end included; what is longer is cut, with a warning", within(3, 4096));
    f.field("width", width, "width of a token", within(1, 8192));
    f.field("depth", depth, "layers of the transformer; 0 = embeddings alone", within(0, 256));
    f.field("heads", heads, "attention heads", within(1, 256));
    f.field("mlp_ratio", mlp_ratio, "width within its feed-forward layers, over `width`", within(1, 64));
    f.field("dropout", dropout, "probability of the empty caption while training; 0 = no null condition, so no cfg", within(0, 1));
    nn::declare_checkpoint(f, checkpoint);
    f.require(width % heads == 0, "heads", "must divide width");
  }
};

class Encoder final : public ConditionEncoder {
 public:
  static constexpr bool reads_prompts = false;
  Encoder(const TextOptions& o, const EncoderOrigin& origin)
      : o_(o),
        path_(o.tokenizer.string()),
        bytes_(bytes(origin.stored)),
        tokenizer_(bytes_, path_),
        build_(origin.seed),
        encoder_(build_, {.rows = tokenizer_.size(),
                          .length = o.length,
                          .width = o.width,
                          .depth = o.depth,
                          .heads = o.heads,
                          .mlp = o.mlp_ratio * o.width,
                          .checkpoint = o.checkpoint}) {}

  Condition encode(const ConditionRequest& request) const override {
    return nn::encode_captions(request, o_.dropout, [&](const std::vector<std::string>& captions) { return encoded(captions, request); });
  }
  std::vector<Weight> weights() const override { return build_.weights(); }
  Files files() const override { return {{path_, bytes_}}; }

 private:
  /// Returns the model's own file if it is read back, whatever has become of the one it was trained with.
  std::string bytes(const Files* stored) const {
    if (stored && !stored->empty()) {
      if (const auto found = stored->find(path_); found != stored->end()) return found->second;
      std::vector<std::string> names;
      for (const auto& [name, _] : *stored) names.push_back(name);
      throw ConfigError(
          fmt::format("tokenizer: {} is not the one this model was trained with, which it holds: {}", path_, fmt::join(names, ", ")));
    }
    return std::string(MappedFile::open(path_)->bytes());
  }

  /// begin, the caption, end: as far as the tokenizer has those.
  std::vector<int64_t> tokens(const std::string& caption) const {
    std::vector<int64_t> ids = tokenizer_.encode(caption);
    const int64_t begin = tokenizer_.begin(), end = tokenizer_.end();
    const size_t room = size_t(o_.length - (begin >= 0) - (end >= 0));
    if (ids.size() > room) {
      cut_.warn(in_quotes(caption), in_quotes(tokenizer_.decode({ids.begin() + int64_t(room), ids.end()})), o_.length);
      ids.resize(room);
    }
    if (begin >= 0) ids.insert(ids.begin(), begin);
    if (end >= 0) ids.push_back(end);
    if (ids.empty()) ids.push_back(std::max<int64_t>(tokenizer_.unknown(), 0));  // the empty caption has a token, too
    return ids;
  }

  nn::EncodedCaptions encoded(const std::vector<std::string>& captions, const ConditionRequest& request) const {
    std::vector<int64_t> ids;
    std::vector<float> mask;
    for (const std::string& caption : captions) {
      std::vector<int64_t> row = tokens(text::composed(caption));
      mask.insert(mask.end(), row.size(), 1);
      mask.resize(mask.size() + size_t(o_.length) - row.size(), 0);
      row.resize(size_t(o_.length), std::max<int64_t>(tokenizer_.padding(), 0));
      ids.insert(ids.end(), row.begin(), row.end());
    }
    const std::vector<int64_t> shape{int64_t(captions.size()), o_.length};
    const Tensor keys = at::tensor(mask).view(shape).to(request.device);
    return {encoder_(at::tensor(ids).view(shape).to(request.device), {.keys = keys}, request.dtype), keys};
  }

  TextOptions o_;
  std::string path_, bytes_;
  text::SentencePiece tokenizer_;
  nn::Builder build_;
  nn::TextEncoder encoder_;
  nn::CutPrompts cut_;
};

}  // namespace

void register_conditioner_text(Registry& r) {
  r.add<Conditioner, nn::CaptionConditioner<TextOptions, Encoder>>("text", "a caption, by a transformer trained with the network (LDM)");
}

}  // namespace brume::plugins
