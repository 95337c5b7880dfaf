#include "brume/train/ema_snapshots.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/numerics/power_average.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

struct Snapshot {
  fs::path file;
  int64_t step = 0;
  double length = 0;
};

fs::path folder_of(const fs::path& run) { return run / "ema"; }

std::optional<Snapshot> snapshot_of(const fs::path& file) {
  const std::string name = file.filename().string(), end = ".safetensors";
  const size_t middle = name.find("_std_");
  if (!name.starts_with("step_") || middle == name.npos || !name.ends_with(end)) return {};
  const auto step = parse_number<int64_t>(std::string_view(name).substr(5, middle - 5));
  const auto length = parse_number<double>(std::string_view(name).substr(middle + 5, name.size() - end.size() - middle - 5));
  return step && length ? std::optional<Snapshot>({file, *step, *length}) : std::nullopt;
}

/// Returns the snapshots by step, then by length.
std::vector<Snapshot> snapshots_of(const fs::path& run) {
  std::vector<Snapshot> all;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder_of(run), error); !error && entry != fs::directory_iterator(); entry.increment(error))
    if (const auto snapshot = snapshot_of(entry->path())) all.push_back(*snapshot);
  std::sort(all.begin(), all.end(),
            [](const Snapshot& a, const Snapshot& b) { return std::pair(a.step, a.length) < std::pair(b.step, b.length); });
  return all;
}

/// Returns the sum of a tensor of all models; what is the same in all, or no number, stays as it is.
at::Tensor weighted_sum(const std::vector<StoredModel>& models, const std::vector<double>& weights, const NamedTensor& last) {
  at::Tensor sum;
  bool same = true;
  for (size_t i = 0; i < models.size(); ++i) {
    const at::Tensor* t = find(models[i].tensors, last.name);
    if (!t || t->sizes() != last.tensor.sizes())
      throw ConfigError(fmt::format("the snapshots are of different models: '{}' is not in all of them", last.name));
    same = same && at::equal(*t, last.tensor);
    if (!last.tensor.is_floating_point()) continue;
    const at::Tensor part = t->to(at::kDouble) * weights[i];
    sum = sum.defined() ? sum + part : part;
  }
  return same || !sum.defined() ? last.tensor : sum.to(last.tensor.scalar_type());
}

}  // namespace

void save_snapshots(const fs::path& run, const EmaOptions& options, const std::vector<std::vector<Weight>>& averages,
                    const ModelCard& card) {
  std::error_code error;
  fs::create_directories(folder_of(run), error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", folder_of(run).string(), error.message()));
  for (size_t i = 0; i < averages.size(); ++i)
    save_model((folder_of(run) / fmt::format("step_{:06}_std_{}.safetensors", card.step, options.std[i])).string(), averages[i], card);
}

void remove_snapshots(const fs::path& run) {
  std::error_code ignored;
  for (const Snapshot& s : snapshots_of(run)) fs::remove(s.file, ignored);
  fs::remove(folder_of(run), ignored);
}

Reconstruction reconstruct_average(const fs::path& run, double std, std::optional<int64_t> step) {
  std::vector<Snapshot> all = snapshots_of(run);
  if (step) std::erase_if(all, [&](const Snapshot& s) { return s.step > *step; });
  if (all.empty())
    throw ConfigError(fmt::format("{}: has no snapshots of averages{}; train.ema: {{type: power}} writes them at checkpoints",
                                  folder_of(run).string(), step ? fmt::format(" up to step {}", *step) : ""));
  const int64_t end = step.value_or(all.back().step);
  std::vector<PowerAverage> known;
  std::vector<StoredModel> models;
  for (const Snapshot& s : all) {
    known.push_back({double(s.step), s.length});
    models.push_back(open_any(s.file.string()));
  }
  const std::vector<double> weights = post_hoc_weights(known, {double(end), std});
  Reconstruction r{{}, models.back().card, end, all.size()};
  r.card.step = end;
  for (const NamedTensor& t : models.back().tensors)
    if (!t.name.starts_with(files_prefix)) r.weights.push_back({t.name, weighted_sum(models, weights, t)});
  return r;
}

}  // namespace brume
