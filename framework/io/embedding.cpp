#include "io/embedding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "config/errors.h"
#include "io/model_file.h"
#include "io/named_file.h"

namespace brume::io {

Word read_embedding(const std::string& asked) {
  const auto [path, rest] = file_and_rest(asked, "embeddings");
  std::map<std::string, std::string> metadata;
  NamedTensors vectors;
  std::vector<std::string> others;
  constexpr std::string_view web = "string_to_param.";
  for (NamedTensor& t : load_tensors(path, &metadata)) {
    const bool is_vectors = (t.tensor.dim() == 1 || t.tensor.dim() == 2) && t.tensor.is_floating_point() && t.tensor.numel() > 0;
    if (is_vectors)
      vectors.push_back(std::move(t));
    else
      others.push_back(t.name);
  }
  if (vectors.size() != 1) {
    for (const NamedTensor& t : vectors) others.push_back(t.name);
    throw ConfigError(fmt::format("{}: is no textual inversion of one text encoder: it has {} tensors of vectors ({})", path,
                                  vectors.size(), fmt::join(others, ", ")));
  }
  const auto& [name, tensor] = vectors.front();
  std::string word = rest;
  const bool nameless = name == "emb_params" || name.starts_with(web);
  if (word.empty() && !nameless) word = name;
  if (word.empty() && metadata.contains("name")) word = metadata["name"];
  if (word.empty()) word = std::filesystem::path(path).stem().string();
  return {word, (tensor.dim() == 1 ? tensor.unsqueeze(0) : tensor).to(at::kFloat)};
}

}  // namespace brume::io
