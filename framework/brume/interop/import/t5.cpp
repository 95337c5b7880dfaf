#include "brume/interop/import/t5.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/tree.h"
#include "brume/files/mapped_file.h"
#include "brume/interop/import/diffusers_config.h"
#include "brume/interop/import/diffusers_weights.h"

namespace brume {

namespace fs = std::filesystem;

NamedTensors t5_encoder_tensors(NamedTensors tensors) {
  const bool shared = find(tensors, "shared.weight") != nullptr;
  NamedTensors all;
  for (NamedTensor& t : tensors) {
    if (t.name.starts_with("decoder.") || t.name == "lm_head.weight") continue;
    if (t.name == "encoder.embed_tokens.weight") {  // the same as shared.weight
      if (shared) continue;
      t.name = "shared.weight";
    }
    all.push_back(std::move(t));
  }
  return all;
}

T5Text read_t5(const fs::path& encoder, const fs::path& tokenizer, const std::string& variant, const T5Use& use) {
  const DiffusersConfig c(encoder / "config.json", "the t5 of brume");
  if (const auto type = c.get<std::string>("model_type", "t5"); type != "t5" && type != "mt5") c.refuse("model_type", "\"t5\" and \"mt5\"");
  const std::string gated = "gated-gelu", relu = "relu", mlp = c.get("feed_forward_proj", relu);
  if (mlp != gated && mlp != relu) c.refuse("feed_forward_proj", "\"gated-gelu\" (T5 1.1) and \"relu\" (T5)");
  c.only<double>("layer_norm_epsilon", 1e-6);
  c.only<int64_t>("relative_attention_num_buckets", 32);
  c.only<int64_t>("relative_attention_max_distance", 128);
  T5Text text;
  text.width = c.get<int64_t>("d_model", 512);
  const fs::path pieces = tokenizer / "spiece.model";
  if (!fs::is_regular_file(pieces)) throw ConfigError(fmt::format("{}: is missing, T5's tokenizer", pieces.string()));
  const std::string name = tokenizer.filename().string() + "/spiece.model";
  text.files[name] = std::string(MappedFile::open(pieces.string())->bytes());
  text.options = plugin_of("t5", {{"tokenizer", name},
                                  {"length", use.length},
                                  {"width", text.width},
                                  {"depth", c.get<int64_t>("num_layers", 6)},
                                  {"heads", c.get<int64_t>("num_heads", 8)},
                                  {"head_width", c.get<int64_t>("d_kv", 64)},
                                  {"mlp", c.get<int64_t>("d_ff", 2048)},
                                  {"rows", c.get<int64_t>("vocab_size", 32128)},
                                  {"mask", use.mask}});
  if (mlp == relu) text.options.set("feed_forward", value_of("relu"));
  text.tensors = t5_encoder_tensors(component_tensors(encoder, variant));
  return text;
}

Value missing_t5(int64_t width, const T5Use& use) {
  return plugin_of("t5", {{"tokenizer", ""}, {"length", use.length}, {"width", width}, {"mask", use.mask}});
}

}  // namespace brume
