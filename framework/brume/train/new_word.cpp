#include "brume/train/new_word.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/utf8.h"
#include "brume/core/formed_weights.h"
#include "brume/core/warnings.h"
#include "brume/text/clip_tokenizer.h"
#include "brume/text/unicode.h"

namespace brume {
namespace {

constexpr const char* table_name = "text_model.embeddings.token_embedding.weight";

/// A text encoder of CLIP: its table of tokens, and what divides texts into them.
struct Encoder {
  Tensor table;
  text::ClipTokenizer tokenizer;
};

std::string content(const Files& files, const std::string& path) {
  const auto found = files.find(path);
  return found == files.end() ? "" : found->second;
}

/// Returns the tokenizers of CLIP among the files, in the order of their folders.
std::vector<text::ClipTokenizer> tokenizers_of(const Files& files) {
  constexpr std::string_view vocabulary = "vocab.json";
  std::vector<text::ClipTokenizer> all;
  for (const auto& [path, bytes] : files) {
    if (!path.ends_with(vocabulary)) continue;
    const std::string folder = path.substr(0, path.size() - vocabulary.size());
    if (const std::string merges = content(files, folder + "merges.txt"); !merges.empty())
      all.emplace_back(bytes, merges, "the model's tokenizer", std::nullopt, content(files, folder + "added_tokens.json"));
  }
  return all;
}

/// Returns the text encoders of CLIP among the weights, in their order. They may share one tokenizer. Empty if a tokenizer is not there.
std::vector<Encoder> encoders_of(const std::vector<Weight>& weights, const Files& files) {
  const std::vector<text::ClipTokenizer> tokenizers = tokenizers_of(files);
  std::vector<Tensor> tables;
  for (const Weight& w : weights)
    if (w.name.ends_with(table_name)) tables.push_back(w.tensor);
  if (tokenizers.size() != tables.size() && tokenizers.size() != 1) return {};
  std::vector<Encoder> all;
  for (size_t i = 0; i < tables.size(); ++i) all.push_back({tables[i], tokenizers[tokenizers.size() == 1 ? 0 : i]});
  return all;
}

/// Returns the three tokens that each vector is nearest to.
std::string nearest_tokens(const Encoder& encoder, const Tensor& vectors) {
  const auto unit = [](const Tensor& t) { return t / t.norm(2, {1}, true).clamp_min(1e-12); };
  const Tensor table =
      FormedWeights::of(encoder.table).to(at::kCPU, at::kFloat).narrow(0, 0, std::min(encoder.table.size(0), encoder.tokenizer.size()));
  const auto [cosines, rows] = unit(vectors.to(at::kCPU, at::kFloat)).mm(unit(table).t()).sort(1, true);
  std::string all;
  for (int64_t i = 0; i < cosines.size(0); ++i) {
    int found = 0;
    for (int64_t k = 0; k < cosines.size(1) && found < 3; ++k) {
      std::string text = encoder.tokenizer.decode({rows[i][k].item<int64_t>()});
      while (text.ends_with(' ')) text.pop_back();
      if (text.empty() || invalid_utf8(text)) continue;  // a byte of a letter
      all += fmt::format("{}{} {:.2f}", found++ > 0 ? ", " : i > 0 ? "; " : "", text, cosines[i][k].item<float>());
    }
  }
  return all;
}

}  // namespace

Word new_word(const NewWord& wanted, const std::vector<Weight>& weights, const Files& files, const std::string& path) {
  const auto refuse = [&](const char* key, std::string text) { return ConfigError({Problem{{}, path + key, std::move(text)}}); };
  const std::vector<Encoder> encoders = encoders_of(weights, files);
  if (encoders.empty() || encoders.size() > 2)
    throw refuse("",
                 fmt::format("a textual inversion needs a model with one or two text encoders of CLIP and their tokenizers, and this one "
                             "has {}",
                             encoders.size()));
  const std::string word = text::composed(wanted.text);
  if (word.empty()) throw refuse(".token", "is empty; a new word like <mist> is needed");
  Word found{word, {}};
  for (const Encoder& e : encoders) {
    if (e.tokenizer.encode(word).size() == 1)
      throw refuse(".token", fmt::format("'{}' is a token of this model already; a new word is needed, like '<{}>'", word, word));
    const std::vector<int64_t> tokens = e.tokenizer.encode(wanted.init);
    if (tokens.empty()) throw refuse(".init", "has no token; words that the model knows are needed, like 'red circle'");
    if (int64_t(tokens.size()) > wanted.vectors && !found.vectors.defined())
      warn(fmt::format("{}.init: '{}' has {}, and the word {}: the others are left out", path, wanted.init, counted(tokens.size(), "token"),
                       counted(wanted.vectors, "vector")));
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < wanted.vectors; ++i) rows.push_back(tokens[size_t(i) % tokens.size()]);
    const Tensor vectors = e.table.to(at::kFloat).index_select(0, at::tensor(rows)).clone();
    if (found.vectors.defined())
      found.others.push_back(vectors);
    else
      found.vectors = vectors;
  }
  return found;
}

std::string nearest_words(const Word& word, const std::vector<Weight>& weights, const Files& files) {
  const at::NoGradGuard no_grad;
  const std::vector<Encoder> encoders = encoders_of(weights, files);
  std::string all;
  for (size_t i = 0; i < std::min(encoders.size(), 1 + word.others.size()); ++i)
    all += (i > 0 ? " | " : "") + nearest_tokens(encoders[i], i == 0 ? word.vectors : word.others[i - 1]);
  return all;
}

}  // namespace brume
