// Merges a LoRA file.
//
//   W += strength (alpha / r) up down,   down [r, in], up [out, r];   absent alpha = r
//
// Of a convolution, down is [r, in, k, k] and up [out, r, 1, 1]; LyCORIS may put a core [r, r, k, k] between two 1x1 (CP decomposition,
// as in LoCon). lora_file.cpp has the names.
#include "brume/interop/lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "brume/config/errors.h"
#include "brume/files/named_file.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/lora_file.h"

namespace brume {
namespace {

/// Returns what is wrong with a change, or "".
std::string problem_of(const std::string& module, const LoraChange& c, const LoraTarget& target) {
  if (!c.down.defined() || !c.up.defined()) return fmt::format("'{}' has no {} matrix", module, c.down.defined() ? "up" : "down");
  const auto sizes = [](const Tensor& t) { return fmt::format("[{}]", fmt::join(t.sizes(), ", ")); };
  const bool core = c.mid.defined();
  if (c.down.dim() < 2 || c.up.dim() < 2 || (core && (c.mid.dim() != 4 || c.down.dim() != 4 || c.mid.size(0) != c.up.size(1))) ||
      (core ? c.mid.size(1) : c.up.size(1)) != c.down.size(0) || c.up.numel() != c.up.size(0) * c.up.size(1))
    return fmt::format("'{}': up {} and down {}{} cannot be multiplied", module, sizes(c.up), sizes(c.down),
                       core ? " with a core " + sizes(c.mid) : "");
  if (c.down.size(0) < 1 || !std::isfinite(c.scale()))
    return fmt::format("'{}' has rank {} and alpha {}; its scale, alpha / rank, must be a number", module, c.down.size(0), c.alpha);
  if (!target.weight) return fmt::format("'{}' has no place in this model", module);
  const Weight& weight = *target.weight;
  if (target.part) return fmt::format("'{}' is only a part of '{}', which holds q, k and v; that is not merged", module, weight.name);
  if (!c.fits(weight.tensor))
    return fmt::format("'{}' changes a weight [{}], and '{}' is {}", module, fmt::join(c.shape(), ", "), weight.name, sizes(weight.tensor));
  return {};
}

void add(const LoraChange& change, double strength, const Weight& weight) {
  Tensor target = weight.tensor;  // shares the storage; its own may be a view of a file
  const Tensor delta = (change.product().view(target.sizes()) * (strength * change.scale())).to(target.device());
  target.set_data(target.to(at::kFloat, false, true).add_(delta).to(target.scalar_type()));
}

}  // namespace

void merge_lora(const std::string& asked, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  const auto [path, strength] = file_and_number(asked, "lora");
  const LoraFile file = read_lora(path);
  const LoraNames names(weights);
  std::vector<std::string> problems;
  size_t lost = 0;
  for (const auto& [module, change] : file.changes) {
    const std::string problem = problem_of(module, change, names.find(module));
    lost += !names.find(module).weight;
    if (!problem.empty()) problems.push_back(problem);
  }
  for (const std::string& name : file.unknown)
    problems.push_back(fmt::format("'{}' is no part of a LoRA (LoHa, LoKr and DoRA are not read)", name));
  if (file.changes.empty()) throw ConfigError(fmt::format("{}: is no LoRA: none of its {} tensors is of one", path, file.unknown.size()));
  if (!problems.empty()) {
    const bool none = lost == file.changes.size();
    std::vector<Problem> all{
        {{},
         "",
         fmt::format("{}: does not fit this model{}; nothing was changed:", path, none ? ", which is of another architecture" : "")}};
    constexpr size_t shown = 20;
    for (size_t i = 0; i < std::min(shown, problems.size()); ++i) all.push_back({{}, "", fmt::format("{}: {}", path, problems[i])});
    if (problems.size() > shown) all.push_back({{}, "", fmt::format("{}: and {} more", path, problems.size() - shown)});
    throw ConfigError(std::move(all));
  }
  for (const auto& [module, change] : file.changes) add(change, strength, *names.find(module).weight);
}

}  // namespace brume
