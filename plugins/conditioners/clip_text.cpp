// A prompt as condition, by CLIP's text encoder (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
// Supervision", sec. 2.4), as Stable Diffusion has it: byte pairs, a causal transformer, and its tokens as what the network attends to.
//
//   context = norm(encoder(token[ids] + position)),   ids = begin, the prompt, end, padding to 77
//
// Padding is seen by the network, as by the published ones. The weights are somebody else's, under the names of transformers'
// CLIPTextModel, and frozen unless `trainable`; a checkpoint holds them and the tokenizer.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <optional>

#include "config/registry.h"
#include "core/conditioner.h"
#include "io/mapped_file.h"
#include "io/model_file.h"
#include "nn/captions.h"
#include "nn/text_encoder.h"
#include "text/clip_tokenizer.h"
#include "text/utf8.h"

namespace brume::plugins {
namespace {

struct ClipTextOptions {
  std::filesystem::path tokenizer, weights;
  int64_t length = 77, width = 768, depth = 12, heads = 12, mlp = 3072, skip = 0;
  std::optional<int64_t> pad;
  bool quick_gelu = true, trainable = false;
  double dropout = 0.1;
  void need_files() const {
    if (tokenizer.empty()) throw ConfigError("tokenizer: the folder with vocab.json and merges.txt is missing");
  }
  void declare(Fields& f) {
    f.field("tokenizer", tokenizer, "a folder with vocab.json and merges.txt");
    f.field("weights", weights, "the published weights: .safetensors or .pt; a checkpoint needs none");
    f.field("length", length, "tokens of a prompt, begin and end included; what is longer is cut, with a warning", within(3, 4096));
    f.field("width", width, "of a token: 768 (SD 1), 1024 (SD 2)", within(1, 8192));
    f.field("depth", depth, "layers of the transformer: 12 (SD 1), 23 (SD 2)", within(1, 256));
    f.field("heads", heads, "of its attention: 12 (SD 1), 16 (SD 2)", within(1, 256));
    f.field("mlp", mlp, "width within its feed-forward layers: 3072 (SD 1), 4096 (SD 2)", within(1, 65536));
    f.choice("activation", quick_gelu, "quick_gelu (SD 1), gelu (SD 2)", {{"quick_gelu", true}, {"gelu", false}});
    f.field("clip_skip", skip, "last layers left out; the final norm is kept", within(0, 255));
    f.field("pad", pad, "token that fills a prompt up: absent = the end token (SD 1), 0 (SD 2)", at_least(0));
    f.field("trainable", trainable, "train its weights with the network");
    f.field("dropout", dropout, "probability of the empty prompt while training; 0 = no null condition, so no cfg", within(0, 1));
    f.require(width % heads == 0, "heads", "must divide width");
    f.require(skip <= depth, "clip_skip", "must not be more than depth");
  }
};

std::string file_of(const ClipTextOptions& o, const char* name) { return (o.tokenizer / name).string(); }

Files read_tokenizer(const ClipTextOptions& o, const Files* stored) {
  Files files;
  for (const char* name : {"vocab.json", "merges.txt"}) {
    const std::string path = file_of(o, name);
    const bool kept = stored && stored->contains(path);
    if (stored && !stored->empty() && !kept)
      throw ConfigError(fmt::format("tokenizer: {} is not among the files this model was trained with", path));
    files[path] = kept ? stored->at(path) : std::string(io::MappedFile::open(path)->bytes());
  }
  return files;
}

/// Published files may hold more: the image's half of CLIP, or the numbers of the positions.
void load_published(const std::string& path, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  std::map<std::string, Tensor> by_name;
  for (const io::NamedTensor& t : io::load_tensors(path)) by_name.emplace(t.name, t.tensor);
  std::vector<Problem> problems;
  for (const Weight& w : weights) {
    const auto found = by_name.find(w.name);
    if (found == by_name.end())
      problems.push_back({{}, "", fmt::format("{}: lacks the tensor '{}' [{}]", path, w.name, fmt::join(w.tensor.sizes(), ", "))});
    else if (found->second.sizes() != w.tensor.sizes())
      problems.push_back({{},
                          "",
                          fmt::format("{}: tensor '{}' has shape [{}], and these options make it [{}]", path, w.name,
                                      fmt::join(found->second.sizes(), ", "), fmt::join(w.tensor.sizes(), ", "))});
  }
  if (problems.size() > 10) problems.resize(10);
  if (!problems.empty()) throw ConfigError(std::move(problems));
  for (const Weight& w : weights) w.tensor.copy_(by_name.at(w.name));
}

class Encoder final : public ConditionEncoder {
 public:
  Encoder(const ClipTextOptions& o, const EncoderOrigin& origin)
      : o_(o),
        files_(read_tokenizer(o, origin.stored)),
        tokenizer_(files_.at(file_of(o, "vocab.json")), files_.at(file_of(o, "merges.txt")), o.tokenizer.string(), o.pad),
        build_(origin.seed),
        encoder_(build_["text_model"], {tokenizer_.size(), o.length, o.width, o.depth, o.heads, o.mlp, o.quick_gelu}) {
    if (origin.stored) return;
    if (o_.weights.empty() && !o_.trainable) throw ConfigError("weights: the file is missing, and the encoder is not trained");
    if (!o_.weights.empty()) load_published(o_.weights.string(), build_.weights());
  }

  Condition encode(const ConditionRequest& request) const override {
    const auto encode = [&] {
      return nn::encode_captions(request, o_.dropout, [&](const std::vector<std::string>& texts) { return encoded(texts, request); });
    };
    if (o_.trainable) return encode();
    const at::NoGradGuard no_grad;
    return encode();
  }
  std::vector<Weight> weights() const override {
    std::vector<Weight> all = build_.weights();
    const auto skipped = [&](const std::string& name) {
      for (int64_t i = o_.depth - o_.skip; i < o_.depth; ++i)
        if (name.starts_with(fmt::format("text_model.encoder.layers.{}.", i))) return true;
      return false;
    };
    for (Weight& w : all) w.trainable = o_.trainable && !skipped(w.name);
    return all;
  }
  Files files() const override { return files_; }

 private:
  std::vector<int64_t> tokens(const std::string& prompt) const {
    std::vector<int64_t> ids = tokenizer_.encode(prompt);
    const size_t room = size_t(o_.length - 2);
    if (ids.size() > room) {
      cut_.warn(text::in_quotes(prompt), text::in_quotes(tokenizer_.decode({ids.begin() + int64_t(room), ids.end()})), o_.length);
      ids.resize(room);
    }
    ids.insert(ids.begin(), tokenizer_.begin());
    ids.push_back(tokenizer_.end());
    ids.resize(size_t(o_.length), tokenizer_.padding());
    return ids;
  }

  nn::EncodedCaptions encoded(const std::vector<std::string>& prompts, const ConditionRequest& request) const {
    std::vector<int64_t> ids;
    for (const std::string& prompt : prompts) {
      const std::vector<int64_t> row = tokens(prompt);
      ids.insert(ids.end(), row.begin(), row.end());
    }
    const Tensor rows = at::tensor(ids).view({int64_t(prompts.size()), o_.length}).to(request.device);
    return {encoder_(rows, {.keys = {}, .causal = true}, request.dtype, o_.skip)};
  }

  ClipTextOptions o_;
  Files files_;
  text::ClipTokenizer tokenizer_;
  nn::Builder build_;
  nn::TextEncoder encoder_;
  nn::CutPrompts cut_;
};

}  // namespace

void register_conditioner_clip_text(Registry& r) {
  r.add<Conditioner, nn::CaptionConditioner<ClipTextOptions, Encoder>>(
      "clip_text", "a prompt, by CLIP's text encoder and its published weights (Stable Diffusion)");
}

}  // namespace brume::plugins
