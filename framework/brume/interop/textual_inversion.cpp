#include "brume/interop/textual_inversion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "brume/config/errors.h"
#include "brume/files/named_file.h"
#include "brume/weights/weights_file.h"

namespace brume {

Word read_embedding(const std::string& asked) {
  const auto [path, rest] = file_and_rest(asked, "embeddings");
  std::map<std::string, std::string> metadata;
  const NamedTensors tensors = load_tensors(path, &metadata);
  constexpr std::string_view web = "string_to_param.";
  const auto is_vectors = [](const Tensor& t) { return (t.dim() == 1 || t.dim() == 2) && t.is_floating_point() && t.numel() > 0; };
  if (tensors.size() != 1 || !is_vectors(tensors[0].tensor)) {
    std::vector<std::string> names;
    for (size_t i = 0; i < std::min<size_t>(tensors.size(), 5); ++i) names.push_back(tensors[i].name);
    throw ConfigError(fmt::format("{}: is no textual inversion of one text encoder, which is one tensor of vectors: it has {} ({}{})", path,
                                  tensors.size(), fmt::join(names, ", "), tensors.size() > names.size() ? ", …" : ""));
  }
  const auto& [name, tensor] = tensors.front();
  std::string word = rest;
  const bool nameless = name == "emb_params" || name.starts_with(web);
  if (word.empty() && !nameless) word = name;
  if (word.empty() && metadata.contains("name")) word = metadata["name"];
  if (word.empty()) word = std::filesystem::path(path).stem().string();
  return {word, (tensor.dim() == 1 ? tensor.unsqueeze(0) : tensor).to(at::kFloat)};
}

}  // namespace brume
