#include "brume/interop/import/clip_vocabulary.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/utf8.h"
#include "brume/core/warnings.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/import/diffusers_config.h"

namespace brume {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string vocabulary_file = "tokenizer/vocab.json", merges_file = "tokenizer/merges.txt",
                  added_file = "tokenizer/added_tokens.json";

/// Returns vocab.json and merges.txt out of tokenizer.json.
Files fast_tokenizer(const fs::path& file) {
  const DiffusersConfig fast(file, "a tokenizer");
  const auto model = fast.get<json>("model", {});
  if (!model.is_object() || !model.contains("vocab") || !model.contains("merges") || !model["merges"].is_array())
    throw ConfigError(fmt::format("{}: has no byte-pair merges (model.vocab, model.merges)", fast.file()));
  std::string merges = "#version: 0.2\n";
  for (const json& pair : model["merges"]) {
    if (pair.is_string())
      merges += pair.get<std::string>() + "\n";
    else if (pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string())
      merges += pair[0].get<std::string>() + " " + pair[1].get<std::string>() + "\n";
    else
      throw ConfigError(fmt::format("{}: model.merges holds {}, which is no pair of tokens", fast.file(), pair.dump()));
  }
  return {{vocabulary_file, model["vocab"].dump()}, {merges_file, merges}};
}

/// The words that training added, by number; words of the vocabulary are none of them.
class AddedTokens {
 public:
  explicit AddedTokens(const json& vocabulary) : vocabulary_(vocabulary) {}

  void read(const fs::path& folder) {
    if (const fs::path file = folder / "added_tokens.json"; fs::is_regular_file(file)) {
      const json tokens = read_json(file);
      if (!tokens.is_object()) throw ConfigError(fmt::format("{}: is no JSON object of tokens and their numbers", file.string()));
      for (const auto& [word, number] : tokens.items()) add(file, word, number);
    }
    if (const fs::path file = folder / "tokenizer_config.json"; fs::is_regular_file(file)) {
      const json tokens = DiffusersConfig(file, "a tokenizer").get<json>("added_tokens_decoder", {});
      for (const auto& [number, token] : tokens.items()) add(file, content_of(token), json(parse_number<int64_t>(number).value_or(-1)));
    }
    if (const fs::path file = folder / "tokenizer.json"; fs::is_regular_file(file)) {
      const json tokens = DiffusersConfig(file, "a tokenizer").get<json>("added_tokens", {});
      for (const json& token : tokens) add(file, content_of(token), token.is_object() ? token.value("id", json()) : json());
    }
  }
  const json& all() const { return all_; }

 private:
  static std::string content_of(const json& token) {
    const json content = token.is_object() ? token.value("content", json()) : token;
    return content.is_string() ? content.get<std::string>() : "";
  }

  void add(const fs::path& file, const std::string& word, const json& id) {
    const auto refuse = [&](const std::string& why) { throw ConfigError(fmt::format("{}: {}", file.string(), why)); };
    const auto known = vocabulary_.find(word);
    if (known != vocabulary_.end() && *known == id) return;
    const int64_t number = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (word.empty() || number < 0) refuse(fmt::format("adds the token {} without a number", in_quotes(word)));
    if (known != vocabulary_.end())
      refuse(fmt::format("adds the token {} as number {}, which is number {} of the vocabulary", in_quotes(word), number, known->dump()));
    if (number < int64_t(vocabulary_.size()))
      refuse(fmt::format("adds the token {} as number {}, which a token of the vocabulary has", in_quotes(word), number));
    const auto before = all_.find(word);
    if (before != all_.end() && *before != id)
      refuse(fmt::format("adds the token {} as number {}, and another file as {}", in_quotes(word), number, before->dump()));
    all_[word] = number;
  }

  const json& vocabulary_;
  json all_ = json::object();
};

json added_tokens(const Files& files) {
  const auto added = files.find(added_file);
  return added == files.end() ? json::object() : parse_json(added->second, "added_tokens.json");
}

/// Keeps the added tokens whose numbers are below `rows`; warns of the others.
void keep_tokens_below(int64_t rows, Files& files) {
  json kept = json::object();
  std::vector<std::string> lost;
  const json added = added_tokens(files);  // items() keeps a reference
  for (const auto& [word, number] : added.items())
    if (number.get<int64_t>() < rows)
      kept[word] = number;
    else
      lost.push_back(word);
  if (lost.empty()) return;
  const bool one = lost.size() == 1;
  const std::string words = one ? "the word " + lost.front() : fmt::format("the words {} and {} more", lost.front(), lost.size() - 1);
  warn(fmt::format("the text encoder has no row for {} added to the tokenizer: prompts read {} as pieces of the vocabulary", words,
                   one ? "it" : "them"));
  if (kept.empty())
    files.erase(added_file);
  else
    files[added_file] = kept.dump();
}

/// Returns the number of rows that tokens have.
int64_t token_rows(const Files& files) {
  int64_t rows = int64_t(parse_json(files.at(vocabulary_file), "vocab.json").size());
  const json added = added_tokens(files);  // items() keeps a reference
  for (const auto& [_, number] : added.items()) rows = std::max(rows, number.get<int64_t>() + 1);
  return rows;
}

}  // namespace

Files read_clip_vocabulary(const fs::path& folder) {
  const auto read = [&](const char* name) { return std::string(MappedFile::open((folder / name).string())->bytes()); };
  const bool slow = fs::is_regular_file(folder / "vocab.json") && fs::is_regular_file(folder / "merges.txt");
  if (!slow && !fs::is_regular_file(folder / "tokenizer.json"))
    throw ConfigError(fmt::format("{}: holds neither vocab.json and merges.txt nor tokenizer.json", folder.string()));
  Files files =
      slow ? Files{{vocabulary_file, read("vocab.json")}, {merges_file, read("merges.txt")}} : fast_tokenizer(folder / "tokenizer.json");
  const json vocabulary = parse_json(files.at(vocabulary_file), (folder / "vocab.json").string());
  if (!vocabulary.is_object())
    throw ConfigError(fmt::format("{}: vocab.json is no JSON object of tokens and their numbers", folder.string()));
  AddedTokens added(vocabulary);
  added.read(folder);
  if (!added.all().empty()) files[added_file] = added.all().dump();
  return files;
}

std::optional<int64_t> token_number(const Files& files, const std::string& token) {
  for (const json& all : {parse_json(files.at(vocabulary_file), "vocab.json"), added_tokens(files)})
    if (const auto at = all.find(token); at != all.end() && at->is_number_integer()) return at->get<int64_t>();
  return {};
}

void fit_token_rows(NamedTensors& tensors, Files& files, std::vector<std::string>& losses) {
  for (NamedTensor& t : tensors) {
    if (!t.name.ends_with("text_model.embeddings.token_embedding.weight") || t.tensor.dim() != 2) continue;
    keep_tokens_below(t.tensor.size(0), files);
    const int64_t rows = token_rows(files);
    if (t.tensor.size(0) <= rows) continue;
    losses.push_back(fmt::format("{} of the token embedding, beyond the {} of the tokenizer", counted(t.tensor.size(0) - rows, "row"),
                                 counted(rows, "token")));
    t.tensor = t.tensor.narrow(0, 0, rows);
  }
}

}  // namespace brume
