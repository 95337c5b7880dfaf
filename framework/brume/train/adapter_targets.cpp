#include "brume/train/adapter_targets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <set>

#include "brume/config/errors.h"
#include "brume/config/name_patterns.h"
#include "brume/interop/layouts/lora_names.h"

namespace brume {
namespace {

bool has(const Weight& w, const char* part) { return w.name.find(part) != std::string::npos; }
bool of_network(const Weight& w) { return w.name.starts_with("network."); }
/// FLUX's single blocks compute attention and feed-forward by the same two layers.
bool of_single_block(const Weight& w) { return has(w, ".single_blocks.") && (has(w, ".linear1.") || has(w, ".linear2.")); }
bool of_attention(const Weight& w) { return of_network(w) && (has(w, "attn") || has(w, ".qkv.") || of_single_block(w)); }
/// Without the layers of that name that embed times and vectors.
bool of_feed_forward(const Weight& w) {
  return of_network(w) && (has(w, ".ff.") || (has(w, ".mlp.") && !has(w, "_embedder.")) || of_single_block(w));
}

/// Without the first and the last convolution, which kohya's loaders do not look for.
bool of_convolutions(const Weight& w) {
  const bool outer = w.name == "network.input_blocks.0.0.weight" || w.name == "network.out.2.weight";
  return of_network(w) && w.tensor.dim() == 4 && !of_attention(w) && !outer;
}

struct Group {
  const char* name;
  bool (*holds)(const Weight&);
};
constexpr Group groups[] = {{"attention", of_attention},
                            {"feed_forward", of_feed_forward},
                            {"convolutions", of_convolutions},
                            {"text_encoder", [](const Weight& w) { return !of_network(w) && (has(w, ".self_attn.") || has(w, ".mlp.")); }}};

}  // namespace

std::vector<Weight> adapter_targets(const Adapter& adapter, const std::vector<Weight>& weights, const std::string& path) {
  std::vector<Weight> able, chosen;
  std::vector<std::string> names;
  std::copy_if(weights.begin(), weights.end(), std::back_inserter(able), in_loras);
  names.reserve(able.size());
  for (const Weight& w : able) names.push_back(w.name);
  std::vector<std::string> words;
  for (const Group& g : groups)
    if (std::any_of(able.begin(), able.end(), g.holds)) words.emplace_back(g.name);
  std::set<std::string> wanted;
  const std::vector<std::string> targets = adapter.targets();
  std::vector<Problem> problems;
  for (size_t i = 0; i < targets.size(); ++i) {
    const std::string place = fmt::format("{}.targets.{}", path, i);
    const auto group = std::find_if(std::begin(groups), std::end(groups), [&](const Group& g) { return targets[i] == g.name; });
    const size_t before = wanted.size();
    if (group == std::end(groups)) {
      const bool except = targets[i].starts_with("!");
      try {
        for (const std::string& name : matching(targets[i].substr(except ? 1 : 0), names, place, words))
          if (except)
            wanted.erase(name);
          else
            wanted.insert(name);
      } catch (const ConfigError& e) {
        problems.push_back(e.problems().front());
      }
      continue;
    }
    for (const Weight& w : able)
      if (group->holds(w)) wanted.insert(w.name);
    if (wanted.size() == before)
      problems.push_back({{},
                          place,
                          fmt::format("'{}' has no weight in this model; it has {}", targets[i],
                                      words.empty() ? "none of the groups" : fmt::format("{}", fmt::join(words, ", ")))});
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  std::copy_if(able.begin(), able.end(), std::back_inserter(chosen), [&](const Weight& w) { return wanted.contains(w.name); });
  return chosen;
}

}  // namespace brume
