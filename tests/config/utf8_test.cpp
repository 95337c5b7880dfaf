#include "brume/config/utf8.h"

#include <gtest/gtest.h>

namespace brume::test {
namespace {

TEST(Utf8, WhatItIs) {
  for (const char* good :
       {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_FALSE(invalid_utf8(good)) << good;
  for (const char* bad : {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xC2", "\xE2\x82", "\xF0\x9F\x98", "\xC2\x20", "\xFF"})
    EXPECT_EQ(invalid_utf8("ab" + std::string(bad)), std::optional<size_t>(2));
}

TEST(Utf8, ByteOrderMarks) {
  EXPECT_EQ(without_byte_order_mark("\xEF\xBB\xBF"
                                    "a"),
            "a");
  EXPECT_EQ(without_byte_order_mark("\xEF\xBB\xBF\xEF\xBB\xBF"), "\xEF\xBB\xBF") << "the second is a character";
  for (const char* text : {"", "a", "\xEF\xBB", "a\xEF\xBB\xBF"}) EXPECT_EQ(without_byte_order_mark(text), text);
}

TEST(Utf8, LowerCaseIsOfAscii) { EXPECT_EQ(lower_case("A.PNG Ünï"), "a.png Ünï"); }

TEST(Utf8, AsciiKeepsTheLettersOfLatin1) {
  EXPECT_EQ(ascii_text("Fréchet, Ångström, garçon, Straße, 3 × 4"), "Frechet, Angstrom, garcon, Strase, 3 x 4");
  EXPECT_EQ(ascii_text("a\tb\n猫!"), "a b ?!");
  EXPECT_EQ(ascii_text("\xC3"), "?") << "cut short";
}

TEST(Utf8, CharactersThereAndBack) {
  for (char32_t c = 1; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    ASSERT_FALSE(invalid_utf8(text)) << uint32_t(c);
    ASSERT_EQ(characters(text), std::vector<char32_t>{c});
  }
}

}  // namespace
}  // namespace brume::test
