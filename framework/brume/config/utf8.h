#pragma once
// UTF-8 (RFC 3629).
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// Returns the first byte that belongs to no character: overlong forms, surrogates and cut ends count as wrong. Nothing if all is well.
std::optional<size_t> invalid_utf8(std::string_view text);
/// Returns the characters of valid UTF-8.
std::vector<char32_t> characters(std::string_view text);
void append_utf8(std::string& to, char32_t character);
/// Returns the text without the byte order mark that it may begin with.
std::string_view without_byte_order_mark(std::string_view text);
/// Returns the text with the capitals of ASCII as small letters, whatever the locale.
std::string lower_case(std::string_view text);
/// Returns the text in ASCII, for fonts that have nothing else: letters of Latin-1 lose their accents, every other character becomes '?',
/// and control characters become spaces.
std::string ascii_text(std::string_view text);
/// Returns a text in quotes for a message: short, and printable whatever it holds.
std::string in_quotes(std::string_view text);

}  // namespace brume
