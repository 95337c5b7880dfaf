#include "brume/interop/layouts/lora_tensor_name.h"

#include <array>
#include <utility>

namespace brume {
namespace {

constexpr std::pair<std::string_view, std::string_view> endings[] = {{".lora_down.weight", "lora_down"},
                                                                     {".lora_up.weight", "lora_up"},
                                                                     {".lora_mid.weight", "lora_mid"},
                                                                     {".lora_A.weight", "lora_down"},
                                                                     {".lora_B.weight", "lora_up"},
                                                                     {".lora.down.weight", "lora_down"},
                                                                     {".lora.up.weight", "lora_up"},
                                                                     {".lora_linear_layer.down.weight", "lora_down"},
                                                                     {".lora_linear_layer.up.weight", "lora_up"},
                                                                     {".lora_B.bias", "up_b"},
                                                                     {"_lora.down.weight", "lora_down"},
                                                                     {"_lora.up.weight", "lora_up"},
                                                                     {".lora_linear_layer.alpha", "alpha"},
                                                                     {".alpha", "alpha"},
                                                                     {".dora_scale", "dora_scale"},
                                                                     {".lora_magnitude_vector", "dora_scale"},
                                                                     {".lora_magnitude_vector.weight", "dora_scale"},
                                                                     {".oft_R.weight", "oft_R"},
                                                                     {".a1.weight", "a1"},
                                                                     {".a2.weight", "a2"},
                                                                     {".b1.weight", "b1"},
                                                                     {".b2.weight", "b2"},
                                                                     {".bm.weight", "bm"},
                                                                     {".w_norm", "diff"},
                                                                     {".b_norm", "diff_b"},
                                                                     {".diff", "diff"},
                                                                     {".diff_b", "diff_b"}};

/// Endings of LyCORIS and PEFT that are a role with a dot before it.
constexpr std::string_view roles[] = {"hada_w1_a", "hada_w1_b",  "hada_w2_a", "hada_w2_b", "hada_t1",   "hada_t2", "lokr_w1",
                                      "lokr_w1_a", "lokr_w1_b",  "lokr_w2",   "lokr_w2_a", "lokr_w2_b", "lokr_t2", "ia3_l",
                                      "on_input",  "oft_blocks", "rescale",   "boft_R",    "boft_s"};

/// Endings that PEFT puts the name of an adapter after.
constexpr std::pair<std::string_view, std::string_view> named[] = {
    {".lora_A", "lora_down"}, {".lora_B", "lora_up"}, {".lora_magnitude_vector", "dora_scale"}, {".ia3_l", "ia3_l"}, {".oft_R", "oft_R"},
    {".boft_R", "boft_R"},    {".boft_s", "boft_s"}};

/// Returns the layer that diffusers' first LoRA changed, of the name that its processor had for it.
std::string of_processor(std::string module) {
  if (const size_t at = module.find(".processor."); at != std::string::npos) module.erase(at, std::string_view(".processor").size());
  if (module.find(".self_attn.to_") != std::string::npos) {
    if (module.ends_with(".to_out")) return module.substr(0, module.size() - 6) + "out_proj";
    return module.substr(0, module.size() - 4) + module.back() + "_proj";
  }
  return module.ends_with(".to_out") ? module + ".0" : module;
}

std::string before(std::string_view name, std::string_view ending) { return std::string(name.substr(0, name.size() - ending.size())); }

/// Returns the layer that a LoRA of FLUX's first trainer (XLabs) changed: "qkv_lora1" is of the image's attention, "qkv_lora2" of the
/// words'.
std::optional<LoraTensorName> of_stream(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> matrices[] = {{".down.weight", "lora_down"}, {".up.weight", "lora_up"}};
  constexpr std::pair<std::string_view, std::string_view> streams[] = {{"_lora1", ".img_attn."}, {"_lora2", ".txt_attn."}};
  constexpr std::string_view processor = ".processor.";
  for (const auto& [matrix, role] : matrices)
    for (const auto& [number, attention] : streams) {
      const std::string ending = std::string(number) + std::string(matrix);
      const size_t at = name.find(processor);
      if (!name.ends_with(ending) || at == std::string_view::npos) continue;
      std::string module = before(name, ending);
      return LoraTensorName{module.replace(at, processor.size(), attention), std::string(role), ""};
    }
  return {};
}

/// Returns ".lora_A.ADAPTER.weight" and ".lora_B.ADAPTER.bias" of PEFT.
std::optional<LoraTensorName> adapter_name(std::string_view name) {
  constexpr std::string_view last = ".weight", bias = ".bias", up = ".lora_B";
  const bool of_bias = name.ends_with(bias);
  if (of_bias || name.ends_with(last)) name.remove_suffix(of_bias ? bias.size() : last.size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view module = name.substr(0, dot);
  if (of_bias)
    return module.ends_with(up) ? std::optional(LoraTensorName{before(module, up), "up_b", std::string(name.substr(dot + 1))})
                                : std::nullopt;
  for (const auto& [ending, role] : named)
    if (module.ends_with(ending)) return LoraTensorName{before(module, ending), std::string(role), std::string(name.substr(dot + 1))};
  return {};
}

}  // namespace

std::optional<LoraTensorName> lora_tensor_name(std::string_view name) {
  for (const auto& [ending, role] : endings) {
    if (!name.ends_with(ending)) continue;
    const std::string module = before(name, ending);
    return LoraTensorName{ending.starts_with("_lora") ? of_processor(module) : module, std::string(role), ""};
  }
  for (const std::string_view role : roles)
    if (name.size() > role.size() && name.ends_with(role) && name[name.size() - role.size() - 1] == '.')
      return LoraTensorName{std::string(name.substr(0, name.size() - role.size() - 1)), std::string(role), ""};
  if (auto parts = of_stream(name)) return parts;
  return adapter_name(name);
}

bool is_lora_matrix(std::string_view name) {
  const auto parts = lora_tensor_name(name);
  return parts && parts->role != "alpha";
}

}  // namespace brume
