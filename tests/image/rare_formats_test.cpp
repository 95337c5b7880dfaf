// Rare kinds of image files, each built byte by byte: the right pixels, or an error that says what cannot be read.
#include <zlib.h>

#include <functional>

#include "brume/image/image.h"
#include "brume/image/image_header.h"
#include "support/file_builders.h"
#include "support/image_builders.h"

namespace brume {
namespace {

using namespace test::files;
using Pixels = std::vector<uint8_t>;

Pixels grey(const std::string& bytes, uint8_t background = 255) { return decode_image_file(bytes, "file", 1, background).pixels; }
Pixels rgb(const std::string& bytes, uint8_t background = 255) { return decode_image_file(bytes, "file", 3, background).pixels; }
std::string refusal(const std::string& bytes) {
  return error_of([&] { decode_image_file(bytes, "file"); }, TemporaryFolder());
}

TEST(GreyTiff, WithTransparency) {
  for (const bool big : {false, true})
    for (const int bits : {8, 16}) {
      const auto scaled = [&](Samples s) {
        if (bits == 16)
          for (uint16_t& v : s.values) v = uint16_t(v * 257);
        s.bits = bits;
        return s;
      };
      const Samples s = scaled({2, 2, 2, 8, {10, 255, 200, 0, 100, 51, 40, 255}});
      EXPECT_EQ(grey(tiff_of(s, 1, big), 250), (Pixels{10, 250, 220, 40})) << bits;  // 100 * 0.2 + 250 * 0.8
      EXPECT_EQ(rgb(tiff_of(s, 1, big), 0), (Pixels{10, 10, 10, 0, 0, 0, 20, 20, 20, 40, 40, 40})) << bits;
      EXPECT_EQ(grey(tiff_of(s, 1, big, 0), 250), (Pixels{10, 200, 100, 40})) << "a second sample that is no alpha";
      EXPECT_EQ(grey(tiff_of(s, 1, big, 2, {{262, 0}}), 250), (Pixels{245, 250, 231, 215})) << "0 is white";
      EXPECT_EQ(grey(tiff_of(s, 6, big), 250), (Pixels{220, 10, 40, 250})) << "lies on its side";
      const Samples multiplied = scaled({1, 2, 2, 8, {10, 255, 20, 51}});
      EXPECT_EQ(grey(tiff_of(multiplied, 1, big, 1), 250), (Pixels{10, 220})) << bits;
    }
  EXPECT_EQ(refusal(tiff_of({1, 2, 2, 8, {1, 2, 3, 4}}, 1, false, 2, {{284, 2}})),
            "file: is a grey TIFF with transparency, stored in a way that cannot be read; save it as PNG, or without transparency");
}

TEST(GreyTiff, OfDifferences) {
  // Each sample is the difference to the one of its kind before it, modulo 256.
  EXPECT_EQ(grey(tiff_of({1, 3, 2, 8, {200, 255, 60, 0, 246, 0}}, 1, false, 2, {{317, 2}})), (Pixels{200, 4, 250}));
  EXPECT_EQ(grey(tiff_of({1, 2, 2, 16, {65535, 65535, 1, 0}}, 1, true, 2, {{317, 2}})), (Pixels{255, 0}));
}

TEST(Tiff, OfNumbersThatAreNotRead) {
  const Samples sixteen{1, 1, 1, 16, {514}}, three{1, 1, 3, 16, {514, 257, 0}}, four{1, 1, 4, 16, {1, 2, 3, 4}};
  EXPECT_EQ(grey(tiff_of(sixteen, 1, false)), Pixels{2});
  EXPECT_EQ(grey(tiff_of(sixteen, 1, false, 2, {{262, 0}})), Pixels{253}) << "0 is white";
  EXPECT_EQ(refusal(tiff_of(sixteen, 1, false, 2, {{339, 2}})),
            "file: is a TIFF of signed numbers or fractions (readable: 8 and 16 bits without sign)");
  EXPECT_EQ(refusal(tiff_of(three, 1, true, 2, {{284, 2}})), "file: is a TIFF of 16 bits in planes; save it with its channels interleaved");
  EXPECT_EQ(refusal(tiff_of(four, 1, false, 2, {{262, 5}})),
            "file: is a TIFF of 16 bits that is neither grey nor RGB; save it with 8 bits, or as RGB");
}

TEST(Png, OfAPaletteWithTransparency) {
  Samples s{1, 4, 1, 8, {2, 0, 1, 2}};
  const std::string palette = png_chunk("PLTE", std::string("\x0a\x14\x1e\x28\x32\x3c\x46\x50\x5a", 9));
  std::string png = png_of(s, palette + png_chunk("tRNS", std::string("\xff\0", 2)));
  png.replace(8, 25, png_chunk("IHDR", number(4, 4, true) + number(1, 4, true) + std::string("\x08\x03\0\0\0", 5)));
  EXPECT_EQ(rgb(png, 7), (Pixels{70, 80, 90, 10, 20, 30, 7, 7, 7, 70, 80, 90}));
}

TEST(Png, OfRgbWithAKey) {
  const std::string key = number(40, 2, true) + number(50, 2, true) + number(60, 2, true);
  const Samples eight{1, 2, 3, 8, {40, 50, 60, 40, 50, 61}};
  EXPECT_EQ(rgb(png_of(eight, png_chunk("tRNS", key)), 7), (Pixels{7, 7, 7, 40, 50, 61}));
  const Samples sixteen{1, 2, 3, 16, {257, 514, 771, 257, 514, 772}};
  const std::string wide = number(257, 2, true) + number(514, 2, true) + number(771, 2, true);
  EXPECT_EQ(rgb(png_of(sixteen, png_chunk("tRNS", wide)), 7), (Pixels{7, 7, 7, 1, 2, 3}));
}

TEST(Png, OfSixteenBitsWithTransparency) {
  const Samples s{1, 2, 4, 16, {65535, 32896, 0, 65535, 65535, 65535, 65535, 0}};
  EXPECT_EQ(rgb(png_of(s), 9), (Pixels{255, 128, 0, 9, 9, 9}));
  const Samples pair{1, 2, 2, 16, {32896, 65535, 65535, 0}};
  EXPECT_EQ(grey(png_of(pair), 9), (Pixels{128, 9}));
}

/// The seven passes of an interlaced PNG (Adam7), each an image of its own.
std::string interlaced(const Samples& s) {
  constexpr int passes[7][4] = {{0, 0, 8, 8}, {0, 4, 8, 8}, {4, 0, 8, 4}, {0, 2, 4, 4}, {2, 0, 4, 2}, {0, 1, 2, 2}, {1, 0, 2, 1}};
  std::string rows;
  for (const auto& [top, left, down, right] : passes) {
    if (left >= s.width) continue;
    for (int64_t y = top; y < s.height; y += down) {
      rows += '\0';
      for (int64_t x = left; x < s.width; x += right)
        for (int64_t c = 0; c < s.channels; ++c) rows += number(s.values[size_t((y * s.width + x) * s.channels + c)], s.bits / 8, true);
    }
  }
  uLongf size = compressBound(rows.size());
  std::string packed(size, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size());
  packed.resize(size);
  const std::string header = number(uint64_t(s.width), 4, true) + number(uint64_t(s.height), 4, true) + char(s.bits) +
                             std::string(s.channels == 1 ? "\0" : "\6", 1) + std::string("\0\0\1", 3);
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

TEST(Png, ThatIsInterlaced) {
  Samples flat{9, 11, 1, 8, {}}, clear{5, 3, 4, 16, {}};
  Pixels wanted;
  for (int i = 0; i < 99; ++i) flat.values.push_back(uint16_t(2 * i)), wanted.push_back(uint8_t(2 * i));
  EXPECT_EQ(grey(interlaced(flat)), wanted);
  wanted.clear();
  for (int i = 0; i < 15; ++i)
    for (int c = 0; c < 4; ++c) {
      const bool shown = i % 2 == 0;
      clear.values.push_back(uint16_t(c < 3 ? 257 * (10 * i + c) : shown ? 65535 : 0));
      if (c < 3) wanted.push_back(uint8_t(shown ? 10 * i + c : 77));
    }
  EXPECT_EQ(rgb(interlaced(clear), 77), wanted);
}

/// Two by two pixels of 32 bits, with the masks of red, green, blue and alpha; negative heights are stored from top to bottom.
std::string bmp32(int64_t height, const std::vector<uint32_t>& pixels, uint32_t alpha_mask, uint32_t header = 108,
                  uint32_t bit_fields = 3) {
  std::string file = "BM" + number(0, 8, false) + number(14 + header, 4, false) + number(header, 4, false) + number(2, 4, false) +
                     number(uint64_t(height), 4, false) + number(1, 2, false) + number(32, 2, false) + number(bit_fields, 4, false) +
                     number(16, 4, false) + number(0, 16, false);
  if (header > 40)
    for (const uint32_t mask : {0xff0000u, 0xff00u, 0xffu, alpha_mask}) file += number(mask, 4, false);
  file.resize(14 + header, '\0');
  for (const uint32_t pixel : pixels) file += number(pixel, 4, false);
  return file;
}

TEST(Bmp, WithTransparency) {
  const std::vector<uint32_t> pixels{0xff0a141e, 0x00ffffff, 0x33646464, 0xff28323c};
  const Pixels bottom_up{55, 55, 55, 40, 50, 60, 10, 20, 30, 44, 44, 44}, top_down{10, 20, 30, 44, 44, 44, 55, 55, 55, 40, 50, 60};
  EXPECT_EQ(rgb(bmp32(2, pixels, 0xff000000), 44), bottom_up);  // 100 * 0.2 + 44 * 0.8
  EXPECT_EQ(rgb(bmp32(-2, pixels, 0xff000000, 124), 44), top_down);
  EXPECT_EQ(grey(bmp32(-2, {0xff0a0a0a, 0, 0, 0}, 0xff000000, 56), 44), (Pixels{10, 44, 44, 44}));
  for (const std::string& opaque : {bmp32(-2, pixels, 0), bmp32(-2, pixels, 0, 40, 0)})
    EXPECT_EQ(rgb(opaque, 44), (Pixels{10, 20, 30, 255, 255, 255, 100, 100, 100, 40, 50, 60})) << "a fourth byte that means nothing";
  EXPECT_EQ(refusal(bmp32(3, pixels, 0xff000000)), "file: is a truncated BMP: pixels are missing");
  EXPECT_EQ(refusal(bmp32(0, pixels, 0xff000000)), "file: is a damaged BMP: its size is 2 by 0");
}

/// A JPEG of 8 by 8 pixels of four channels, all of the level 128 but for the steps: one code, of no difference.
std::string jpeg4(bool adobe) {
  const auto segment = [](uint8_t marker, const std::string& data) {
    return std::string("\xff") + char(marker) + number(data.size() + 2, 2, true) + data;
  };
  std::string frame = std::string("\x08\0\x08\0\x08\x04", 6), scan = "\x04";
  for (char i = 1; i <= 4; ++i) frame += std::string({i, 0x11, 0}), scan += std::string({i, 0});
  std::string codes(17, '\0');
  codes[0] = '\1';  // one code of one bit: no bits follow, or the end of the block
  return "\xff\xd8" + (adobe ? segment(0xee, "Adobe" + std::string("\0\x64\0\0\0\0\0", 7)) : std::string()) +
         segment(0xdb, std::string(1, '\0') + std::string(64, '\1')) + segment(0xc0, frame) + segment(0xc4, std::string(1, '\0') + codes) +
         segment(0xc4, std::string(1, '\x10') + codes) + segment(0xda, scan + std::string("\0\x3f\0", 3)) + std::string("\0\xff\xd9", 3);
}

TEST(Jpeg, OfFourChannels) {
  // Inverted CMYK of 128 each: c and k leave a half of a half.
  for (const uint8_t pixel : rgb(jpeg4(true))) ASSERT_NEAR(pixel, 64, 1);
  EXPECT_EQ(refusal(jpeg4(false)),
            "file: is a JPEG of four channels that does not say whether they are inverted (Adobe's segment is missing); save it as RGB");
}

TEST(OtherFormats, AreNamedAsUnread) {
  for (const std::string& begin : {std::string("GIF89a"), std::string("\0\0\0\x20", 4), std::string("\xff\x0a"), std::string("II+\0", 4)})
    EXPECT_NE(refusal(begin + std::string(40, '\0')).find("is no image brume reads"), std::string::npos) << begin;
}

}  // namespace
}  // namespace brume
