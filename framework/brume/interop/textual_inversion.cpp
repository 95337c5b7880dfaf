#include "brume/interop/textual_inversion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "brume/config/errors.h"
#include "brume/files/named_file.h"
#include "brume/interop/layouts/addition_kind.h"
#include "brume/text/prompt.h"
#include "brume/text/unicode.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {
constexpr const char *small_encoder = "clip_l", *large_encoder = "clip_g";  // of SDXL and SD 3
}

Word read_embedding(const std::string& asked) {
  const auto [path, rest] = file_and_rest(asked, "embeddings");
  std::map<std::string, std::string> metadata;
  NamedTensors tensors = load_tensors(path, &metadata);
  constexpr std::string_view web = "string_to_param.", numbers = "string_to_token.";
  std::erase_if(tensors, [&](const NamedTensor& t) { return t.name.starts_with(numbers); });
  const auto is_vectors = [](const Tensor& t) { return (t.dim() == 1 || t.dim() == 2) && t.is_floating_point() && t.numel() > 0; };
  const Tensor *small = find(tensors, small_encoder), *large = find(tensors, large_encoder);
  const bool xl = small && large && tensors.size() == 2 && is_vectors(*small) && is_vectors(*large);
  if (!xl && (tensors.size() != 1 || !is_vectors(tensors[0].tensor))) {
    std::vector<std::string> names;
    for (size_t i = 0; i < std::min<size_t>(tensors.size(), 5); ++i) names.push_back(tensors[i].name);
    throw ConfigError(
        fmt::format("{}: is no textual inversion, which is one tensor of vectors, or clip_l and clip_g (SDXL): it has {} ({}{}){}", path,
                    tensors.size(), fmt::join(names, ", "), tensors.size() > names.size() ? ", …" : "", likely_kind(tensors)));
  }
  const std::string& name = tensors.front().name;
  std::string word = rest;
  const std::string own = name.starts_with(web) ? name.substr(web.size()) : name;
  if (word.empty() && !xl && own != "emb_params" && own != "*") word = own;
  if (word.empty() && metadata.contains("name")) word = metadata["name"];
  if (word.empty()) word = std::filesystem::path(path).stem().string();
  const auto rows = [](const Tensor& t) { return (t.dim() == 1 ? t.unsqueeze(0) : t).to(at::kFloat); };
  Word result{text::composed(word), rows(xl ? *small : tensors.front().tensor)};
  if (xl) result.others = {rows(*large)};
  return result;
}

void write_embedding(const std::string& path, const Word& word, std::map<std::string, std::string> metadata) {
  metadata["name"] = word.text;
  NamedTensors tensors{{word.others.empty() ? word.text : small_encoder, word.vectors.detach()}};
  if (!word.others.empty()) tensors.push_back({large_encoder, word.others.front().detach()});
  write_safetensors(path, tensors, metadata);
}

std::vector<Word> read_embeddings(const std::vector<std::string>& asked) {
  std::vector<Word> words;
  for (const std::string& a : asked) {
    Word word = read_embedding(a);
    for (size_t i = 0; i < words.size(); ++i)
      if (words[i].text == word.text)
        throw ConfigError(fmt::format("embeddings: '{}' and '{}' both stand for the word '{}', and one can; FILE:WORD names another word",
                                      asked[i], a, word.text));
    words.push_back(std::move(word));
  }
  return words;
}

namespace {

bool any_holds(const std::vector<std::string>& prompts, const std::string& word) {
  return std::any_of(prompts.begin(), prompts.end(), [&](const std::string& p) { return text::find_word(p, word) != std::string::npos; });
}

/// Returns the word as the prompts have it in another case; "" if they do not.
std::string other_case(const std::vector<std::string>& prompts, const std::string& word) {
  constexpr size_t most = 1000;  // prompts, for a hint
  const std::string wanted = text::lower_case(word);
  for (size_t i = 0; i < std::min(most, prompts.size()); ++i)
    for (size_t at = 0; at + word.size() <= prompts[i].size(); ++at) {
      std::string part = prompts[i].substr(at, word.size());
      if (text::lower_case(part) == wanted && text::find_word(prompts[i], part) != std::string::npos) return part;
    }
  return "";
}

}  // namespace

std::vector<std::string> warnings_of_words(const std::vector<std::string>& asked, const std::vector<std::string>& prompts,
                                           const std::string& name) {
  std::vector<std::string> warnings;
  for (const std::string& a : asked) {
    const std::string word = read_embedding(a).text, file = file_and_rest(a, "embeddings").first;
    if (any_holds(prompts, word)) continue;
    const std::string stem = std::filesystem::path(file).stem().string(), other = other_case(prompts, word);
    std::string meant;
    if (!other.empty())
      meant = fmt::format("; the prompt has '{0}', and {1}:{0} makes that the word", other, file);
    else if (stem != word && any_holds(prompts, stem))
      meant = fmt::format("; the prompt has the file's name '{0}', and {1}:{0} makes that the word", stem, file);
    warnings.push_back(fmt::format("{} {}: has no effect, as no prompt that is used holds its word '{}'{}", name, a, word, meant));
  }
  return warnings;
}

}  // namespace brume
