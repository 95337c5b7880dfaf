#pragma once
// What characters are, by the Unicode Character Database.
#include <cstdint>

namespace brume::text {

bool is_letter(char32_t c);   ///< categories L*
bool is_number(char32_t c);   ///< categories N*
bool is_control(char32_t c);  ///< categories Cc, Cf, Co
bool is_space(char32_t c);
/// Where it is one character; else itself.
char32_t lower_case(char32_t c);

}  // namespace brume::text
