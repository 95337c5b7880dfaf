#include "brume/interop/export/partial.h"

#include <fmt/format.h>
#include <unistd.h>

#include "brume/config/errors.h"
#include "brume/files/atomic_file.h"
#include "brume/weights/safetensors.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void refuse(const fs::path& path, const std::error_code& error) {
  throw ConfigError(fmt::format("{}: cannot be written: {}", path.string(), error.message()));
}

constexpr std::string_view ending = ".partial";

/// Removes the folders of killed exports to `target`. The folder of a living one is locked, and stays.
void remove_stale(const fs::path& target) {
  const std::string begin = target.filename().string() + std::string(ending);
  const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  std::error_code error, ignored;
  std::vector<fs::path> stale;
  for (auto entry = fs::directory_iterator(parent, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool ours =
        name.size() > begin.size() && name.starts_with(begin) && name.find_first_not_of("0123456789", begin.size()) == name.npos;
    if (ours && entry->is_directory(ignored) && Lock(entry->path().string()).held()) stale.push_back(entry->path());
  }
  for (const fs::path& folder : stale) fs::remove_all(folder, ignored);
}

}  // namespace

Partial::Partial(Moves moves) : moves_(std::move(moves)) {
  for (auto& [name, target] : moves_) {
    if (!target.has_filename()) target = target.parent_path();  // "out/"
    if (fs::exists(fs::symlink_status(target)))
      throw ConfigError(fmt::format("{}: exists already; an export overwrites nothing", target.string()));
  }
  const fs::path& first = moves_.front().second;
  remove_stale(first);
  path_ = first.string() + fmt::format("{}{}", ending, getpid());
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) refuse(first, error);
  lock_ = Lock(path_.string());
}

Partial::~Partial() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

std::string Partial::made(const std::string& name) const {
  fs::create_directories((path_ / name).parent_path());
  return (path_ / name).string();
}

void Partial::file(const std::string& name, const std::string& content) const { write_file(made(name), content); }

void Partial::tensors(const std::string& name, const NamedTensors& all) const { write_safetensors(made(name), all, {{"format", "pt"}}); }

void Partial::commit() {
  for (size_t i = 0; i < moves_.size(); ++i) {
    const auto& [name, target] = moves_[i];
    std::error_code error, ignored;
    fs::rename(name.empty() ? path_ : path_ / name, target, error);
    if (!error) continue;
    for (size_t done = 0; done < i; ++done) fs::remove_all(moves_[done].second, ignored);
    refuse(target, error);
  }
}

}  // namespace brume
