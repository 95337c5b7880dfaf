#include "brume/interop/import/diffusers_vae.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>

#include "brume/config/number.h"

namespace brume {
namespace {

using Parts = std::vector<std::string>;

Parts split(const std::string& name) {
  Parts parts(1);
  for (const char c : name) {
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

/// The number that stands at a place of the name.
std::optional<int64_t> number(const Parts& parts, size_t at) {
  if (at >= parts.size()) return {};
  const auto value = parse_number<int64_t>(parts[at]);
  return value && *value >= 0 ? value : std::nullopt;
}

/// Words that change whatever stands around them.
const std::map<std::string, std::string> words = {
    {"conv_shortcut", "nin_shortcut"},
    {"conv_norm_out", "norm_out"},
    {"group_norm", "norm"},
    {"query", "q"},
    {"key", "k"},
    {"value", "v"},
    {"proj_attn", "proj_out"},
    {"to_q", "q"},
    {"to_k", "k"},
    {"to_v", "v"},
};

/// Levels of the decoder: its up_blocks count from the bottleneck.
int64_t levels(const NamedTensors& tensors) {
  int64_t count = 0;
  for (const NamedTensor& t : tensors) {
    const Parts parts = split(t.name);
    if (parts.size() > 2 && parts[1] == "up_blocks") count = std::max(count, number(parts, 2).value_or(-1) + 1);
  }
  return count;
}

/// The name, or nothing where it is not one of diffusers'.
std::optional<std::string> renamed(const std::string& name, int64_t levels) {
  const Parts parts = split(name);
  if (parts.front() != "encoder" && parts.front() != "decoder") return {};
  const bool middle = parts.size() > 1 && parts[1] == "mid_block";
  Parts out;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    const std::optional<int64_t> index = number(parts, i + 1);
    const auto numbered = [&](const std::string& word, int64_t n) { out.insert(out.end(), {word, std::to_string(n)}), ++i; };
    if (part == "mid_block") {
      out.push_back("mid");
    } else if (index && part == "down_blocks") {
      numbered("down", *index);
    } else if (index && part == "up_blocks") {
      numbered("up", levels - 1 - *index);
    } else if (index && (part == "resnets" || part == "attentions")) {
      const std::string word = part == "resnets" ? "block" : "attn";
      if (middle)
        out.push_back(fmt::format("{}_{}", word, *index + 1)), ++i;
      else
        numbered(word, *index);
    } else if (index && (part == "downsamplers" || part == "upsamplers" || part == "to_out")) {
      out.push_back(part == "downsamplers" ? "downsample" : part == "upsamplers" ? "upsample" : "proj_out"), ++i;
    } else {
      const auto word = words.find(part);
      out.push_back(word == words.end() ? part : word->second);
    }
  }
  return fmt::format("{}", fmt::join(out, "."));
}

}  // namespace

NamedTensors from_diffusers_vae(const NamedTensors& tensors) {
  const int64_t count = levels(tensors);
  NamedTensors result;
  for (const NamedTensor& t : tensors) {
    const std::optional<std::string> name = renamed(t.name, count);
    const bool linear = name && name->find(".attn") != std::string::npos && t.tensor.dim() == 2;
    result.push_back({name.value_or(t.name), linear ? t.tensor.unsqueeze(-1).unsqueeze(-1) : t.tensor});
  }
  return result;
}

}  // namespace brume
