#include "brume/weights/model_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "brume/config/errors.h"
#include "brume/config/grouped.h"
#include "brume/config/suggest.h"
#include "brume/core/file_pages.h"
#include "brume/weights/weights_file.h"

namespace brume {

void load_weights(const std::string& path, const std::vector<Weight>& weights) { load_weights(path, load_tensors(path), weights); }

namespace {

/// Returns "; the nearest that has no place is 'input_blocks.1.0.in_layers.0.weight'", if one is near.
std::string nearest(const std::string& name, const std::vector<std::string>& others) {
  const std::string near = others.size() > 2000 ? "" : closest(name, others);
  return near.empty() ? "" : fmt::format("; the nearest that has no place is '{}'", near);
}

/// Returns what is the likely reason of tensors that do not fit, of a model of `total`.
std::string reason(size_t total, size_t lacking, size_t unlike, size_t unknown) {
  if (lacking == total) return fmt::format("has none of the {} tensors of the model: it is of another architecture", total);
  const bool one_kind = int(lacking > 0) + int(unlike > 0) + int(unknown > 0) == 1;
  if (one_kind && unlike > 0)
    return fmt::format("has {} of {} tensors in other sizes than the model: the configuration is of another size", unlike, total);
  if (one_kind && lacking > 0)
    return fmt::format("lacks {} of {} tensors of the model: it has fewer layers, or is cut off", lacking, total);
  if (one_kind) return fmt::format("has {} tensors that the model does not: it has more layers or parts", unknown);
  return fmt::format("lacks {} of {} tensors of the model, has {} in other sizes and {} others: it is of another architecture or size",
                     lacking, total, unlike, unknown);
}

/// Throws ConfigError if anything does not fit; many mistakes are grouped below their likely reason.
void refuse_misfits(const std::string& source, size_t total, const std::vector<std::string>& lacking,
                    const std::vector<std::string>& unlike, const std::vector<std::string>& unknown) {
  constexpr size_t many = 10;
  std::vector<std::string> all = lacking;
  all.insert(all.end(), unlike.begin(), unlike.end());
  all.insert(all.end(), unknown.begin(), unknown.end());
  if (all.empty()) return;
  if (all.size() > many) {
    all = grouped(all);
    all.insert(all.begin(), reason(total, lacking.size(), unlike.size(), unknown.size()) + ":");
  }
  std::vector<Problem> problems;
  problems.reserve(all.size());
  for (const std::string& text : all) problems.push_back({{}, "", fmt::format("{}: {}", source, text)});
  throw ConfigError(std::move(problems));
}

}  // namespace

std::vector<at::Tensor> fitting(const std::string& source, const NamedTensors& file, const std::vector<Weight>& weights) {
  std::unordered_map<std::string, const Tensor*> by_name;
  for (const NamedTensor& t : file) by_name.emplace(t.name, &t.tensor);
  std::unordered_set<std::string> wanted;
  for (const Weight& w : weights) wanted.insert(w.name);
  std::vector<std::string> unknown;
  for (const NamedTensor& t : file)
    if (!t.name.starts_with(files_prefix) && !wanted.contains(t.name)) unknown.push_back(t.name);

  constexpr size_t named = 10;  // with the nearest names, which cost time
  std::vector<std::string> lacking, unlike;
  std::vector<at::Tensor> found;
  for (const Weight& w : weights) {
    const auto it = by_name.find(w.name);
    if (it == by_name.end())
      lacking.push_back(fmt::format("lacks the tensor '{}' [{}]{}", w.name, fmt::join(w.tensor.sizes(), ", "),
                                    lacking.size() < named ? nearest(w.name, unknown) : ""));
    else if (it->second->sizes() != w.tensor.sizes())
      unlike.push_back(fmt::format("tensor '{}' has shape [{}], the model's has [{}]", w.name, fmt::join(it->second->sizes(), ", "),
                                   fmt::join(w.tensor.sizes(), ", ")));
    else if (w.tensor.is_floating_point() && !it->second->is_floating_point())
      unlike.push_back(fmt::format("tensor '{}' is of type {}; weights are of floating type, and quantised ones are not read", w.name,
                                   at::toString(it->second->scalar_type())));
    else
      found.push_back(*it->second);
  }
  for (std::string& name : unknown) name = fmt::format("has a tensor '{}' that the model does not", name);
  refuse_misfits(source, weights.size(), lacking, unlike, unknown);
  return found;
}

void load_weights(const std::string& source, const NamedTensors& file, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> found = fitting(source, file, weights);
  for (size_t i = 0; i < weights.size(); ++i) {
    Tensor target = weights[i].tensor;
    target.copy_(found[i]);
    discard_file_pages(found[i].data_ptr(), found[i].nbytes());
  }
}

namespace {

/// Returns the tensors that `weights` name; the file may hold more.
std::vector<at::Tensor> published(const std::string& path, const std::vector<Weight>& weights) {
  std::unordered_set<std::string> wanted;
  for (const Weight& w : weights) wanted.insert(w.name);
  NamedTensors some;
  for (NamedTensor& t : load_tensors(path))
    if (wanted.contains(t.name)) some.push_back(std::move(t));
  return fitting(path, some, weights);
}

}  // namespace

void load_published(const std::string& path, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> found = published(path, weights);
  for (size_t i = 0; i < weights.size(); ++i) weights[i].tensor.copy_(found[i]);
}

void view_weights(const std::string& path, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> found = published(path, weights);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].any_dtype)
      weights[i].tensor.set_data(found[i]);
    else
      weights[i].tensor.copy_(found[i]);
  }
}

Files files_in(const NamedTensors& tensors) {
  Files files;
  for (const NamedTensor& t : tensors)
    if (t.name.starts_with(files_prefix) && t.tensor.scalar_type() == at::kByte)
      files[t.name.substr(files_prefix.size())].assign(static_cast<const char*>(t.tensor.data_ptr()), size_t(t.tensor.numel()));
  return files;
}

NamedTensors file_tensors(const Files& files) {
  NamedTensors tensors;
  for (const auto& [path, bytes] : files) {
    const Tensor tensor = at::empty({int64_t(bytes.size())}, at::kByte);
    std::copy(bytes.begin(), bytes.end(), static_cast<char*>(tensor.data_ptr()));
    tensors.push_back({std::string(files_prefix) + path, tensor});
  }
  return tensors;
}

}  // namespace brume
