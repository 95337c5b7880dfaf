#pragma once
// What characters are, by the Unicode Character Database.
#include <string>
#include <string_view>

namespace brume::text {

bool is_letter(char32_t c);   ///< categories L*
bool is_number(char32_t c);   ///< categories N*
bool is_control(char32_t c);  ///< categories Cc, Cf, Co
bool is_space(char32_t c);

/// Returns UTF-8 in normalization form C (UAX #15); text that is not UTF-8 as it is.
std::string composed(std::string_view text);
/// Returns UTF-8 in lower case, by all rules of Unicode that hold in any language, as Python's str.lower(): a sigma that ends a word is
/// "ς". Returns text that is not UTF-8 as it is.
std::string lower_case(std::string_view text);

}  // namespace brume::text
