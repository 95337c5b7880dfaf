#include "brume/interop/import/diffusers_index.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/errors.h"

namespace brume {

DiffusersIndex::DiffusersIndex(const std::filesystem::path& folder) : config_(folder / "model_index.json", "a pipeline") {
  for (const auto& [name, value] : config_.values().items())
    if (value.is_array() && value.size() == 2 && value[1].is_string()) classes_[name] = value[1].get<std::string>();
}

std::string DiffusersIndex::component(const std::string& name) const {
  const auto at = classes_.find(name);
  return at == classes_.end() ? "" : at->second;
}

void DiffusersIndex::expect(const std::string& name, const std::vector<std::string>& wanted) const {
  const std::string have = component(name);
  if (std::find(wanted.begin(), wanted.end(), have) != wanted.end()) return;
  const std::string of = have.empty() && !pipeline().empty() ? fmt::format(" of this {}", pipeline()) : "";
  throw ConfigError(fmt::format("{}: {}{} is {}; what brume imports there: {}", file(), name, of,
                                have.empty() ? "missing" : "of class " + have, fmt::join(wanted, ", ")));
}

std::vector<std::string> DiffusersIndex::losses() const {
  static const std::vector<std::string> used{"unet",      "scheduler",      "vae",        "vqvae", "text_encoder",
                                             "tokenizer", "text_encoder_2", "tokenizer_2"};
  static const std::map<std::string, std::string> lost{{"safety_checker", "the safety checker"},
                                                       {"feature_extractor", "the feature extractor of the safety checker"},
                                                       {"image_encoder", "the image encoder of image adapters"}};
  std::vector<std::string> losses;
  for (const auto& [name, type] : classes_) {
    if (std::find(used.begin(), used.end(), name) != used.end()) continue;
    const auto at = lost.find(name);
    if (at == lost.end())
      throw ConfigError(fmt::format("{}: has a component '{}' of class {}; pipelines that are imported are made of {}", file(), name, type,
                                    fmt::join(used, ", ")));
    losses.push_back(fmt::format("{} ({})", at->second, type));
  }
  return losses;
}

}  // namespace brume
