#pragma once
// The text "parameters" that A1111's web UI and its kin write into pictures.
#include <nlohmann/json.hpp>
#include <string>

namespace brume {

/// The line that begins a negative prompt.
inline constexpr std::string_view infotext_negative = "Negative prompt: ";

/// Returns the fields of such a text by their names, "Prompt" and "Negative prompt" among them, all as texts; an empty object if it is
/// none: its last line is "Steps: 20, Sampler: Euler a, ...". What stands between commas without a name is left out.
nlohmann::ordered_json infotext_fields(const std::string& text);

}  // namespace brume
