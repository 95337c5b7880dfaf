#pragma once
// YAML in and out. The only place that knows yaml-cpp.
#include <filesystem>
#include <string>
#include <string_view>

#include "brume/config/value.h"

namespace brume {

/// Parses one YAML document. Duplicate keys, tabs and syntax errors are ConfigErrors with line and column.
Value parse_yaml(std::string_view text, const std::string& name);

/// Parses what a model's file holds (Place::stored).
Value parse_stored_yaml(std::string_view text, const std::string& name);

/// Reads a file and resolves `include: part.yaml` (one or a list) in any of its maps: the part's keys come first, the keys
/// of the same map are laid over them. A part is looked for in the folder of the including file, then in `parts/` there and upwards.
Value load_yaml(const std::filesystem::path& file);

/// Returns block-style YAML that parses back to the same tree.
std::string dump_yaml(const Value& value);

}  // namespace brume
