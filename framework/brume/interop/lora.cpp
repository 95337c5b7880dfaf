#include "brume/interop/lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/grouped.h"
#include "brume/core/warnings.h"
#include "brume/interop/layouts/addition_kind.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/lora_file.h"
#include "brume/interop/lora_generation.h"
#include "brume/interop/lora_strength.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

std::string place_problem(const std::string& module, const LoraTarget& target) {
  if (!target.weight) return fmt::format("'{}' has no place in this model", module);
  if (target.part)
    return fmt::format("'{}' is only a part of '{}', which holds q, k and v; that is not merged", module, target.weight->name);
  return {};
}

/// One file, with the weight of each of its modules.
class PlacedLora {
 public:
  PlacedLora(const std::string& asked, const std::vector<Weight>& weights, const LoraNames& names)
      : request_(read_lora_request(asked)), file_(read_lora(request_.path)) {
    if (file_.changes.empty() && file_.biases.empty())
      throw ConfigError(fmt::format("{}: is no LoRA: it holds {}, none of a LoRA{}", request_.path, counted(file_.unknown.size(), "tensor"),
                                    likely_kind(load_tensors(request_.path))));
    std::vector<std::string> problems;
    for (const auto& [module, change] : file_.changes) {
      const LoraTarget target = names.find(module);
      lost_ += !target.weight;
      std::string problem = change.kind().empty() || !target.weight ? "" : place_problem(module, target);
      if (problem.empty() && target.weight)
        problem = problem_of(module, change, target.weight->name, target.view.of(target.weight->tensor).sizes());
      if (problem.empty()) problem = place_problem(module, target);
      if (!problem.empty()) problems.push_back(problem);
    }
    for (const auto& [module, bias] : file_.biases) {
      const LoraTarget target = names.find_bias(module);
      lost_ += !target.weight;
      std::string problem = place_problem(module, target);
      const int64_t values = problem.empty() ? target.view.rows_of(target.weight->tensor).numel() : 0;
      if (problem.empty() && bias.numel() != values)
        problem =
            fmt::format("'{}' changes a bias of {}, and '{}' has {}", module, counted(bias.numel(), "value"), target.weight->name, values);
      if (!problem.empty()) problems.push_back(problem);
    }
    for (const std::string& name : file_.unknown) problems.push_back(fmt::format("'{}' is no part of a LoRA or of its kin", name));
    if (!problems.empty()) refuse(problems, head(weights));
    warn_of_parts(names);
  }

  /// Adds to `sums`, which begin as the weights in float32.
  void add_to(std::map<std::string, Tensor>& sums, const LoraNames& names) const {
    for (const auto& [module, change] : file_.changes) {
      const LoraTarget target = names.find(module);
      const Tensor weight = target.view.of(target.weight->tensor.to(at::kFloat));
      add(
          sums, target, [&, &change = change](double strength) { return added_by(change, weight, strength); }, module);
    }
    for (const auto& [module, bias] : file_.biases) {
      const LoraTarget target = names.find_bias(module);
      add(
          sums, target, [&, &bias = bias](double strength) { return bias.to(at::kFloat).flatten() * strength; }, module);
    }
  }

 private:
  [[noreturn]] void refuse(const std::vector<std::string>& problems, const std::string& head) const {
    std::vector<Problem> lines{{{}, "", fmt::format("{}: {}; nothing was changed:", request_.path, head)}};
    for (const std::string& text : grouped(problems)) lines.push_back({{}, "", fmt::format("{}: {}", request_.path, text)});
    throw ConfigError(std::move(lines));
  }

  std::string head(const std::vector<Weight>& weights) const {
    const std::string own = generation_of(file_), model = generation_of(weights);
    if (!own.empty() && !model.empty() && own != model) return fmt::format("this LoRA is of {}, and the model is of {}", own, model);
    const bool none = lost_ > 0 && lost_ == file_.changes.size() + file_.biases.size();
    return fmt::format("does not fit this model{}", none ? ", which is of another architecture" : "");
  }

  /// Warns of parts with a strength of their own of which the file changes nothing.
  void warn_of_parts(const LoraNames& names) const {
    std::set<std::string> changed;
    for (const auto& [module, change] : file_.changes)
      for (std::string& part : lora_parts(names.find(module).weight->name)) changed.insert(std::move(part));
    for (const auto& [module, bias] : file_.biases)
      for (std::string& part : lora_parts(names.find_bias(module).weight->name)) changed.insert(std::move(part));
    for (const auto& [part, strength] : request_.parts)
      if (!changed.contains(part))
        warn(fmt::format("{}: {}={} has no effect, as the LoRA changes nothing there", request_.path, part, strength));
  }

  template <class Delta>
  void add(std::map<std::string, Tensor>& sums, const LoraTarget& target, const Delta& delta, const std::string& module) const {
    const Weight& weight = *target.weight;
    const double strength = request_.of(weight.name);
    if (strength == 0) return;
    Tensor& sum = sums[weight.name];
    if (!sum.defined()) sum = weight.tensor.to(at::kFloat, false, true);
    try {
      const Tensor rows = target.view.rows_of(sum);
      rows.add_(target.view.back(delta(strength)).reshape(rows.sizes()).to(sum.device()));
    } catch (const c10::Error&) {
      throw ConfigError(fmt::format("{}: '{}' has parts whose sizes do not fit each other", request_.path, module));
    }
  }

  LoraRequest request_;
  LoraFile file_;
  size_t lost_ = 0;
};

}  // namespace

std::map<std::string, Tensor> merged_loras(const std::vector<std::string>& asked, const std::vector<Weight>& weights, at::ScalarType type) {
  if (asked.empty()) return {};
  const at::NoGradGuard no_grad;
  const LoraNames names(weights);
  std::vector<PlacedLora> all;
  for (const std::string& one : asked) all.emplace_back(one, weights, names);
  std::map<std::string, Tensor> sums;
  for (const PlacedLora& lora : all) lora.add_to(sums, names);
  for (auto& [name, sum] : sums) sum = sum.to(type);
  return sums;
}

}  // namespace brume
