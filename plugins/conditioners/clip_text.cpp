// A prompt as condition, by CLIP's text encoder (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
// Supervision", sec. 2.4), as Stable Diffusion has it: byte pairs, a causal transformer, and its tokens as what the network attends to.
//
//   context = norm(encoder(token[ids] + position)),   ids = begin, the prompt, end, padding to 77
//
// While sampling a prompt can be read otherwise (core/prompt.h). Weights multiply the tokens' rows of the context, whose mean is then made
// what it was; what is longer than the context is encoded in chunks of it, each with begin and end, side by side:
//
//   context *= weight,  context *= mean_before / mean_after,   both means over all of the prompt
//
// or, per chunk, the mean of each (A1111), or context = e + weight (context - e) with e of the empty prompt (ComfyUI). The vectors of a
// textual inversion stay in one chunk.
//
// With `projection` the prompt has a pooled vector as well, as SDXL and SD 3 want (Podell et al. 2023, sec. 2.1): the projection of its end
// token; of a prompt of several chunks, that of the first.
//
// Padding is seen by the network, as by the published ones. The weights are somebody else's, under the names of transformers'
// CLIPTextModel, and frozen unless `trainable`; a checkpoint holds them and the tokenizer.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/config/utf8.h"
#include "brume/core/conditioner.h"
#include "brume/core/formed_weights.h"
#include "brume/core/prompt.h"
#include "brume/files/mapped_file.h"
#include "brume/nn/blocks/caption_conditioner.h"
#include "brume/nn/blocks/recompute.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/text/clip_tokenizer.h"
#include "brume/text/prompt.h"
#include "brume/text/unicode.h"
#include "brume/weights/model_weights.h"

namespace brume::plugins {
namespace {

struct ClipTextOptions {
  std::filesystem::path tokenizer, weights;
  int64_t length = 77, width = 768, depth = 12, heads = 12, mlp = 3072, skip = 0, projection = 0;
  std::optional<int64_t> pad;
  bool quick_gelu = true, final_norm = true, trainable = false, checkpoint = false;
  double dropout = 0.1;
  void need_files() const {
    if (tokenizer.empty()) throw ConfigError("tokenizer: the folder with vocab.json and merges.txt is missing");
  }
  void declare(Fields& f) {
    f.field("tokenizer", tokenizer, "a folder with vocab.json and merges.txt, and added_tokens.json if words were added to them");
    f.field("weights", weights, "the published weights: .safetensors or .pt; a checkpoint needs none");
    f.field("length", length, "tokens of a prompt, begin and end included; what is longer is cut, with a warning", within(3, 4096));
    f.field("width", width, "width of a token: 768 (SD 1), 1024 (SD 2)", within(1, 8192));
    f.field("depth", depth, "layers of the transformer: 12 (SD 1), 23 (SD 2)", within(1, 256));
    f.field("heads", heads, "attention heads: 12 (SD 1), 16 (SD 2)", within(1, 256));
    f.field("mlp", mlp, "width within its feed-forward layers: 3072 (SD 1), 4096 (SD 2)", within(1, 65536));
    f.choice("activation", quick_gelu, "quick_gelu (SD 1), gelu (SD 2)", {{"quick_gelu", true}, {"gelu", false}});
    f.field("clip_skip", skip, "last layers left out: 1 (SDXL, SD 3)", within(0, 255));
    f.field("final_norm", final_norm, "the final norm of the tokens; false (SDXL, SD 3)");
    f.field(
        "projection", projection,
        "width of the pooled vector, a projection of the end token after all layers and the norm: 1280 (the second encoder of SDXL); 0 = "
        "none",
        within(0, 65536));
    f.field("pad", pad, "token that fills a prompt up: absent = the end token (SD 1), 0 (SD 2)", at_least(0));
    f.field("trainable", trainable, "train its weights with the network");
    f.field("dropout", dropout, "probability of the empty prompt while training; 0 = no null condition, so no cfg", within(0, 1));
    nn::declare_checkpoint(f, checkpoint);
    f.require(width % heads == 0, "heads", "must divide width");
    f.require(skip <= depth, "clip_skip", "must not be more than depth");
  }
};

std::string file_of(const ClipTextOptions& o, const char* name) { return (o.tokenizer / name).string(); }

constexpr const char* added_tokens = "added_tokens.json";

Files read_tokenizer(const ClipTextOptions& o, const Files* stored) {
  const bool keeps = stored && !stored->empty();
  Files files;
  for (const char* name : {"vocab.json", "merges.txt", added_tokens}) {
    const std::string path = file_of(o, name);
    const bool kept = stored && stored->contains(path);
    if (!kept && name == added_tokens && (keeps || !std::filesystem::is_regular_file(path))) continue;
    if (keeps && !kept) throw ConfigError(fmt::format("tokenizer: {} is not among the files this model was trained with", path));
    files[path] = kept ? stored->at(path) : std::string(MappedFile::open(path)->bytes());
  }
  return files;
}

std::string content_of(const Files& files, const std::string& path) {
  const auto found = files.find(path);
  return found == files.end() ? "" : found->second;
}

/// A token of a prompt, and how much it counts.
struct Token {
  int64_t id;
  double weight = 1;
  bool continues = false;  ///< what is kept together with the token before: a vector of a textual inversion, a piece of a word
};
using Tokens = std::vector<Token>;

/// Returns the place of the first of the words in a text, and its index, the longest if two begin there; npos if none does.
std::pair<size_t, size_t> first_word(std::string_view text, const std::vector<Word>& words) {
  std::pair<size_t, size_t> best{std::string_view::npos, 0};
  for (size_t w = 0; w < words.size(); ++w) {
    const size_t at = text::find_word(text, words[w].text);
    if (at < best.first || (at != std::string_view::npos && at == best.first && words[w].text.size() > words[best.second].text.size()))
      best = {at, w};
  }
  return best;
}

/// Where a long prompt is divided.
struct Division {
  size_t room;          ///< tokens per chunk
  int64_t comma;        ///< the token
  size_t comma_tokens;  ///< a chunk ends after its last comma if at most so many tokens follow it; 0 = commas do not count
};

/// Returns the end of the chunk of at most `room` tokens that begins at `first`: after a comma, or before what it would tear, unless that
/// is longer than a chunk.
size_t chunk_end(const Tokens& tokens, size_t first, const Division& d) {
  const size_t room = d.room;
  if (tokens.size() - first <= room) return tokens.size();
  size_t end = first + room;
  if (tokens[end].id != d.comma)
    for (size_t after = 1; after <= std::min(d.comma_tokens, room - 1); ++after)
      if (tokens[end - after].id == d.comma) return end - after + 1;
  while (end > first && tokens[end].continues) --end;
  return end > first ? end : first + room;
}

class Encoder final : public ConditionEncoder {
 public:
  static constexpr bool reads_prompts = true;
  Encoder(const ClipTextOptions& o, const EncoderOrigin& origin)
      : o_(o),
        files_(read_tokenizer(o, origin.stored)),
        tokenizer_(files_.at(file_of(o, "vocab.json")), files_.at(file_of(o, "merges.txt")), o.tokenizer.string(), o.pad,
                   content_of(files_, file_of(o, added_tokens))),
        build_(origin.seed),
        encoder_(build_["text_model"], {tokenizer_.size(), o.length, o.width, o.depth, o.heads, o.mlp, o.quick_gelu, o.checkpoint}) {
    if (o_.projection > 0) projection_ = build_.linear("text_projection", o.width, o.projection, false);
    if (origin.stored) return;
    if (o_.weights.empty() && !o_.trainable) throw ConfigError("weights: the file is missing, and the encoder is not trained");
    if (!o_.weights.empty()) load_published(o_.weights.string(), build_.weights());
  }

  Condition encode(const ConditionRequest& request) const override {
    const auto encode = [&] {
      return nn::encode_captions(request, o_.dropout, [&](const std::vector<std::string>& texts) { return encoded(texts, request); });
    };
    if (o_.trainable || learns(request)) return encode();
    const at::NoGradGuard no_grad;
    return encode();
  }
  std::vector<Weight> weights() const override {
    std::vector<Weight> all = build_.weights();
    const auto skipped = [&](const std::string& name) {
      for (int64_t i = o_.projection > 0 ? o_.depth : o_.depth - o_.skip; i < o_.depth; ++i)
        if (name.starts_with(fmt::format("text_model.encoder.layers.{}.", i))) return true;
      return false;
    };
    for (Weight& w : all) w.trainable = o_.trainable && !skipped(w.name);
    return all;
  }
  Files files() const override { return files_; }

 private:
  size_t room() const { return size_t(o_.length - 2); }
  /// Returns true if adapters of its weights, or words of the request, are trained.
  bool learns(const ConditionRequest& request) const {
    if (!at::GradMode::is_enabled()) return false;
    const auto& weights = build_.weights();
    const auto learned = [](const Word& w) { return w.vectors.requires_grad(); };
    return std::any_of(weights.begin(), weights.end(),
                       [](const Weight& w) { return w.tensor.requires_grad() || FormedWeights::has(w.tensor); }) ||
           (request.reading && std::any_of(request.reading->words.begin(), request.reading->words.end(), learned));
  }

  /// What is read as one piece, in tokens; words of textual inversions are tokens of their own, counted after the tokenizer's.
  void append(Tokens& tokens, std::string_view text, double weight, const PromptReading& reading) const {
    const std::vector<Word>& words = reading.words;
    const auto [at, which] = first_word(text, words);
    if (reading.absolute)
      append_words(tokens, text.substr(0, at), weight);
    else
      for (const int64_t id : tokenizer_.encode(text.substr(0, at))) tokens.push_back({id, weight});
    if (at == std::string_view::npos) return;
    int64_t id = tokenizer_.size();
    for (size_t w = 0; w < which; ++w) id += words[w].vectors.size(0);
    for (int64_t i = 0; i < words[which].vectors.size(0); ++i) tokens.push_back({id + i, weight, i > 0});
    append(tokens, text.substr(at + words[which].text.size()), weight, reading);
  }
  /// Adds what is between blanks, which a chunk does not tear if it has less than eight tokens (ComfyUI).
  void append_words(Tokens& tokens, std::string_view text, double weight) const {
    constexpr size_t torn = 8;
    while (!text.empty()) {
      const size_t end = std::min(text.find_first_of(" \n"), text.size());
      const std::vector<int64_t> ids = tokenizer_.encode(text.substr(0, end));
      for (size_t i = 0; i < ids.size(); ++i) tokens.push_back({ids[i], weight, i > 0 && ids.size() < torn});
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }

  /// Returns the tokens of each chunk, without begin and end.
  std::vector<Tokens> chunks(const std::string& given, const PromptReading& reading) const {
    const std::string prompt = text::composed(given);
    const std::vector<text::PromptPart> parts = !reading.weights   ? std::vector<text::PromptPart>{{prompt}}
                                                : reading.absolute ? text::absolute_parts(prompt)
                                                                   : text::weighted_parts(prompt);
    const Division division{room(), tokenizer_.encode(",").front(), size_t(reading.comma_tokens)};
    std::vector<Tokens> all;
    const bool breaks = reading.chunks && !reading.absolute;  // to ComfyUI, BREAK is a word
    const auto divided = breaks ? text::split_at_breaks(parts) : std::vector<std::vector<text::PromptPart>>{parts};
    for (size_t d = 0; d < divided.size(); ++d) {
      Tokens tokens;
      for (const text::PromptPart& p : divided[d]) append(tokens, p.text, p.weight, reading);
      if (tokens.empty() && d > 0 && d + 1 == divided.size()) break;  // nothing is after the last BREAK
      if (!reading.chunks && tokens.size() > room()) cut(prompt, tokens, reading.words);
      size_t first = 0;
      do {
        const size_t end = chunk_end(tokens, first, division);
        all.emplace_back(tokens.begin() + int64_t(first), tokens.begin() + int64_t(end));
        first = end;
      } while (first < tokens.size());
    }
    return all;
  }
  void cut(const std::string& prompt, Tokens& tokens, const std::vector<Word>& words) const {
    std::vector<int64_t> lost;
    std::string vectors;
    for (size_t i = room(); i < tokens.size(); ++i)
      if (tokens[i].id < tokenizer_.size())
        lost.push_back(tokens[i].id);
      else if (i == room() || !tokens[i].continues)
        vectors += fmt::format(" and vectors of {}", in_quotes(word_of(tokens[i].id, words)));
    cut_.warn(in_quotes(prompt), in_quotes(tokenizer_.decode(lost)) + vectors, o_.length);
    tokens.resize(room());
  }
  /// Returns the textual inversion that a token counted after the tokenizer's belongs to.
  const std::string& word_of(int64_t id, const std::vector<Word>& words) const {
    size_t w = 0;
    for (int64_t end = tokenizer_.size() + words[0].vectors.size(0); end <= id; end += words[++w].vectors.size(0)) continue;
    return words[w].text;
  }

  struct Encoded {
    Tensor context;   ///< [1, chunks * length, width]
    Tensor vector{};  ///< [chunks, projection]
  };
  Encoded context(const std::vector<Tokens>& chunks, const PromptReading& reading, const ConditionRequest& request) const {
    std::vector<int64_t> ids;
    std::vector<float> weights;
    for (const Tokens& tokens : chunks) {
      ids.push_back(tokenizer_.begin());
      weights.push_back(1);
      for (const Token& t : tokens) ids.push_back(t.id), weights.push_back(float(t.weight));
      ids.push_back(tokenizer_.end());
      ids.resize(ids.size() + room() - tokens.size(), tokenizer_.padding());
      weights.resize(ids.size(), 1);
    }
    const int64_t count = int64_t(chunks.size()), skip = reading.skip.value_or(o_.skip);
    const Tensor rows = at::tensor(ids).view({count, o_.length}).to(request.device);
    const nn::EncodedText z = encoder_(rows, {.keys = {}, .causal = true}, request.dtype,
                                       {skip, o_.final_norm, projection_.weight.defined(), vectors(reading.words)});
    Encoded out{z.tokens.reshape({1, count * o_.length, o_.width})};
    if (z.last.defined()) out.vector = pooled(z.last, chunks);
    if (std::all_of(weights.begin(), weights.end(), [](float w) { return w == 1; })) return out;
    const Tensor rows_of_words = out.context.to(at::kFloat), factors = at::tensor(weights).view({1, -1, 1}).to(request.device);
    out.context = emphasised(rows_of_words, factors, count, reading, request).to(request.dtype);
    return out;
  }
  /// Returns the rows [1, count * length, width] by their weights [1, count * length, 1].
  Tensor emphasised(const Tensor& rows, const Tensor& weights, int64_t count, const PromptReading& reading,
                    const ConditionRequest& request) const {
    if (reading.emphasis == Emphasis::empty) {
      const Tensor empty = context({{}}, reading, request).context.to(at::kFloat).repeat({1, count, 1});
      return at::where(weights == 1, rows, empty + (rows - empty) * weights);
    }
    const int64_t pieces = reading.emphasis == Emphasis::chunk_mean ? count : 1;
    std::vector<Tensor> all;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t length = rows.size(1) / pieces;
      const Tensor before = rows.narrow(1, i * length, length), after = before * weights.narrow(1, i * length, length);
      all.push_back(after * (before.mean() / after.mean()));
    }
    return all.size() == 1 ? all[0] : at::cat(all, 1);
  }
  /// Returns the projection of each chunk's end token. last: [chunks, length, width].
  Tensor pooled(const Tensor& last, const std::vector<Tokens>& chunks) const {
    std::vector<Tensor> ends;
    for (size_t i = 0; i < chunks.size(); ++i) ends.push_back(last.select(0, int64_t(i)).narrow(0, int64_t(chunks[i].size()) + 1, 1));
    return projection_(at::cat(ends));
  }
  Tensor vectors(const std::vector<Word>& words) const {
    std::vector<Tensor> all;
    for (const Word& w : words) all.push_back(w.vectors);
    return all.empty() ? Tensor() : at::cat(all);
  }

  nn::EncodedCaptions encoded(const std::vector<std::string>& prompts, const ConditionRequest& request) const {
    const PromptReading reading = own_reading(request.reading);
    if (!reading.weights && !reading.chunks) {
      std::vector<Tokens> all;
      for (const std::string& prompt : prompts) all.push_back(chunks(prompt, reading).front());
      const Encoded one = context(all, reading, request);
      return {one.context.view({int64_t(prompts.size()), o_.length, o_.width}), {}, {}, one.vector};
    }
    std::vector<Tensor> contexts, vectors;
    for (const std::string& prompt : prompts) {
      const Encoded one = context(chunks(prompt, reading), reading, request);
      contexts.push_back(one.context);
      if (one.vector.defined()) vectors.push_back(one.vector.narrow(0, 0, 1));
    }
    return {at::cat(contexts),
            {},
            reading.chunks ? context({{}}, reading, request).context : Tensor(),
            vectors.empty() ? Tensor() : at::cat(vectors)};
  }
  /// Returns how prompts are read, with vectors of this encoder. Throws ConfigError if a word has none, or too many layers are left out.
  PromptReading own_reading(const PromptReading* given) const {
    PromptReading own = given ? *given : PromptReading();
    if (own.skip.value_or(0) > o_.depth)
      throw ConfigError(
          fmt::format("sample.prompts: clip_skip = {} is more than the {} of the text encoder", *own.skip, counted(o_.depth, "layer")));
    for (Word& w : own.words) {
      const Tensor vectors = vectors_for(w, 0, o_.width);
      if (!vectors.defined())
        throw ConfigError(fmt::format("sample.prompts: the vectors of the embedding '{}' have {}, and this model's text encoder has {}",
                                      w.text, counted(w.vectors.size(1), "number"), o_.width));
      w = {w.text, vectors};
    }
    return own;
  }

  ClipTextOptions o_;
  Files files_;
  text::ClipTokenizer tokenizer_;
  nn::Builder build_;
  nn::TextEncoder encoder_;
  nn::Linear projection_;
  nn::CutPrompts cut_;
};

}  // namespace

void register_conditioner_clip_text(Registry& r) {
  r.add<Conditioner, nn::CaptionConditioner<ClipTextOptions, Encoder>>(
      "clip_text", "a prompt, by CLIP's text encoder and its published weights (Stable Diffusion)");
}

}  // namespace brume::plugins
