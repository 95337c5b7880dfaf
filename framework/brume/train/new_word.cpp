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

#include "brume/config/errors.h"
#include "brume/config/utf8.h"
#include "brume/core/formed_weights.h"
#include "brume/core/warnings.h"
#include "brume/text/clip_tokenizer.h"
#include "brume/text/unicode.h"

namespace brume {
namespace {

constexpr const char* table_name = "text_model.embeddings.token_embedding.weight";

const std::string* file_that_ends(const Files& files, const std::string& ending) {
  const auto found = std::find_if(files.begin(), files.end(), [&](const auto& f) { return f.first.ends_with(ending); });
  return found == files.end() ? nullptr : &found->second;
}

/// Returns the tables of tokens among the weights.
std::vector<Tensor> tables_of(const std::vector<Weight>& weights) {
  std::vector<Tensor> tables;
  for (const Weight& w : weights)
    if (w.name.ends_with(table_name)) tables.push_back(w.tensor);
  return tables;
}

/// Returns the tokenizer of CLIP among the files; nothing if it is not there.
std::optional<text::ClipTokenizer> tokenizer_of(const Files& files) {
  const std::string *vocabulary = file_that_ends(files, "vocab.json"), *merges = file_that_ends(files, "merges.txt"),
                    *added = file_that_ends(files, "added_tokens.json");
  if (!vocabulary || !merges) return {};
  return text::ClipTokenizer(*vocabulary, *merges, "the model's tokenizer", {}, added ? *added : "");
}

}  // namespace

Word new_word(const NewWord& wanted, const std::vector<Weight>& weights, const Files& files, const std::string& path) {
  const auto refuse = [&](const char* key, std::string text) { return ConfigError({Problem{{}, path + key, std::move(text)}}); };
  const std::vector<Tensor> tables = tables_of(weights);
  const std::optional<text::ClipTokenizer> found = tokenizer_of(files);
  if (tables.size() != 1 || !found)
    throw refuse("", fmt::format("a textual inversion needs a model with one text encoder of CLIP, and this one has {}", tables.size()));
  const text::ClipTokenizer& tokenizer = *found;
  const std::string word = text::composed(wanted.text);
  if (word.empty()) throw refuse(".token", "is empty; a new word like <mist> is needed");
  if (tokenizer.encode(word).size() == 1)
    throw refuse(".token", fmt::format("'{}' is a token of this model already; a new word is needed, like '<{}>'", word, word));
  const std::vector<int64_t> tokens = tokenizer.encode(wanted.init);
  if (tokens.empty()) throw refuse(".init", "has no token; words that the model knows are needed, like 'red circle'");
  if (int64_t(tokens.size()) > wanted.vectors)
    warn(fmt::format("{}.init: '{}' has {} tokens, and the word {} vectors: the others are left out", path, wanted.init, tokens.size(),
                     wanted.vectors));
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < wanted.vectors; ++i) rows.push_back(tokens[size_t(i) % tokens.size()]);
  return {word, tables.front().to(at::kFloat).index_select(0, at::tensor(rows)).clone()};
}

std::string nearest_words(const Word& word, const std::vector<Weight>& weights, const Files& files) {
  const std::vector<Tensor> tables = tables_of(weights);
  const std::optional<text::ClipTokenizer> tokenizer = tokenizer_of(files);
  if (tables.size() != 1 || !tokenizer) return "";
  const at::NoGradGuard no_grad;
  const auto unit = [](const Tensor& t) { return t / t.norm(2, {1}, true).clamp_min(1e-12); };
  const Tensor table =
      FormedWeights::of(tables.front()).to(at::kCPU, at::kFloat).narrow(0, 0, std::min(tables.front().size(0), tokenizer->size()));
  const auto [cosines, rows] = unit(word.vectors.to(at::kCPU, at::kFloat)).mm(unit(table).t()).sort(1, true);
  std::string all;
  for (int64_t i = 0; i < cosines.size(0); ++i) {
    int found = 0;
    for (int64_t k = 0; k < cosines.size(1) && found < 3; ++k) {
      std::string text = tokenizer->decode({rows[i][k].item<int64_t>()});
      while (text.ends_with(' ')) text.pop_back();
      if (text.empty() || invalid_utf8(text)) continue;  // a byte of a letter
      all += fmt::format("{}{} {:.2f}", found++ > 0 ? ", " : i > 0 ? "; " : "", text, cosines[i][k].item<float>());
    }
  }
  return all;
}

}  // namespace brume
