#include "brume/interop/export/diffusers_text.h"

#include <fmt/format.h>

#include <filesystem>

#include "brume/config/errors.h"
#include "brume/files/json.h"
#include "brume/interop/layouts/sections.h"

namespace brume {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Tokens of CLIP's tokenizer: their numbers, and the word of one.
struct Vocabulary {
  json numbers = json::object();
  int64_t of(const std::string& token, int64_t otherwise) const {
    return numbers.is_object() && numbers.contains(token) && numbers[token].is_number_integer() ? numbers[token].get<int64_t>() : otherwise;
  }
  std::string word(int64_t number) const {
    for (const auto& [token, n] : numbers.items())
      if (n == number) return token;
    return "";
  }
};

}  // namespace

void write_diffusers_text(const Partial& out, const TextEncoderPlace& encoder, const NamedTensors& tensors, const Files& files,
                          const std::string& source) {
  const auto refuse = [&](const std::string& what) { throw ConfigError(fmt::format("{}: {}", source, what)); };
  const Value& c = encoder.options;
  const std::string folder = "text_encoder" + encoder.ending, tokenizer = "tokenizer" + encoder.ending;
  const at::Tensor* tokens = find(tensors, "text_model.embeddings.token_embedding.weight");
  if (!tokens) refuse("its clip_text has no 'text_model.embeddings.token_embedding.weight'");
  Vocabulary known;
  for (const auto& [path, bytes] : files) {
    if (fs::path(path).parent_path() != fs::path(text_of(c, "tokenizer"))) continue;
    const std::string name = fs::path(path).filename().string();
    if (name == "vocab.json") known.numbers = json_or_discarded(bytes);
    out.file(fmt::format("{}/{}", tokenizer, name), bytes);
  }
  const std::string begin = "<|startoftext|>", end = "<|endoftext|>";
  const int64_t rows = tokens->size(0), bos = known.of(begin, rows - 2), eos = known.of(end, rows - 1),
                pad = text_of(c, "pad").empty() || text_of(c, "pad") == "null" ? eos : integer_of(c, "pad");
  const std::string padding = pad == eos ? end : known.word(pad);
  if (padding.empty()) refuse(fmt::format("its clip_text fills prompts up with token {}, which its vocabulary has no word for", pad));
  const int64_t projection = integer_of(c, "projection");
  json config{{"architectures", {projection > 0 ? "CLIPTextModelWithProjection" : "CLIPTextModel"}},
              {"attention_dropout", 0.0},
              {"bos_token_id", bos},
              {"eos_token_id", eos},
              {"hidden_act", text_of(c, "activation")},
              {"hidden_size", integer_of(c, "width")},
              {"intermediate_size", integer_of(c, "mlp")},
              {"layer_norm_eps", 1e-5},
              {"max_position_embeddings", integer_of(c, "length")},
              {"model_type", "clip_text_model"},
              {"num_attention_heads", integer_of(c, "heads")},
              {"num_hidden_layers", integer_of(c, "depth")},
              {"pad_token_id", pad},
              {"vocab_size", rows}};
  if (projection > 0) config["projection_dim"] = projection;
  out.config(folder + "/config.json", config);
  out.tensors(folder + "/model.safetensors", tensors);
  out.config(tokenizer + "/special_tokens_map.json",
             {{"bos_token", begin}, {"eos_token", end}, {"pad_token", padding}, {"unk_token", end}});
  out.config(tokenizer + "/tokenizer_config.json", {{"add_prefix_space", false},
                                                    {"bos_token", begin},
                                                    {"do_lower_case", true},
                                                    {"eos_token", end},
                                                    {"errors", "replace"},
                                                    {"model_max_length", integer_of(c, "length")},
                                                    {"pad_token", padding},
                                                    {"tokenizer_class", "CLIPTokenizer"},
                                                    {"unk_token", end}});
}

}  // namespace brume
