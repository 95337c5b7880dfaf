#pragma once
// What `brume inspect` says of a file or a directory: its tensors, and as what brume would open it.
#include <string>

namespace brume {

/// Returns for people: format, the family and what of it brume has no place for, totals, metadata, the whole configuration of brume's own
/// files, then one line per tensor; of a directory, one line per part. Also describes PNG files with their text. Throws ConfigError if
/// nothing is to be read.
std::string inspect(const std::string& path);
/// Returns the same for programs, as one JSON object.
std::string inspect_json(const std::string& path);

}  // namespace brume
