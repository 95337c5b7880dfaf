#include "program/outputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "brume/config/errors.h"
#include "brume/config/utf8.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

/// Returns "" of a directory's name, "run.v2" too: only what files are known by.
std::string ending_of(const fs::path& path) {
  static const std::vector<std::string> known{".png",  ".apng",        ".jpg",  ".jpeg", ".gif",  ".webp", ".bmp", ".tif", ".tiff",
                                              ".avif", ".heic",        ".svg",  ".pdf",  ".ppm",  ".pgm",  ".pnm", ".mp4", ".mov",
                                              ".webm", ".mkv",         ".avi",  ".zip",  ".tar",  ".npy",  ".npz", ".pt",  ".pth",
                                              ".bin",  ".safetensors", ".ckpt", ".txt",  ".json", ".yaml", ".yml", ".csv"};
  const std::string ending = lower_case(path.extension().string());
  return std::find(known.begin(), known.end(), ending) == known.end() ? "" : ending;
}

/// A folder that is there, or one that can be made, is one that can be written to.
void check_writable(const std::string& option, const std::string& path, fs::path folder) {
  if (folder.empty()) folder = ".";
  std::error_code ignored;
  while (!fs::exists(folder, ignored)) folder = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
  if (!fs::is_directory(folder)) throw ConfigError(fmt::format("{} {}: {} is no directory", option, path, folder.string()));
  if (access(folder.c_str(), W_OK | X_OK) != 0)
    throw ConfigError(fmt::format("{} {}: nothing can be written into {}: {}", option, path, folder.string(), std::strerror(errno)));
}

}  // namespace

void check_file(const std::string& option, const std::string& path) {
  if (path.empty()) return;
  if (fs::is_directory(path)) throw ConfigError(fmt::format("{} {}: is a directory, and a file is written there", option, path));
  check_writable(option, path, fs::path(path).parent_path());
}

void check_folder(const std::string& option, const std::string& path) {
  if (path.empty()) return;
  if (fs::exists(path) && !fs::is_directory(path))
    throw ConfigError(fmt::format("{} {}: is a file, and a directory is written there", option, path));
  check_writable(option, path, path);
}

bool is_file(const std::string& option, const std::string& path, const std::vector<std::string>& endings) {
  const std::string ending = fs::is_directory(path) ? "" : ending_of(path);
  if (ending.empty()) {
    check_folder(option, path);
    return false;
  }
  if (std::find(endings.begin(), endings.end(), ending) == endings.end())
    throw ConfigError(fmt::format("{} {}: no {} is written there, but {}; a name without an ending is a directory", option, path, ending,
                                  fmt::join(endings, " or ")));
  check_file(option, path);
  return true;
}

void make_parent(const std::string& path) {
  if (const fs::path folder = fs::path(path).parent_path(); !folder.empty()) fs::create_directories(folder);
}

}  // namespace brume::tools
