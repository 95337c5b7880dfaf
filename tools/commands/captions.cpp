#include "commands/captions.h"

#include <fmt/format.h>

#include <filesystem>

#include "brume/config/errors.h"
#include "brume/files/text_file.h"

namespace brume::tools {

std::vector<std::string> captions_in(const std::string& file) {
  if (!std::filesystem::exists(file) || std::filesystem::is_directory(file))
    throw ConfigError(fmt::format("--captions: there is no file '{}'", file));
  const std::string text = read_text(file);
  std::vector<std::string> lines;
  for (const std::string_view line : lines_of(text))
    if (!line.empty()) lines.emplace_back(line);
  if (lines.empty()) throw ConfigError(fmt::format("--captions: '{}' is empty", file));
  return lines;
}

}  // namespace brume::tools
