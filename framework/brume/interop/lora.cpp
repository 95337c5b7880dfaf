// LoRA files, as kohya's trainers and diffusers write them.
//
//   W += strength (alpha / r) up down,   down [r, in], up [out, r];   absent alpha = r
//
// Of a convolution, down is [r, in, k, k] and up [out, r, 1, 1]; LyCORIS may put a core [r, r, k, k] between two 1x1 (CP decomposition,
// as in LoCon). The names, of the weight "mid_block.attentions.0.proj_in" of diffusers' U-Net:
//
//   kohya            lora_unet_mid_block_attentions_0_proj_in.lora_down.weight, .lora_up.weight, .alpha;   lora_te_… of the text encoder
//   diffusers, PEFT  unet.mid_block.attentions.0.proj_in.lora_A.weight, .lora_B.weight;   text_encoder.…; alpha in the file's metadata
//   diffusers, old   unet.….proj_in.lora.down.weight, ….attn1.processor.to_q_lora.down.weight, ….q_proj.lora_linear_layer.down.weight
#include "brume/interop/lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "brume/config/errors.h"
#include "brume/files/json.h"
#include "brume/files/named_file.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

/// The change of one weight.
struct Change {
  Tensor down, up, mid;
  double alpha = 0, rank_power = 1;  ///< scale = alpha / r^rank_power
  bool told = false;                 ///< alpha

  double scale() const { return told ? alpha / std::pow(double(down.size(0)), rank_power) : 1; }
  /// out x in (x k x k), however they are laid out.
  std::vector<int64_t> shape() const {
    std::vector<int64_t> shape = down.sizes().vec();
    shape[0] = up.size(0);
    if (mid.defined()) shape[2] = mid.size(2), shape[3] = mid.size(3);
    return shape;
  }
  bool fits(const Tensor& weight) const {
    const std::vector<int64_t> own = shape();
    int64_t numel = 1;
    for (const int64_t n : own) numel *= n;
    return own[0] == weight.size(0) && numel == weight.numel();
  }
  Tensor product() const {
    const Tensor a = up.flatten(1).to(at::kFloat), b = down.flatten(1).to(at::kFloat);
    return mid.defined() ? at::einsum("nmkl,in,mj->ijkl", {mid.to(at::kFloat), a, b}) : at::matmul(a, b);
  }
};

enum class Role { down, up, mid, alpha };
constexpr std::array<std::pair<std::string_view, Role>, 13> endings{{{".lora_down.weight", Role::down},
                                                                     {".lora_up.weight", Role::up},
                                                                     {".lora_mid.weight", Role::mid},
                                                                     {".lora_A.weight", Role::down},
                                                                     {".lora_B.weight", Role::up},
                                                                     {".lora.down.weight", Role::down},
                                                                     {".lora.up.weight", Role::up},
                                                                     {".lora_linear_layer.down.weight", Role::down},
                                                                     {".lora_linear_layer.up.weight", Role::up},
                                                                     {"_lora.down.weight", Role::down},
                                                                     {"_lora.up.weight", Role::up},
                                                                     {".lora_linear_layer.alpha", Role::alpha},
                                                                     {".alpha", Role::alpha}}};

/// The names of layers that diffusers' first LoRA had beside the layers they change.
std::string of_processor(std::string module) {
  const auto replace = [&](std::string_view from, std::string_view to) {
    if (const size_t at = module.find(from); at != std::string::npos) module.replace(at, from.size(), to);
  };
  replace(".processor.", ".");
  if (module.find(".self_attn.to_") != std::string::npos) {
    if (module.ends_with(".to_out")) return module.substr(0, module.size() - 6) + "out_proj";
    return module.substr(0, module.size() - 4) + module.back() + "_proj";
  }
  return module.ends_with(".to_out") ? module + ".0" : module;
}

/// A file, read: what it changes by the names of its own, and what of it is no LoRA.
struct LoraFile {
  std::map<std::string, Change> changes;
  std::vector<std::string> strange;
};

LoraFile read(const std::string& path, std::map<std::string, std::string>& metadata) {
  LoraFile file;
  for (const NamedTensor& t : load_tensors(path, &metadata)) {
    const auto ending = std::find_if(endings.begin(), endings.end(), [&](const auto& e) { return t.name.ends_with(e.first); });
    if (ending == endings.end()) {
      file.strange.push_back(t.name);
      continue;
    }
    const std::string module = t.name.substr(0, t.name.size() - ending->first.size());
    Change& change = file.changes[ending->first.starts_with("_lora") ? of_processor(module) : module];
    switch (ending->second) {
      case Role::down: change.down = t.tensor; break;
      case Role::up: change.up = t.tensor; break;
      case Role::mid: change.mid = t.tensor; break;
      case Role::alpha:
        if (t.tensor.numel() != 1) file.strange.push_back(t.name);
        if (t.tensor.numel() == 1) change.alpha = t.tensor.to(at::kDouble).item<double>(), change.told = true;
    }
  }
  return file;
}

/// What PEFT writes beside: "unet.lora_alpha", for some of the modules "unet.alpha_pattern", and "unet.use_rslora" (alpha / sqrt(r)).
void read_alphas(const std::map<std::string, std::string>& metadata, std::map<std::string, Change>& changes, const std::string& path) {
  const auto at = metadata.find("lora_adapter_metadata");
  if (at == metadata.end()) return;
  const auto json = json_or_discarded(at->second);
  if (!json.is_object()) throw ConfigError(fmt::format("{}: its metadata 'lora_adapter_metadata' is no JSON object", path));
  for (auto& [module, change] : changes) {
    const std::string part = module.substr(0, module.find('.') + 1);  // "unet."
    const auto alpha = json.find(part + "lora_alpha");
    if (change.told || alpha == json.end() || !alpha->is_number()) continue;
    change.alpha = alpha->get<double>();
    change.told = true;
    const auto rooted = json.find(part + "use_rslora");
    change.rank_power = rooted != json.end() && *rooted == nlohmann::json(true) ? 0.5 : 1;
    const auto pattern = json.find(part + "alpha_pattern");
    if (pattern == json.end() || !pattern->is_object()) continue;
    for (const auto& [name, value] : pattern->items())
      if (value.is_number() && module.ends_with("." + name)) change.alpha = value.get<double>();
  }
}

/// What is wrong with a change, or nothing.
std::string problem_of(const std::string& module, const Change& c, const LoraTarget& target) {
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

void add(const Change& change, double strength, const Weight& weight) {
  Tensor target = weight.tensor;  // shares the storage; its own may be a view of a file
  const Tensor delta = (change.product().view(target.sizes()) * (strength * change.scale())).to(target.device());
  target.set_data(target.to(at::kFloat, false, true).add_(delta).to(target.scalar_type()));
}

}  // namespace

void merge_lora(const std::string& asked, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  const auto [path, strength] = file_and_number(asked, "lora");
  std::map<std::string, std::string> metadata;
  LoraFile file = read(path, metadata);
  read_alphas(metadata, file.changes, path);
  const LoraNames names(weights);
  std::vector<std::string> problems;
  size_t lost = 0;
  for (const auto& [module, change] : file.changes) {
    const std::string problem = problem_of(module, change, names.find(module));
    lost += !names.find(module).weight;
    if (!problem.empty()) problems.push_back(problem);
  }
  for (const std::string& name : file.strange)
    problems.push_back(fmt::format("'{}' is no part of a LoRA (LoHa, LoKr and DoRA are not read)", name));
  if (file.changes.empty()) throw ConfigError(fmt::format("{}: is no LoRA: none of its {} tensors is of one", path, file.strange.size()));
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
