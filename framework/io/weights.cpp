#include "io/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "config/errors.h"
#include "io/import/import.h"
#include "io/model_file.h"

namespace brume {

void load_weights(const std::string& path, const std::vector<Weight>& weights) { load_weights(path, io::load_tensors(path), weights); }

void load_weights(const std::string& source, const io::NamedTensors& file, const std::vector<Weight>& weights) {
  const at::NoGradGuard no_grad;
  std::unordered_map<std::string, const Tensor*> by_name;
  for (const io::NamedTensor& t : file) by_name.emplace(t.name, &t.tensor);
  std::vector<Problem> problems;
  std::unordered_set<std::string> wanted;
  const auto problem = [&](std::string text) { problems.push_back({{}, "", fmt::format("{}: {}", source, text)}); };
  for (const Weight& w : weights) {
    wanted.insert(w.name);
    const auto it = by_name.find(w.name);
    if (it == by_name.end())
      problem(fmt::format("lacks the tensor '{}' [{}]", w.name, fmt::join(w.tensor.sizes(), ", ")));
    else if (it->second->sizes() != w.tensor.sizes())
      problem(fmt::format("tensor '{}' has shape [{}], the model's has [{}]", w.name, fmt::join(it->second->sizes(), ", "),
                          fmt::join(w.tensor.sizes(), ", ")));
  }
  for (const io::NamedTensor& t : file)
    if (!t.name.starts_with(files_prefix) && !wanted.contains(t.name))
      problem(fmt::format("has a tensor '{}' that the model does not", t.name));
  if (problems.size() > 10) {
    const size_t more = problems.size() - 10;
    problems.resize(10);
    problem(fmt::format("and {} more tensors do not fit", more));
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  for (const Weight& w : weights) {
    Tensor target = w.tensor;
    target.copy_(*by_name[w.name]);
  }
}

void load_model(const std::string& path, const std::vector<Weight>& weights) {
  load_weights(path, io::open_model(path).tensors, weights);
}

Files load_files(const std::string& path) { return files_in(io::open_model(path).tensors); }

Files files_in(const io::NamedTensors& tensors) {
  Files files;
  for (const io::NamedTensor& t : tensors)
    if (t.name.starts_with(files_prefix) && t.tensor.scalar_type() == at::kByte)
      files[t.name.substr(files_prefix.size())].assign(static_cast<const char*>(t.tensor.data_ptr()), size_t(t.tensor.numel()));
  return files;
}

io::NamedTensors file_tensors(const Files& files) {
  io::NamedTensors tensors;
  for (const auto& [path, bytes] : files) {
    const Tensor tensor = at::empty({int64_t(bytes.size())}, at::kByte);
    std::copy(bytes.begin(), bytes.end(), static_cast<char*>(tensor.data_ptr()));
    tensors.push_back({std::string(files_prefix) + path, tensor});
  }
  return tensors;
}

}  // namespace brume
