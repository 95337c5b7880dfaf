#include "brume/config/file_hint.h"

#include <fmt/format.h>

#include <system_error>
#include <vector>

#include "brume/config/suggest.h"

namespace brume {
namespace fs = std::filesystem;

std::string file_hint(const fs::path& file) {
  constexpr size_t most = 10'000;  // entries that are compared
  std::error_code error;
  const fs::path folder = file.parent_path();
  if (fs::exists(file, error)) return "";
  const std::string extension = file.extension().string();
  std::vector<std::string> stems, others;  // of files with the same extension; the names of other files
  fs::directory_iterator entry(folder.empty() ? fs::path(".") : folder, error);
  for (size_t i = 0; !error && entry != fs::directory_iterator() && i < most; entry.increment(error), ++i) {
    const fs::path& found = entry->path();
    if (found.extension() == extension)
      stems.push_back(found.stem().string());
    else
      others.push_back(found.filename().string());
  }
  std::string near = closest(file.stem().string(), stems);
  near = near.empty() ? closest(file.filename().string(), others) : near + extension;
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", (folder / near).string());
}

}  // namespace brume
