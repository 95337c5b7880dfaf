// How stored pixels become an image: orientation, transparency and animation, the same for every format.
#include <fmt/format.h>
#include <zlib.h>

#include "brume/image/image.h"
#include "brume/image/image_codec.h"
#include "brume/image/image_header.h"
#include "support/file_builders.h"
#include "support/image_builders.h"

namespace brume {
namespace {

using namespace test::files;

Image grey_of(const Image& image) {
  Image grey(image.height, image.width, 1);
  for (size_t i = 0; i < grey.pixels.size(); ++i) grey.pixels[i] = image.pixels[3 * i];
  return grey;
}

std::string refusal(const std::function<void()>& action) { return error_of(action, TemporaryFolder()); }

TEST(Orientation, IsFollowedInEveryFormat) {
  const Image shown = two_by_three();
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (const auto& [name, bytes] : oriented_files(orientation)) {
      EXPECT_EQ(decode_image_file(bytes, name), shown) << name;
      const ImageHeader header = read_image_header(bytes, name);
      EXPECT_EQ(std::pair(header.height, header.width), std::pair(shown.height, shown.width)) << name;
    }
}

TEST(Orientation, IsFollowedInGreyFiles) {
  const Image shown = grey_of(two_by_three());
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (const int bits : {8, 16}) {
      const Samples s = samples_of(stored_for(shown, orientation), bits, false);
      EXPECT_EQ(decode_image_file(png_of(s, png_chunk("eXIf", exif(orientation, true))), "png", 1), shown) << orientation;
      EXPECT_EQ(decode_image_file(tiff_of(s, orientation, true), "tiff", 1), shown) << orientation;
      const Samples alpha = samples_of(stored_for(shown, orientation), bits, true);
      EXPECT_EQ(decode_image_file(png_of(alpha, png_chunk("eXIf", exif(orientation, false))), "png", 1), shown) << orientation;
    }
}

TEST(Orientation, IsFollowedInJpeg) {
  Image shown(16, 24, 3);
  for (int64_t y = 0; y < 16; ++y)
    for (int64_t x = 0; x < 24; ++x)
      for (int64_t c = 0; c < 3; ++c) shown.row(y)[3 * x + c] = uint8_t(40 + 4 * x + (c == 1 ? 0 : 4 * y));
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string jpeg = encode_jpeg(stored_for(shown, orientation), 100);
    const std::string data = std::string("Exif\0\0", 6) + exif(orientation, orientation % 2);
    const std::string segment = "\xff\xe1" + number(data.size() + 2, 2, true) + data;
    const Image image = decode_image_file(jpeg.substr(0, 2) + segment + jpeg.substr(2), "jpeg");
    ASSERT_EQ(std::pair(image.height, image.width), std::pair(shown.height, shown.width)) << orientation;
    for (size_t i = 0; i < image.pixels.size(); ++i) ASSERT_NEAR(image.pixels[i], shown.pixels[i], 12) << orientation;
  }
}

/// Returns a text as ImageMagick writes Exif data into PNG.
std::string raw_profile(const std::string& data) {
  std::string text = fmt::format("\nexif\n{:8}\n", data.size());
  for (size_t i = 0; i < data.size(); ++i) text += fmt::format("{:02x}{}", uint8_t(data[i]), i % 36 == 35 ? "\n" : "");
  return text;
}

TEST(Orientation, IsFollowedInTextsOfImageMagick) {
  const Image shown = two_by_three();
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Samples s = samples_of(stored_for(shown, orientation), 8, false);
    const std::string text = raw_profile(std::string("Exif\0\0", 6) + exif(orientation, orientation % 2 != 0)), zero(1, '\0');
    std::string packed(compressBound(text.size()), '\0');
    uLongf size = packed.size();
    compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(text.data()), text.size());
    const std::string key = "Raw profile type exif" + zero;
    EXPECT_EQ(decode_image_file(png_of(s, png_chunk("tEXt", key + text)), "png"), shown) << orientation;
    EXPECT_EQ(decode_image_file(png_of(s, png_chunk("zTXt", key + zero + packed.substr(0, size))), "png"), shown) << orientation;
  }
  const Samples s = samples_of(shown, 8, false);
  for (const std::string& text : {std::string(), std::string("\nexif\n4\nzz00"), std::string("\nexif"), std::string("\nexif\n8\n4")})
    EXPECT_EQ(decode_image_file(png_of(s, png_chunk("tEXt", std::string("Raw profile type exif\0", 22) + text)), "png"), shown) << text;
}

/// Returns an XMP packet that has the orientation as an attribute or as an element.
std::string xmp_packet(int orientation, bool attribute) {
  const std::string one = attribute ? fmt::format(" tiff:Orientation=\"{}\"/>", orientation)
                                    : fmt::format("><tiff:Orientation>{}</tiff:Orientation></rdf:Description>", orientation);
  return "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF><rdf:Description xmlns:tiff=\"http://ns.adobe.com/tiff/1.0/\"" + one +
         "</rdf:RDF></x:xmpmeta>";
}

TEST(Orientation, IsFollowedInXmpWithoutExif) {
  const Image shown = two_by_three();
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (const bool attribute : {true, false}) {
      const std::string packet = xmp_packet(orientation, attribute);
      const Samples s = samples_of(stored_for(shown, orientation), 8, false);
      const std::string text = png_chunk("iTXt", std::string("XML:com.adobe.xmp\0\0\0\0\0", 22) + packet);
      EXPECT_EQ(decode_image_file(png_of(s, text), "png"), shown) << orientation;
      const std::string webp =
          webp_file(webp_canvas(s.height, s.width, 0x04) + webp_chunk("VP8L", vp8l_of(s)) + webp_chunk("XMP ", packet));
      EXPECT_EQ(decode_image_file(webp, "webp"), shown) << orientation;
      const std::string jpeg = encode_jpeg(Image(16, 24, 3, 50), 100), data = std::string("http://ns.adobe.com/xap/1.0/\0", 29) + packet;
      const std::string segment = "\xff\xe1" + number(data.size() + 2, 2, true) + data;
      EXPECT_EQ(decode_image_file(jpeg.substr(0, 2) + segment + jpeg.substr(2), "jpeg").width, orientation >= 5 ? 16 : 24) << orientation;
    }
  const Samples s = samples_of(shown, 8, false);
  const std::string six = png_chunk("iTXt", std::string("XML:com.adobe.xmp\0\0\0\0\0", 22) + xmp_packet(6, true));
  EXPECT_EQ(decode_image_file(png_of(s, png_chunk("eXIf", exif(1, true)) + six), "png"), shown) << "Exif data come first";
  for (const char* none : {"tiff:Orientation", "tiff:Orientation=\"9\"", "tiff:Orientation=\"\"", "tiff:Orientation6"})
    EXPECT_EQ(decode_image_file(png_of(s, png_chunk("iTXt", std::string("XML:com.adobe.xmp\0\0\0\0\0", 22) + none)), "png"), shown) << none;
}

TEST(Orientation, ThatIsNoneIsUpright) {
  const Samples s = samples_of(two_by_three(), 8, false);
  for (const int orientation : {0, 9, 200}) {
    EXPECT_EQ(decode_image_file(png_of(s, png_chunk("eXIf", exif(orientation, true))), "png"), two_by_three());
    EXPECT_EQ(decode_image_file(webp_of(s, orientation), "webp"), two_by_three());
  }
  const std::string whole = exif(6, true);
  for (size_t size = 0; size < 20; ++size)  // cut before the value
    EXPECT_EQ(decode_image_file(png_of(s, png_chunk("eXIf", whole.substr(0, size))), "png"), two_by_three()) << size;
  EXPECT_EQ(decode_image_file(png_of(s, png_chunk("eXIf", std::string("Exif\0\0", 6) + whole)), "png").width, 2);
}

TEST(Transparency, OfAGreyPngIsItsKey) {
  const auto key = [](int level) { return png_chunk("tRNS", number(uint64_t(level), 2, true)); };
  const Samples eight{1, 3, 1, 8, {0, 100, 200}}, sixteen{1, 3, 1, 16, {0, 25700, 51400}};
  using Pixels = std::vector<uint8_t>;
  EXPECT_EQ(decode_image_file(png_of(eight, key(100)), "png", 1).pixels, (Pixels{0, 255, 200}));
  EXPECT_EQ(decode_image_file(png_of(eight, key(100)), "png", 3, 128).pixels, (Pixels{0, 0, 0, 128, 128, 128, 200, 200, 200}));
  EXPECT_EQ(decode_image_file(png_of(sixteen, key(25700)), "png", 1, 7).pixels, (Pixels{0, 7, 200}));
  EXPECT_EQ(decode_image_file(png_of(sixteen, key(25701)), "png", 1, 7).pixels, (Pixels{0, 100, 200}));  // as 8 bits both were 100
  for (const int bits : {1, 2, 4}) {
    // All levels, the first at the left; the key is 1.
    const int levels = 1 << bits;
    Samples packed{1, levels * bits / 8 + (levels * bits % 8 > 0), 1, 8, {}};
    for (int64_t byte = 0; byte < packed.width; ++byte) {
      int value = 0;
      for (int i = 0; i < 8 / bits; ++i) value = value << bits | int((byte * (8 / bits) + i) % levels);
      packed.values.push_back(uint16_t(value));
    }
    std::string png = png_of(packed, key(1));
    const std::string header = number(uint64_t(levels), 4, true) + number(1, 4, true) + char(bits) + std::string(4, '\0');
    png.replace(8, 25, png_chunk("IHDR", header));
    const Pixels pixels = decode_image_file(png, "png", 1, 9).pixels;
    ASSERT_EQ(pixels.size(), size_t(levels));
    for (int level = 0; level < levels; ++level)
      EXPECT_EQ(pixels[size_t(level)], level == 1 ? 9 : level * 255 / (levels - 1)) << bits << " bits";
  }
}

TEST(Transparency, IsTheSameInEveryFormat) {
  const Image image = two_by_three();
  const auto alpha = [](int64_t, int64_t x) { return x == 0 ? 128 : 255; };
  for (const uint8_t background : {0, 255}) {
    Image wanted = image;
    for (int64_t y = 0; y < 2; ++y)
      for (int64_t c = 0; c < 3; ++c) wanted.row(y)[c] = uint8_t((wanted.row(y)[c] * 128 + background * 127 + 127) / 255);
    for (const int bits : {8, 16}) {
      const Samples s = samples_of(image, bits, true, alpha);
      EXPECT_EQ(decode_image_file(png_of(s), "png", 3, background), wanted) << bits;
      const Image straight = decode_image_file(tiff_of(s, 1, false), "tiff", 3, background);
      for (size_t i = 0; i < wanted.pixels.size(); ++i) EXPECT_NEAR(straight.pixels[i], wanted.pixels[i], 1) << bits;
      Samples multiplied = s;
      for (size_t i = 0; i < multiplied.values.size(); ++i)
        if (i % 12 < 3) multiplied.values[i] = uint16_t(uint32_t(multiplied.values[i]) * 128 / 255);
      const Image associated = decode_image_file(tiff_of(multiplied, 1, true, 1), "tiff", 3, background);
      for (size_t i = 0; i < wanted.pixels.size(); ++i) EXPECT_NEAR(associated.pixels[i], wanted.pixels[i], 1) << bits;
    }
    EXPECT_EQ(decode_image_file(webp_of(samples_of(image, 8, true, alpha), 1), "webp", 3, background), wanted);
  }
}

/// Two frames, the first at (2, 2) of a canvas of 8 by 6.
std::string animation(const Samples& first, int orientation) {
  const auto frame = [&](const Samples& s, uint64_t at) {
    return webp_chunk("ANMF", number(at / 2, 3, false) + number(at / 2, 3, false) + number(uint64_t(s.width - 1), 3, false) +
                                  number(uint64_t(s.height - 1), 3, false) + number(100, 4, false) + webp_chunk("VP8L", vp8l_of(s)));
  };
  const Samples second = samples_of(Image(8, 6, 3, 50), 8, false);
  return webp_file(webp_canvas(8, 6, 0x02 | 0x08 | 0x10) + webp_chunk("ANIM", std::string(6, '\0')) + frame(first, 2) + frame(second, 0) +
                   webp_chunk("EXIF", exif(orientation, true)));
}

TEST(AnimatedWebp, GivesItsFirstFrame) {
  const Image image = two_by_three();
  Image canvas(8, 6, 3, 77);
  for (int64_t y = 0; y < 2; ++y) std::copy_n(image.row(y), 9, canvas.row(2 + y) + 6);
  for (const bool alpha : {false, true}) {
    const std::string file = animation(samples_of(image, 8, alpha), 1);
    EXPECT_EQ(decode_image_file(file, "webp", 3, 77), canvas);
    EXPECT_EQ(read_image_header(file, "webp").height, 8);
  }
  const Image turned = decode_image_file(animation(samples_of(image, 8, false), 6), "webp", 3, 77);
  EXPECT_EQ(stored_for(turned, 6), canvas);
  EXPECT_EQ(refusal([] { decode_image_file(webp_file(webp_canvas(8, 6, 2) + webp_chunk("ANIM", std::string(6, '\0'))), "a.webp"); }),
            "a.webp: is a damaged WebP: an animation without a frame");
  EXPECT_EQ(refusal([&] { decode_image_file(animation(samples_of(Image(8, 6, 3, 1), 8, false), 1), "a.webp"); }),
            "a.webp: is a damaged WebP: the first frame of its animation does not fit");
}

TEST(SharedImages, AreUpright) {
  const auto shared = [](const std::string& name) { return shared_file("cases/images/" + name); };
  if (shared("plain.png").empty()) GTEST_SKIP() << "no cases/images (set BRUME_SHARED to where the shared data is)";
  const Image plain = read_image(shared("plain.png"));
  for (const char* name : {"exif6.png", "exif8.webp", "exif6_rgba.webp"}) EXPECT_EQ(read_image(shared(name)), plain) << name;
  EXPECT_EQ(read_image(shared("anim.webp")).width, 32);
}

}  // namespace
}  // namespace brume
