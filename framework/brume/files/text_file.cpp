#include "brume/files/text_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "brume/config/file_hint.h"
#include "brume/config/utf8.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

void check_utf8(std::string_view text, const std::string& path) {
  const std::optional<size_t> at = invalid_utf8(text);
  if (!at) return;
  const std::string_view before = text.substr(0, *at);
  const size_t newline = before.rfind('\n'), start = newline == before.npos ? 0 : newline + 1;
  refuse(fmt::format("{}:{}", path, 1 + std::count(before.begin(), before.end(), '\n')),
         fmt::format("byte {} (0x{:02x}) is not UTF-8", *at - start + 1, static_cast<uint8_t>(text[*at])));
}

}  // namespace

std::string read_text(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) refuse(path, "is a directory, not a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    const std::string reason = std::strerror(errno);  // before a look at the folder
    refuse(path, fmt::format("cannot be opened: {}{}", reason, file_hint(path)));
  }
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) refuse(path, "cannot be read");
  const std::string_view text = without_byte_order_mark(bytes);
  check_utf8(text, path);
  return std::string(text);
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
  }
  return lines;
}

}  // namespace brume
