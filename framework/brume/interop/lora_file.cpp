#include "brume/interop/lora_file.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <string_view>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/interop/layouts/lora_tensor_name.h"
#include "brume/interop/peft_settings.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

/// Returns the parts of a tensor's name; ".weight" counts if its module is one of IA3.
std::optional<LoraTensorName> name_of(const std::string& name, const std::set<std::string>& ia3) {
  if (auto parts = lora_tensor_name(name)) return parts;
  constexpr std::string_view ending = ".weight";
  if (!name.ends_with(ending)) return {};
  const std::string module = name.substr(0, name.size() - ending.size());
  return ia3.contains(module) ? std::optional(LoraTensorName{module, "weight", ""}) : std::nullopt;
}

/// Returns true if a tensor is PEFT's magnitude of DoRA, one value per row: it has that of a convolution as [1, out, 1, 1].
bool is_magnitude(const std::string& name) { return name.find(".lora_magnitude_vector") != std::string::npos; }

}  // namespace

LoraFile read_lora(const std::string& path) {
  LoraFile file;
  const NamedTensors tensors = load_tensors(path, &file.metadata);
  std::set<std::string> adapters, ia3;
  std::map<std::string, at::Tensor> up_biases;
  for (const NamedTensor& t : tensors)
    if (const auto parts = lora_tensor_name(t.name); parts && parts->role == "on_input") ia3.insert(parts->module);
  for (const NamedTensor& t : tensors) {
    const auto parts = name_of(t.name, ia3);
    if (!parts || (parts->role == "alpha" && t.tensor.numel() != 1)) {
      file.unknown.push_back(t.name);
      continue;
    }
    if (!parts->adapter.empty()) adapters.insert(parts->adapter);
    if (parts->role == "diff_b") {
      file.biases[parts->module] = t.tensor;
      continue;
    }
    if (parts->role == "up_b") {
      up_biases[parts->module] = t.tensor;
      continue;
    }
    WeightChange& change = file.changes[parts->module];
    if (parts->role == "alpha")
      change.alpha = t.tensor.to(at::kDouble).item<double>(), change.has_alpha = true;
    else
      change.parts[parts->role] = is_magnitude(t.name) ? t.tensor.flatten() : t.tensor;
  }
  if (adapters.size() > 1)
    throw ConfigError(
        fmt::format("{}: holds {} ({}), and one is expected", path, counted(adapters.size(), "adapter"), fmt::join(adapters, ", ")));
  set_peft_alphas(path, file.metadata, file.changes);
  for (const auto& [module, bias] : up_biases) file.biases[module] = bias.to(at::kFloat) * file.changes[module].scale();
  return file;
}

}  // namespace brume
