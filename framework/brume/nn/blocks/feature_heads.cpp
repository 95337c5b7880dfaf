#include "brume/nn/blocks/feature_heads.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {

Tensor feature_tokens(const Tensor& features) {
  const Tensor tokens = features.dim() == 4 ? features.flatten(2).transpose(1, 2) : features;
  return tokens.to(at::kFloat).contiguous();
}

FeatureHeads::FeatureHeads(const Builder& build, const std::vector<int64_t>& channels, int64_t width, int64_t classes) : width_(width) {
  for (const int64_t c : channels) {
    const Builder b = build[int64_t(heads_.size())];
    heads_.push_back({c, b.layer_norm("norm", c), b.linear("in", c, width), b.linear("level", width, width),
                      b.linear("hidden", width, width), b.linear("out", width, 1)});
    if (classes > 0) heads_.back().classes = b.embedding("classes", classes, width);
  }
}

Tensor FeatureHeads::judge(const Head& head, const Tensor& tokens, const Tensor& level, const Tensor& classes) const {
  const Tensor h = silu(head.hidden(silu(head.in(head.norm(tokens)) + head.level(level).unsqueeze(1))));
  Tensor logits = head.out(h).squeeze(2);
  if (!head.classes.weight.defined()) return logits;
  return logits + (h * head.classes(classes).unsqueeze(1)).sum(2) / std::sqrt(double(width_));
}

Tensor FeatureHeads::operator()(const std::vector<Tensor>& features, const Tensor& level, const Tensor& classes,
                                const std::vector<std::string>& names) const {
  std::vector<Tensor> logits;
  for (size_t i = 0; i < heads_.size(); ++i) {
    const Tensor tokens = feature_tokens(features[i]);
    if (tokens.size(2) != heads_[i].channels)
      throw ConfigError(fmt::format("block '{}' has features of {}, and its head takes {}: a teacher has the network of the model",
                                    names[i], counted(tokens.size(2), "channel"), heads_[i].channels));
    logits.push_back(judge(heads_[i], tokens, level, classes));
  }
  return at::cat(logits, 1);
}

}  // namespace brume::nn
