#include "brume/files/named_file.h"

#include <fmt/format.h>

#include <filesystem>

#include "brume/config/errors.h"
#include "brume/config/number.h"

namespace brume {

std::pair<std::string, std::string> file_and_rest(const std::string& asked, const char* what) {
  namespace fs = std::filesystem;
  if (fs::is_regular_file(asked)) return {asked, ""};
  const size_t colon = asked.rfind(':');
  const bool split = colon != std::string::npos && asked.find('/', colon) == std::string::npos;
  const std::string file = split ? asked.substr(0, colon) : asked;
  if (!fs::is_regular_file(file)) throw ConfigError(fmt::format("{}: there is no file '{}'", what, file));
  return {file, split ? asked.substr(colon + 1) : ""};
}

std::pair<std::string, double> file_and_number(const std::string& asked, const char* what) {
  const auto [file, rest] = file_and_rest(asked, what);
  if (rest.empty() && !asked.ends_with(":")) return {file, 1};
  const auto number = parse_number<double>(rest);
  if (!number)
    throw ConfigError(fmt::format("{}: '{}' is no strength in '{}'; a number like 0.8 is, after the file and a colon", what, rest, asked));
  return {file, *number};
}

}  // namespace brume
