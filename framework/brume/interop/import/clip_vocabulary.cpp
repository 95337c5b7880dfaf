#include "brume/interop/import/token_rows.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "brume/interop/import/diffusers_config.h"

namespace brume {

void cut_token_rows(NamedTensors& tensors, const Files& files, std::vector<std::string>& losses) {
  const auto tokens = int64_t(parse_json(files.at("tokenizer/vocab.json"), "vocab.json").size());
  for (NamedTensor& t : tensors) {
    if (!t.name.ends_with("text_model.embeddings.token_embedding.weight") || t.tensor.dim() != 2 || t.tensor.size(0) <= tokens) continue;
    losses.push_back(fmt::format("{} rows of the token embedding, beyond the {} tokens of vocab.json", t.tensor.size(0) - tokens, tokens));
    t.tensor = t.tensor.narrow(0, 0, tokens);
  }
}

}  // namespace brume
