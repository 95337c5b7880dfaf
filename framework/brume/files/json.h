#pragma once
// JSON of files that may hold anything.
#include <nlohmann/json.hpp>
#include <string_view>

namespace brume {

/// Returns true if lists and objects stand in each other deeper than in any file written on purpose (100 levels). Whatever copies or prints
/// a JSON value calls itself level by level, and a file of brackets would leave it no stack.
bool nests_too_deep(std::string_view json);

/// Returns the value; discarded (`is_discarded()`) if the text is no JSON, or nests too deep.
nlohmann::json json_or_discarded(std::string_view text);

}  // namespace brume
