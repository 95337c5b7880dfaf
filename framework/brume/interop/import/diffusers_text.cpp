#include "brume/interop/import/diffusers_text.h"

#include <fmt/format.h>

#include <optional>

#include "brume/config/tree.h"
#include "brume/interop/import/clip_vocabulary.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/interop/layouts/conditioning.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Returns "!" of special_tokens_map.json or tokenizer_config.json: text, or an object with its content.
std::string token_of(const DiffusersConfig& c, const char* key) {
  if (!c.has(key)) return "";
  const nlohmann::json& value = c.values()[key];
  return value.is_object() ? DiffusersConfig(value, c.file(), "a tokenizer").get<std::string>("content", "") : c.get<std::string>(key, "");
}

/// Returns the token that prompts are filled up with.
std::string padding_of(const fs::path& folder) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (!fs::is_regular_file(folder / name)) continue;
    if (const std::string token = token_of(DiffusersConfig(folder / name, "a tokenizer"), "pad_token"); !token.empty()) return token;
  }
  return "<|endoftext|>";
}

/// Returns the token that prompts are padded with; nothing if it is the end token.
std::optional<int64_t> padding_option(const Files& files, const fs::path& folder) {
  const std::string token = padding_of(folder);
  const std::optional<int64_t> number = token_number(files, token);
  if (!number) throw ConfigError(fmt::format("{}: the pad_token '{}' is not in its vocabulary", folder.string(), token));
  return token == "<|endoftext|>" ? std::nullopt : number;
}

}  // namespace

DiffusersText read_clip_encoder(const fs::path& folder, const std::string& ending, const VariantOf& variant, bool pooled) {
  const fs::path place = folder / ("text_encoder" + ending);
  const std::string tokenizer = "tokenizer" + ending;
  const DiffusersConfig c(place / "config.json", "the text encoder of brume");
  const auto activation = c.get<std::string>("hidden_act", "quick_gelu");
  if (activation != "quick_gelu" && activation != "gelu") c.refuse("hidden_act", "quick_gelu and gelu");
  c.only<double>("layer_norm_eps", 1e-5);
  c.absent("use_attention_mask");  // its pipelines would hide the padding
  DiffusersText text;
  text.files = read_clip_vocabulary(folder / tokenizer);
  text.width = c.get<int64_t>("hidden_size", 512);
  const auto heads = c.get<int64_t>("num_attention_heads", 8);
  if (heads < 1 || text.width % heads != 0) c.refuse("num_attention_heads", fmt::format("divisors of the hidden_size, {},", text.width));
  text.options = plugin_of("clip_text", {{"tokenizer", tokenizer},
                                         {"length", c.get<int64_t>("max_position_embeddings", 77)},
                                         {"width", text.width},
                                         {"depth", c.get<int64_t>("num_hidden_layers", 12)},
                                         {"heads", heads},
                                         {"mlp", c.get<int64_t>("intermediate_size", 2048)},
                                         {"activation", activation}});
  if (const auto pad = padding_option(text.files, folder / tokenizer)) text.options.set("pad", value_of(*pad));
  for (NamedTensor& t : component_tensors(place, variant(place))) {
    if (t.name.ends_with("position_ids")) continue;  // 0, 1, 2, ...
    if (t.name == "text_projection.weight" && pooled) {
      if (t.tensor.dim() != 2) throw ConfigError(fmt::format("{}: text_projection.weight is no matrix", place.string()));
      text.vector_width = t.tensor.size(0);
      text.tensors.push_back(t);
    } else if (t.name == "text_projection.weight") {
      text.losses.emplace_back("the text encoder's projection of a whole prompt, which its network does not see");
    } else {
      text.tensors.push_back({t.name.starts_with("text_model.") ? t.name : "text_model." + t.name, t.tensor});
    }
  }
  fit_token_rows(text.tensors, text.files, text.losses);
  Files named;
  for (auto& [name, content] : text.files) named[tokenizer + name.substr(std::string_view("tokenizer").size())] = std::move(content);
  text.files = std::move(named);
  return text;
}

DiffusersText read_diffusers_text(const fs::path& folder, const VariantOf& variant) {
  return read_clip_encoder(folder, "", variant, false);
}

DiffusersText read_diffusers_xl_text(const fs::path& folder, const VariantOf& variant, bool zeros) {
  DiffusersText all;
  std::vector<Value> encoders;
  all.width = 0;
  for (const std::string ending : {"", "_2"}) {
    if (!fs::is_directory(folder / ("text_encoder" + ending))) continue;
    DiffusersText one = read_clip_encoder(folder, ending, variant, ending == "_2");
    if (ending == "_2" && one.vector_width == 0)
      throw ConfigError(
          fmt::format("{}: lacks text_projection.weight, which gives the pooled vector of SDXL", (folder / "text_encoder_2").string()));
    if (one.vector_width > 0) one.options.set("projection", value_of(one.vector_width));
    const auto number = int64_t(encoders.size());
    for (const NamedTensor& t : one.tensors) all.tensors.push_back({fmt::format("{}.{}", number, t.name), t.tensor});
    encoders.push_back(one.options);
    all.files.merge(one.files);
    all.width += one.width;
    all.vector_width += one.vector_width;
    all.losses.insert(all.losses.end(), one.losses.begin(), one.losses.end());
  }
  all.options = xl_words(std::move(encoders), zeros);
  return all;
}

}  // namespace brume
