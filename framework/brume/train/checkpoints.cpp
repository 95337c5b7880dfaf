#include "brume/train/checkpoints.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/core/warnings.h"
#include "brume/files/atomic_file.h"
#include "brume/train/adapted_learner.h"
#include "brume/train/controlled_learner.h"
#include "brume/train/metrics_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// A kept checkpoint is complete if it has the model, which is kept last and removed first.
constexpr const char *model_name = "model.safetensors", *training_name = "training.safetensors";
constexpr const char* spared_name = "spared";  // a file of a checkpoint that is not pruned, empty if it was not kept before
constexpr std::string_view step_prefix = "step_";

fs::path folder_of(const fs::path& directory) { return directory / "checkpoints"; }

/// Returns the step of a kept checkpoint; nothing for other names.
std::optional<int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  return name.starts_with(step_prefix) ? parse_number<int64_t>(std::string_view(name).substr(step_prefix.size())) : std::nullopt;
}

/// Returns the kept checkpoints by step.
std::map<int64_t, fs::path> kept(const fs::path& directory) {
  std::map<int64_t, fs::path> all;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder_of(directory), error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    if (const auto step = step_of(entry->path())) all[*step] = entry->path();
  return all;
}

/// Removes the files of a checkpoint, and the folder if it is empty then.
void remove_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  fs::remove(folder / model_name, ignored);
  for (const std::string& part : parts_in(folder)) fs::remove(folder / part, ignored);
  for (const char* file : {training_name, spared_name}) fs::remove(folder / file, ignored);
  fs::remove(folder, ignored);
}

/// Copies a file; no part of it has the name `to` before all has. Throws ConfigError if it cannot be read or written.
void copy_whole(const fs::path& from, const fs::path& to) {
  std::ifstream in(from, std::ios::binary);
  AtomicFile out(to.string(), fs::file_size(from));
  std::vector<char> part(size_t{1} << 20);
  while (in.read(part.data(), std::streamsize(part.size())) || in.gcount() > 0) out.write(part.data(), size_t(in.gcount()));
  if (!in.eof()) throw ConfigError(fmt::format("{}: cannot be read", from.string()));
  out.commit();
}

/// Returns a figure by step, as metrics.jsonl has it. `names` receives those of all figures.
std::map<int64_t, double> figures(const fs::path& directory, const std::string& figure, std::set<std::string>& names) {
  std::map<int64_t, double> all;
  for (const MetricsLine& line : read_metrics(directory / "metrics.jsonl")) {
    if (figure == "step") all[line.step] = double(line.step);
    for (const auto& [name, value] : line.figures) {
      names.insert(name);
      if (name == figure) all[line.step] = value;
    }
  }
  return all;
}

/// Returns the step of the best of these checkpoints; nothing if none of them has the figure.
std::optional<int64_t> best_of(const fs::path& directory, const std::map<int64_t, fs::path>& all, const std::string& rule) {
  const BestBy by = best_by(rule);
  std::set<std::string> names;
  const std::map<int64_t, double> values = figures(directory, by.figure, names);
  if (values.empty())
    warn(fmt::format("train.keep_best: no line of metrics.jsonl has the figure '{}'{}", by.figure,
                     hint(by.figure, {names.begin(), names.end()})));
  std::optional<int64_t> best;
  for (const auto& [step, folder] : all) {
    const auto value = values.find(step);
    if (value == values.end()) continue;
    const double sign = by.largest ? 1 : -1;
    if (!best || sign * value->second > sign * values.at(*best)) best = step;
  }
  return best;
}

std::string bytes_text(uint64_t bytes) {
  if (bytes < 1'000'000) return fmt::format("{:.1f} kB", double(bytes) / 1e3);
  return bytes < 1'000'000'000 ? fmt::format("{:.1f} MB", double(bytes) / 1e6) : fmt::format("{:.1f} GB", double(bytes) / 1e9);
}

/// Returns the free bytes of the disk that a directory is on, or will be; nothing if that is unknown.
std::optional<uint64_t> free_bytes(fs::path directory) {
  std::error_code error;
  directory = fs::absolute(directory, error);
  while (!error && !fs::exists(directory, error) && directory.has_relative_path()) directory = directory.parent_path();
  const fs::space_info space = fs::space(directory, error);
  return error ? std::nullopt : std::optional<uint64_t>(space.available);
}

}  // namespace

std::vector<std::string> parts_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator(); entry.increment(error))
    if (const fs::path name = entry->path().filename(); is_adapter(name) || name == control_file) names.push_back(name.string());
  return names;
}

Lock lock_run(const fs::path& directory) {
  Lock lock(fs::canonical(directory).string());  // where a link leads
  if (lock.taken())
    throw ConfigError(
        fmt::format("{}: another process trains in this directory; wait for it, or name another directory", directory.string()));
  return lock;
}

void clean_run(const fs::path& directory) {
  remove_stale_files(directory.string());
  remove_stale_files((directory / "samples").string());
  for (const auto& [step, folder] : kept(directory)) {
    remove_stale_files(folder.string());
    if (!fs::exists(folder / model_name)) remove_checkpoint(folder);
  }
}

fs::path run_of(const fs::path& training_file) {
  const fs::path folder = training_file.parent_path();
  return step_of(folder) && folder.parent_path().filename() == "checkpoints" ? folder.parent_path().parent_path() : folder;
}

BestBy best_by(const std::string& text) {
  const bool largest = text.starts_with("max "), smallest = text.starts_with("min ");
  const std::string figure = text.substr(std::min<size_t>(text.size(), 4));
  if ((!largest && !smallest) || figure.empty() || figure.find(' ') != figure.npos)
    throw ConfigError(fmt::format("'{}' is not max or min and the name of a figure, like 'min test_loss'", text));
  return {figure, largest};
}

bool is_kept(const fs::path& directory, int64_t step) { return kept(directory).contains(step); }

void keep_checkpoint(const fs::path& directory, int64_t step) {
  const fs::path folder = folder_of(directory) / fmt::format("{}{:06}", step_prefix, step);
  remove_checkpoint(folder);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", folder.string(), error.message()));
  try {
    std::vector<std::string> files = parts_in(directory);
    files.insert(files.end(), {training_name, model_name});
    for (const std::string& file : files) {
      fs::create_hard_link(directory / file, folder / file, error);
      if (error) copy_whole(directory / file, folder / file);  // a file system without links
    }
  } catch (...) {
    remove_checkpoint(folder);
    throw;
  }
}

void spare_checkpoint(const fs::path& directory, int64_t step) {
  const bool before = is_kept(directory, step);
  if (!before) keep_checkpoint(directory, step);
  write_file((kept(directory).at(step) / spared_name).string(), before ? "kept\n" : "");
}

void prune_spared(const fs::path& directory, int64_t step) {
  const std::map<int64_t, fs::path> all = kept(directory);
  const auto found = all.find(step);
  if (found == all.end()) return;
  std::error_code ignored;
  const bool before = fs::file_size(found->second / spared_name, ignored) > 0;
  fs::remove(found->second / spared_name, ignored);
  if (!before) remove_checkpoint(found->second);
  fs::remove(folder_of(directory), ignored);  // if it is empty
}

void prune_checkpoints(const fs::path& directory, int64_t step, const KeepOptions& keep) {
  std::map<int64_t, fs::path> all = kept(directory);
  all.erase(all.upper_bound(step), all.end());
  const std::optional<int64_t> best = keep.best.empty() ? std::nullopt : best_of(directory, all, keep.best);
  int64_t newer = 0;
  for (auto it = all.rbegin(); it != all.rend(); ++it, ++newer)
    if (newer >= keep.last && it->first != best && !fs::exists(it->second / spared_name) &&
        (keep.every == 0 || it->first % keep.every != 0))
      remove_checkpoint(it->second);
}

void remove_checkpoints(const fs::path& directory) {
  for (const auto& [step, folder] : kept(directory)) remove_checkpoint(folder);
  std::error_code ignored;
  fs::remove(folder_of(directory), ignored);
}

void check_room(const fs::path& directory, const CheckpointSize& size, const TrainOptions& t, int64_t step) {
  const uint64_t larger = std::max(size.model, size.training), one = size.model + size.training;
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && larger > limit.rlim_cur)
    throw ConfigError(fmt::format("{}: a checkpoint of this training needs a file of {}, and the limit on file sizes (ulimit -f) is {}",
                                  directory.string(), bytes_text(larger), bytes_text(limit.rlim_cur)));
  const std::optional<uint64_t> free = free_bytes(directory);
  if (!free) return;
  const int64_t writes = (t.steps - step + t.checkpoint_every - 1) / t.checkpoint_every;
  const bool present = fs::exists(directory / training_name);
  const uint64_t least = present || writes < 2 ? (present ? larger : one) : one + larger;
  if (least > *free)
    throw ConfigError(fmt::format("{}: a checkpoint of this training needs {} while it is written, and the disk has {} free",
                                  directory.string(), bytes_text(least), bytes_text(*free)));
  if (!t.keep.any()) return;
  const int64_t more =
      std::min(writes, t.keep.last + (t.keep.best.empty() ? 0 : 1)) + (t.keep.every > 0 ? t.steps / t.keep.every - step / t.keep.every : 0);
  const int64_t sets = std::max<int64_t>(1, more - int64_t(kept(directory).size()) + 1);
  if (uint64_t(sets) * one > *free)
    warn(fmt::format("{}: the checkpoints that train.keep, train.keep_every and train.keep_best ask for need {}, and the disk has {} free",
                     directory.string(), bytes_text(uint64_t(sets) * one), bytes_text(*free)));
}

}  // namespace brume
