// brume adapter merge | extract | resize | inspect
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "brume/config/counted.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/layouts/lora_tensor_name.h"
#include "brume/interop/lora.h"
#include "brume/interop/lora_file.h"
#include "brume/interop/lora_generation.h"
#include "brume/interop/lora_strength.h"
#include "brume/interop/lora_writing.h"
#include "brume/interop/low_rank.h"
#include "brume/weights/model_hash.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "program/outputs.h"
#include "program/program.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string model, other, out, layout = "kohya";
  std::vector<std::string> adapters;
  int64_t rank = 16;
  bool force = false;
};

std::vector<Weight> weights_of(const StoredModel& model) {
  std::vector<Weight> weights;
  for (const NamedTensor& t : model.tensors)
    if (!t.name.starts_with(files_prefix)) weights.push_back({t.name, t.tensor});
  return weights;
}

/// Throws ConfigError if an adapter says that it is of another base.
void check_base(const std::string& file, const std::string& model, const std::string& hash, bool force) {
  const std::string wanted = base_hash_of(read_lora(file).metadata);
  if (wanted.empty() || wanted == hash) return;
  if (!force)
    throw ConfigError(fmt::format(
        "{}: is of another base than {}; its metadata has the SHA-256 {}, and the model's is {} (--force merges it all the same)", file,
        model, wanted, hash));
  print_warning(fmt::format("{}: is of a base with the SHA-256 {}, and that of {} is {}", file, wanted, model, hash));
}

void merge(const Arguments& a) {
  check_file("--out", a.out);
  const std::string path = model_file(a.model);
  const StoredModel model = open_any(path);
  const std::string hash = model_hash(path, model.tensors);
  for (const std::string& asked : a.adapters) check_base(read_lora_request(asked).path, path, hash, a.force);
  std::vector<Weight> weights = weights_of(model);
  std::map<std::string, Tensor> merged = merged_loras(a.adapters, weights, at::kFloat);
  for (Weight& w : weights)
    if (const auto changed = merged.find(w.name); changed != merged.end()) w.tensor = changed->second;
  save_model(a.out, weights, model.card);
  fmt::print("{}: {} changed, kept in float32\n", a.out, counted(merged.size(), "weight"));
}

void extract(const Arguments& a) {
  check_file("--out", a.out);
  const at::NoGradGuard no_grad;
  const std::string path = model_file(a.model), other = model_file(a.other);
  const StoredModel base = open_any(path), tuned = open_any(other);
  const std::vector<Weight> weights = weights_of(base);
  const LoraNames names(weights);
  std::map<std::string, WeightChange> changes;
  double whole = 0, left = 0;
  std::vector<std::string> lost;
  for (const Weight& w : weights) {
    const Tensor* changed = find(tuned.tensors, w.name);
    if (!changed || changed->sizes() != w.tensor.sizes())
      throw ConfigError(fmt::format("{}: has no '{}' [{}], and {} has; the two are of different models", other, w.name,
                                    fmt::join(w.tensor.sizes(), ", "), path));
    if (!w.tensor.is_floating_point()) continue;
    const Tensor delta = changed->to(at::kFloat) - w.tensor.to(at::kFloat);
    if (delta.abs().max().item<double>() == 0) continue;
    if (!in_loras(w)) {
      lost.push_back(w.name);
      continue;
    }
    const WeightChange& change = changes[w.name] = nearest_lora(delta, a.rank);
    whole += delta.square().sum().item<double>();
    left += (delta - added_by(change, w.tensor, 1)).square().sum().item<double>();
  }
  if (changes.empty()) throw ConfigError(fmt::format("{}: does not differ from {} in a weight that a LoRA can hold", other, path));
  const LoraLayout layout = a.layout == "kohya" ? LoraLayout::kohya : LoraLayout::diffusers;
  write_lora(a.out, layout, changes, names, {model_hash(path, base.tensors), generation_of(weights)});
  fmt::print("{}: rank {} of {} holds {:.2f} % of the difference's square\n", a.out, a.rank, counted(changes.size(), "weight"),
             100 * (1 - left / whole));
  if (!lost.empty())
    print_warning(fmt::format("{} differ that a LoRA does not hold, like '{}'", counted(lost.size(), "weight"), lost.front()));
}

void resize(const Arguments& a) {
  check_file("--out", a.out);
  const at::NoGradGuard no_grad;
  LoraFile file = read_lora(a.model);
  std::map<std::string, WeightChange> smaller;
  for (const auto& [module, change] : file.changes) {
    if (change.kind() != "LoRA")
      throw ConfigError(
          fmt::format("{}: '{}' is a {}; only LoRAs are resized", a.model, module, change.kind().empty() ? "part" : change.kind()));
    const Tensor down = change.part("lora_down"), up = change.part("lora_up"), mid = change.part("lora_mid");
    if (!down.defined() || !up.defined()) throw ConfigError(fmt::format("{}: '{}' has no two matrices", a.model, module));
    std::vector<int64_t> shape = down.sizes().vec();
    shape[0] = up.size(0);
    if (mid.defined()) shape[2] = mid.size(2), shape[3] = mid.size(3);
    smaller[module] = nearest_lora(added_by(change, at::zeros(shape, at::kFloat), 1), std::min(a.rank, change.rank()));
  }
  NamedTensors tensors;
  for (const NamedTensor& t : load_tensors(a.model)) {
    const auto name = lora_tensor_name(t.name);
    const auto change = name ? smaller.find(name->module) : smaller.end();
    if (change == smaller.end()) {
      tensors.push_back(t);
    } else if (name->role == "alpha") {
      tensors.push_back({t.name, at::full({}, change->second.alpha, at::kFloat)});
    } else if (const Tensor part = change->second.part(name->role); part.defined()) {
      tensors.push_back({t.name, part.contiguous()});
    }
  }
  file.metadata.erase("lora_adapter_metadata");  // its alphas are in the matrices now
  int64_t rank = 0;                              // of the largest: none becomes larger than it was
  for (const auto& [module, change] : smaller) rank = std::max(rank, change.rank());
  file.metadata["ss_network_dim"] = file.metadata["ss_network_alpha"] = std::to_string(rank);
  write_safetensors(a.out, tensors, file.metadata);
  fmt::print("{}: rank {} of {}\n", a.out, rank, counted(smaller.size(), "module"));
}

void inspect(const Arguments& a) {
  const LoraFile file = read_lora(a.model);
  if (file.changes.empty() && file.biases.empty())
    throw ConfigError(fmt::format("{}: is no adapter: it holds {}, none of an adapter", a.model, counted(file.unknown.size(), "tensor")));
  std::map<std::string, int64_t> kinds;
  std::set<int64_t> ranks;
  std::set<double> scales;
  for (const auto& [module, change] : file.changes) {
    ++kinds[change.kind().empty() ? "incomplete" : change.kind()];
    if (change.rank() > 0) ranks.insert(change.rank()), scales.insert(change.scale());
  }
  for (const auto& [kind, count] : kinds) fmt::print("{}: {}\n", kind, counted(count, "module"));
  if (!file.biases.empty()) fmt::print("biases: {}\n", counted(file.biases.size(), "module"));
  if (!ranks.empty()) fmt::print("rank: {}\nalpha / rank: {}\n", fmt::join(ranks, ", "), fmt::join(scales, ", "));
  const auto line = [](const char* what, const std::string& value) {
    if (!value.empty()) fmt::print("{}: {}\n", what, value);
  };
  const auto value_of = [&](const char* key) { return file.metadata.contains(key) ? file.metadata.at(key) : ""; };
  line("generation", generation_of(file));
  line("base SHA-256", base_hash_of(file.metadata));
  line("steps", value_of("ss_steps"));
  line("triggers", value_of("modelspec.trigger_phrase"));
  if (!file.unknown.empty()) fmt::print("unknown tensors: {}, like '{}'\n", file.unknown.size(), file.unknown.front());
}

Command verb(Command app, const char* name, const char* doc, const std::shared_ptr<Arguments>& a, void (*run)(const Arguments&)) {
  const Command command = app.add_subcommand(name, doc);
  command.callback([a, run] { run(*a); });
  return command;
}

}  // namespace

void add_adapter(Command app, Program&, int&) {
  Command command = app.add_subcommand("adapter", "merges, extracts, resizes and inspects LoRAs and their kin");
  command.require_subcommand(1);
  const auto a = std::make_shared<Arguments>();
  const auto out = [&](const Command& c) { c.add_option("-o,--out", a->out, "the file to write").required().type_name("FILE"); };
  const auto rank = [&](const Command& c) {
    c.add_option("--rank", a->rank, "largest rank").capture_default_str().check(between(1, 4096));
  };

  const Command merging = verb(command, "merge", "makes a model with what adapters add to its weights", a, merge);
  merging.add_option("model", a->model, "a model.safetensors, or what `brume import` takes").required().type_name("MODEL");
  merging.add_option("--lora", a->adapters, "an adapter, as `brume sample --lora` takes it; several add up")
      .required()
      .type_name("FILE[:STRENGTH]");
  merging.add_flag("--force", a->force, "merges adapters of another base");
  out(merging);

  const Command extracting = verb(command, "extract", "makes the LoRA that is nearest to the difference of two models", a, extract);
  extracting.add_option("base", a->model, "the model that the LoRA is of").required().type_name("BASE");
  extracting.add_option("tuned", a->other, "the model that was made of it").required().type_name("TUNED");
  extracting.add_option("--layout", a->layout, "whose names its tensors have").capture_default_str().check(one_of({"kohya", "diffusers"}));
  rank(extracting);
  out(extracting);

  const Command resizing = verb(command, "resize", "makes a LoRA of a lower rank, by its singular values", a, resize);
  resizing.add_option("lora", a->model, "a LoRA").required().type_name("FILE");
  rank(resizing);
  out(resizing);

  const Command inspecting = verb(command, "inspect", "shows what an adapter changes, and its metadata", a, inspect);
  inspecting.add_option("adapter", a->model, "an adapter").required().type_name("FILE");
}

}  // namespace brume::tools
