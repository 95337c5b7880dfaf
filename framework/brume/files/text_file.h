#pragma once
// Text files that people write: lists of prompts, captions, tables.
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// Returns the content of a text file without its byte order mark. A pipe is read too. Throws ConfigError if the file cannot be read, and
/// "path:line: byte N (0x..) is not UTF-8".
std::string read_text(const std::string& path);

/// Returns the lines, without "\n" or "\r\n"; a line end at the end begins no further line.
std::vector<std::string_view> lines_of(std::string_view text);

}  // namespace brume
