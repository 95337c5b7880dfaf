#include "brume/train/new_word.h"

#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/text/clip_tokenizer.h"
#include "brume/text/unicode.h"

namespace brume {
namespace {

constexpr const char* table_name = "text_model.embeddings.token_embedding.weight";

const std::string* file_that_ends(const Files& files, const std::string& ending) {
  const auto found = std::find_if(files.begin(), files.end(), [&](const auto& f) { return f.first.ends_with(ending); });
  return found == files.end() ? nullptr : &found->second;
}

}  // namespace

Word new_word(const NewWord& wanted, const std::vector<Weight>& weights, const Files& files, const std::string& path) {
  const auto refuse = [&](const char* key, std::string text) { return ConfigError({Problem{{}, path + key, std::move(text)}}); };
  std::vector<Tensor> tables;
  for (const Weight& w : weights)
    if (w.name.ends_with(table_name)) tables.push_back(w.tensor);
  const std::string *vocabulary = file_that_ends(files, "vocab.json"), *merges = file_that_ends(files, "merges.txt");
  if (tables.size() != 1 || !vocabulary || !merges)
    throw refuse("", fmt::format("a textual inversion needs a model with one text encoder of CLIP, and this one has {}", tables.size()));
  const std::string* added = file_that_ends(files, "added_tokens.json");
  const text::ClipTokenizer tokenizer(*vocabulary, *merges, "the model's tokenizer", {}, added ? *added : "");
  const std::string word = text::composed(wanted.text);
  if (word.empty()) throw refuse(".token", "is empty; a new word like <mist> is needed");
  if (tokenizer.encode(word).size() == 1)
    throw refuse(".token", fmt::format("'{}' is a token of this model already; a new word is needed, like '<{}>'", word, word));
  const std::vector<int64_t> tokens = tokenizer.encode(wanted.init);
  if (tokens.empty()) throw refuse(".init", "has no token; words that the model knows are needed, like 'red circle'");
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < wanted.vectors; ++i) rows.push_back(tokens[size_t(i) % tokens.size()]);
  return {word, tables.front().to(at::kFloat).index_select(0, at::tensor(rows)).clone()};
}

}  // namespace brume
