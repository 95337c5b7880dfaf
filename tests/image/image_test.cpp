#include "brume/image/image.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <random>

#include "brume/image/png.h"
#include "brume/interop/inspect.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

Image noise(int64_t height, int64_t width, int64_t channels, uint32_t seed = 0) {
  std::mt19937 random(seed);
  Image image(height, width, channels);
  for (auto& pixel : image.pixels) pixel = static_cast<uint8_t>(random());
  return image;
}

/// Slow in both directions, so that JPEG keeps it almost as it is.
Image gradient(int64_t height, int64_t width) {
  Image image(height, width, 3);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      uint8_t* pixel = image.row(y) + x * 3;
      pixel[0] = static_cast<uint8_t>(255 * x / width);
      pixel[1] = static_cast<uint8_t>(255 * y / height);
      pixel[2] = 40;
    }
  }
  return image;
}

std::string big_endian(uint32_t value) { return raw(__builtin_bswap32(value)); }

std::string chunk(const std::string& type, const std::string& data) {
  const auto body = type + data;
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(static_cast<uint32_t>(crc));
}

std::string zlib(const std::string& data) {
  uLongf size = compressBound(data.size());
  std::string out(size, '\0');
  compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(data.data()), data.size());
  return out.substr(0, size);
}

/// A PNG of one row; colour types: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
std::string one_row_png(uint32_t width, char depth, char colour, const std::string& row, const std::string& before_pixels = "") {
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", big_endian(width) + big_endian(1) + depth + colour + std::string(3, '\0')) + before_pixels +
         chunk("IDAT", zlib(std::string(1, '\0') + row)) + chunk("IEND", "");
}

class ImageFile : public ::testing::Test {
 protected:
  std::string error(const std::string& bytes) const {
    return error_of([&] { read_image(folder.file("image", bytes)); }, folder);
  }
  std::vector<uint8_t> pixels(const std::string& bytes, int64_t channels = 3) const {
    return read_image(folder.file("image", bytes), channels).pixels;
  }
  TemporaryFolder folder;
};

using Pixels = std::vector<uint8_t>;

TEST_F(ImageFile, PngRoundTripsExactly) {
  for (const int64_t channels : {1, 3}) {
    const auto image = noise(17, 23, channels);
    write_png(folder.file("image.png"), image);
    EXPECT_EQ(read_image(folder.file("image.png"), channels), image);
  }
  EXPECT_EQ(folder.count(), 1u);
}

TEST_F(ImageFile, ChannelsAreRedGreenBlue) {
  EXPECT_EQ(pixels(one_row_png(2, 8, 2, "\xff\x01\x02\x03\x04\x05")), (Pixels{255, 1, 2, 3, 4, 5}));
  EXPECT_EQ(pixels(one_row_png(1, 8, 2, "\xff\x01\x01"), 1), (Pixels{77}));  // 0.299 R + 0.587 G + 0.114 B
  EXPECT_EQ(pixels(one_row_png(2, 8, 0, "\x05\x06"), 3), (Pixels{5, 5, 5, 6, 6, 6}));
  EXPECT_EQ(pixels(one_row_png(2, 8, 0, "\x05\x06"), 1), (Pixels{5, 6}));
  EXPECT_EQ(pixels("P6 2 1 255\n\xff\x01\x02\x03\x04\x05"), (Pixels{255, 1, 2, 3, 4, 5}));
}

TEST_F(ImageFile, AlphaIsCompositedOnWhite) {
  const std::string rgba("\x0a\x14\x1e\xff\x0a\x14\x1e\x80\x0a\x14\x1e\x00", 12);
  EXPECT_EQ(pixels(one_row_png(3, 8, 6, rgba)), (Pixels{10, 20, 30, 132, 137, 142, 255, 255, 255}));
  EXPECT_EQ(pixels(one_row_png(2, 8, 4, std::string("\x0a\x00\x0a\xff", 4)), 1), (Pixels{255, 10}));
  const auto palette = chunk("PLTE", std::string("\x01\x02\x03\x04\x05\x06", 6)) + chunk("tRNS", std::string("\x00\xff", 2));
  EXPECT_EQ(pixels(one_row_png(2, 8, 3, std::string("\x00\x01", 2), palette)), (Pixels{255, 255, 255, 4, 5, 6}));
}

TEST_F(ImageFile, SixteenBitsAreScaledToEight) {
  EXPECT_EQ(pixels(one_row_png(4, 16, 0, std::string("\x00\x00\xff\xff\x01\x01\x80\x80", 8)), 1), (Pixels{0, 255, 1, 128}));
  EXPECT_EQ(pixels(one_row_png(1, 16, 2, "\xff\xff\x80\x80\x01\x01")), (Pixels{255, 128, 1}));
}

TEST_F(ImageFile, TruncatedPngIsRefused) {
  write_png(folder.file("whole.png"), noise(16, 16, 3));
  const auto whole = content_of(folder.file("whole.png"));
  EXPECT_EQ(error(whole.substr(0, whole.size() - 12)), "image: is a truncated PNG: its end (IEND) is missing");
  EXPECT_EQ(error(whole.substr(0, whole.size() - 13)), "image: is a truncated PNG: 1 bytes of its 'IDAT' chunk are missing");
  for (size_t size = 8; size < whole.size(); ++size) EXPECT_NE(error(whole.substr(0, size)).find("truncated PNG"), std::string::npos);
  EXPECT_EQ(error(""), "image: is empty");
  EXPECT_EQ(error(whole + "trailing bytes do no harm"), "no error");
  auto damaged = whole;
  damaged[damaged.size() - 30] ^= 1;
  EXPECT_EQ(error(damaged), "image: is a damaged PNG: the checksum of its 'IDAT' chunk at byte 33 is wrong");
  EXPECT_EQ(error(one_row_png(9, 8, 0, "\x05\x06")), "image: is a damaged image: it cannot be decoded");  // seven pixels short
}

// A JPEG of 8 x 8 mid-grey pixels, as small as they get: quantization 1, two Huffman codes, one block whose coefficients are all zero.
std::string small_jpeg(const std::string& exif = "") {
  const auto huffman = [](char id) { return std::string("\xff\xc4\x00\x14", 4) + id + "\x01" + std::string(16, '\0'); };
  return "\xff\xd8" + exif + std::string("\xff\xdb\x00\x43\x00", 5) + std::string(64, '\1') +
         std::string("\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00", 13) + huffman(0) + huffman(0x10) +
         std::string("\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00", 10) + "\x3f" + "\xff\xd9";
}

TEST_F(ImageFile, TruncatedJpegIsRefused) {
  const auto whole = small_jpeg();
  EXPECT_EQ(pixels(whole, 1), Pixels(64, 128));
  for (size_t size = 3; size < whole.size(); ++size) {
    EXPECT_EQ(error(whole.substr(0, size)), "image: is a truncated JPEG: its end (EOI) is missing") << size;
  }
  // The end of a preview image inside a segment is not the end of the file.
  const auto preview = std::string("\xff\xe1\x00\x08", 4) + "ab\xff\xd9" + "cd";
  EXPECT_EQ(error(small_jpeg(preview)), "no error");
  const auto cut = small_jpeg(preview);
  EXPECT_EQ(error(cut.substr(0, cut.size() - 2)), "image: is a truncated JPEG: its end (EOI) is missing");
}

TEST_F(ImageFile, JpegOrientationIsHonoured) {
  // 8 x 16: the second block is lighter (DC difference of one code bit); turned upright it is 16 x 8.
  const auto exif = [](char orientation) {
    return std::string(
               "\xff\xe1\x00\x22"
               "Exif\0\0"
               "MM\0\x2a\0\0\0\x08"
               "\0\x01"
               "\x01\x12\0\x03\0\0\0\x01\0",
               29) +
           orientation +
           std::string(
               "\0\0"
               "\0\0\0\0",
               6);
  };
  auto wide = small_jpeg();
  const auto turned = [&](char orientation) {
    auto jpeg = small_jpeg(exif(orientation));
    jpeg[jpeg.find("\xff\xc0") + 8] = 16;  // width; the one byte of data holds codes for two empty blocks
    return read_image(folder.file("image", jpeg));
  };
  EXPECT_EQ(turned(1).width, 16);
  EXPECT_EQ(turned(1).height, 8);
  EXPECT_EQ(turned(6).width, 8);
  EXPECT_EQ(turned(6).height, 16);
}

TEST_F(ImageFile, OtherFilesAreRefusedByName) {
  EXPECT_EQ(error("GIF89a"), "image: is no image brume reads (readable: PNG, JPEG, WebP, BMP, TIFF, PNM)");
  EXPECT_EQ(error("BMxx"), "image: is a damaged image: it cannot be decoded");
  EXPECT_EQ(error(std::string("RIFF\x64\0\0\0WEBPVP8 ", 16)), "image: is a truncated WebP: 92 bytes are missing");
  EXPECT_EQ(error_of([&] { read_image(folder.file("absent.png")); }, folder), "absent.png: cannot be opened: No such file or directory");
  EXPECT_EQ(error_of([&] { read_image(folder.path() + "/."); }, folder), ".: is a directory, not a file");
}

TEST_F(ImageFile, TextRoundTrips) {
  const std::map<std::string, std::string> text{{"seed", "7"},
                                                {"prompt", "Grüße, 名前"},
                                                {"config", "model:\n  noise: cosine\n"},
                                                {"empty", ""},
                                                {std::string(79, 'k'), "longest key"}};
  const auto path = folder.file("image.png");
  const auto image = noise(4, 4, 3);
  write_png(path, image, text);
  EXPECT_EQ(read_png_text(path), text);
  EXPECT_EQ(read_image(path), image);
  const auto bytes = content_of(path);
  EXPECT_LT(bytes.find("tEXtseed"), bytes.find("IDAT"));  // programs that stop at the pixels find it
  for (const auto& key : {std::string(), std::string(80, 'k'), std::string("é"), std::string(" a"), std::string("a ")}) {
    EXPECT_EQ(error_of(
                  [&] {
                    write_png(path, image, {{key, ""}});
                  },
                  folder),
              "image.png: cannot be written: '" + key + "' is no key for a PNG text (1 to 79 ASCII characters)");
  }
  EXPECT_EQ(error_of(
                [&] {
                  write_png(path, image, {{"key", std::string("a\0b", 3)}});
                },
                folder),
            "image.png: cannot be written: the text 'key' holds a zero byte");
  EXPECT_EQ(read_png_text(path), text);  // a failure leaves the previous file
}

TEST_F(ImageFile, CompressedAndLatinTextIsRead) {
  const auto text = chunk("zTXt", std::string("z\0\0", 3) + zlib("compressed \xe9")) + chunk("tEXt", std::string("l\0", 2) + "caf\xe9") +
                    chunk("iTXt", std::string("i\0\1\0en\0k\0", 9) + zlib("é"));
  const auto path = folder.file("image", one_row_png(1, 8, 0, "\x05", text));
  EXPECT_EQ(read_png_text(path), (std::map<std::string, std::string>{{"i", "é"}, {"l", "café"}, {"z", "compressed é"}}));
  EXPECT_EQ(inspect(path), path + ": PNG image, 1x1 (width x height)\n  i = é\n  l = café\n  z = compressed é\n");
}

TEST_F(ImageFile, CompressedTextsHaveRoomForAll) {
  const std::string half = zlib(std::string(size_t{40} << 20, 'a'));  // 40 kB in the file
  const auto text = [&](const char* key) { return chunk("zTXt", key + std::string("\0\0", 2) + half); };
  EXPECT_EQ(read_png_text(folder.file("one", one_row_png(1, 8, 0, "\x05", text("a")))).at("a").size(), size_t{40} << 20);
  const auto path = folder.file("both", one_row_png(1, 8, 0, "\x05", text("a") + text("b")));
  EXPECT_EQ(error_of([&] { read_png_text(path); }, folder), "both: has compressed texts of more than 67108864 bytes");
}

TEST_F(ImageFile, ApngHoldsEveryFrame) {
  const std::vector<Image> frames{noise(5, 7, 3, 1), noise(5, 7, 3, 2), noise(5, 7, 3, 3)};
  const auto path = folder.file("film.png");
  write_apng(path, frames, 40, {{"seed", "1"}});
  EXPECT_EQ(read_image(path), frames[0]);
  EXPECT_EQ(read_png_text(path).at("seed"), "1");
  // Take the film apart: the pixels of frame i are its fdAT chunks without their sequence number.
  const auto film = content_of(path);
  EXPECT_NE(film.find("acTL" + big_endian(3) + big_endian(0)), std::string::npos);
  uint32_t sequence = 0, shown = 0;
  for (size_t at = 8; at < film.size();) {
    uint32_t length;
    std::memcpy(&length, film.data() + at, 4);
    length = __builtin_bswap32(length);
    const auto type = film.substr(at + 4, 4), data = film.substr(at + 8, length);
    at += 12 + length;
    if (type != "fcTL" && type != "fdAT") continue;
    EXPECT_EQ(data.substr(0, 4), big_endian(sequence++));
    if (type == "fcTL") {
      EXPECT_EQ(data.substr(4), big_endian(7) + big_endian(5) + std::string(8, '\0') + std::string("\0\x28\x03\xe8\0\0", 6));
      ++shown;
    } else {
      const auto still = "\x89PNG\r\n\x1a\n" + chunk("IHDR", film.substr(16, 13)) + chunk("IDAT", data.substr(4)) + chunk("IEND", "");
      EXPECT_EQ(read_image(folder.file("still", still)), frames[shown - 1]);
    }
  }
  EXPECT_EQ(shown, 3u);
  EXPECT_THROW(write_apng(path, {frames[0], noise(5, 8, 3)}, 40), std::logic_error);
  EXPECT_THROW(write_apng(path, {}, 40), std::logic_error);
  EXPECT_THROW(write_apng(path, frames, 65536), std::logic_error);
}

TEST(Image, ResizingToTheSameSizeIsTheIdentity) {
  const auto image = noise(9, 11, 3);
  EXPECT_EQ(resize(image, 9, 11), image);
  EXPECT_EQ(enlarge(image, 1), image);
}

TEST(Image, ShrinkingAveragesAndGrowingInterpolates) {
  Image image(2, 4, 1);
  image.pixels = {0, 100, 10, 20, 200, 100, 30, 40};
  EXPECT_EQ(resize(image, 1, 2).pixels, (Pixels{100, 25}));
  EXPECT_EQ(resize(enlarge(image, 3), 2, 4), image);  // averaging equal pixels
  const Image flat(3, 3, 3, 77);
  EXPECT_EQ(resize(flat, 7, 8), Image(7, 8, 3, 77));
  EXPECT_EQ(resize(flat, 2, 8), Image(2, 8, 3, 77));  // shrinks in one direction, grows in the other
  EXPECT_EQ(resize(flat, 8, 1), Image(8, 1, 3, 77));
  const auto smooth = gradient(32, 32);
  const auto back = resize(resize(smooth, 64, 64), 32, 32);
  for (size_t i = 0; i < smooth.pixels.size(); ++i) EXPECT_NEAR(back.pixels[i], smooth.pixels[i], 3) << i;
  EXPECT_THROW(resize(flat, 0, 3), std::logic_error);
}

TEST(Image, Flips) {
  Image image(3, 4, 1);
  image.pixels = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  EXPECT_EQ(flip_horizontal(image).row(0)[0], 3);
  EXPECT_EQ(flip_horizontal(image).row(2)[3], 8);
  const auto colour = noise(5, 6, 3);
  EXPECT_EQ(flip_horizontal(flip_horizontal(colour)), colour);
  EXPECT_NE(flip_horizontal(colour), colour);
  EXPECT_EQ(flip_horizontal(colour).row(1)[2], colour.row(1)[17]);  // channels stay in order
}

TEST(Image, TensorsRoundTripExactly) {
  for (const int64_t channels : {1, 3}) {
    Image image(16, 16, channels);
    for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i);
    const auto tensor = to_tensor(image);
    EXPECT_EQ(tensor.sizes().vec(), (std::vector<int64_t>{channels, 16, 16}));
    EXPECT_EQ(tensor.min().item<float>(), -1.0f);
    EXPECT_EQ(tensor.max().item<float>(), 1.0f);
    EXPECT_EQ(to_image(tensor), image);
    EXPECT_EQ(to_image(tensor.to(at::kDouble)), image);
    EXPECT_EQ(to_image(tensor.transpose(1, 2).contiguous().transpose(1, 2)), image);  // any strides
  }
  Image pixel(1, 1, 3);
  pixel.pixels = {255, 0, 51};
  EXPECT_EQ(to_tensor(pixel)[0].item<float>(), 1.0f);
  EXPECT_EQ(to_tensor(pixel)[1].item<float>(), -1.0f);
  EXPECT_FLOAT_EQ(to_tensor(pixel)[2].item<float>(), -0.6f);
}

TEST(Image, TensorsAreClampedAndRounded) {
  const auto value = [](double x) { return to_image(at::full({1, 1, 1}, x, at::kDouble)).pixels[0]; };
  EXPECT_EQ(value(-1e30), 0);
  EXPECT_EQ(value(-1.001), 0);
  EXPECT_EQ(value(1.001), 255);
  EXPECT_EQ(value(std::numeric_limits<double>::infinity()), 255);
  EXPECT_EQ(value(-std::numeric_limits<double>::infinity()), 0);
  EXPECT_EQ(value(std::numeric_limits<double>::quiet_NaN()), 0);
  EXPECT_EQ(value(100.49 / 127.5 - 1), 100);
  EXPECT_EQ(value(100.51 / 127.5 - 1), 101);
  EXPECT_THROW(to_image(at::zeros({2, 4, 4})), std::logic_error);
  EXPECT_THROW(to_image(at::zeros({1, 3, 4, 4})), std::logic_error);
  EXPECT_THROW(to_image(at::zeros({3, 4, 4}, at::kByte)), std::logic_error);
}

TEST(Image, GridsHoldTheirImages) {
  std::vector<Image> images;
  for (uint8_t i = 0; i < 5; ++i) images.emplace_back(3, 4, 1, i);
  const auto sheet = grid(images, 3, 1);
  EXPECT_EQ(sheet.height, 1 + 2 * 4);
  EXPECT_EQ(sheet.width, 1 + 3 * 5);
  EXPECT_EQ(sheet.row(0)[0], 255);
  EXPECT_EQ(sheet.row(1)[1], 0);
  EXPECT_EQ(sheet.row(3)[4 + 5], 1);
  EXPECT_EQ(sheet.row(5)[1], 3);
  EXPECT_EQ(sheet.row(5)[6], 4);
  EXPECT_EQ(sheet.row(5)[11], 255);  // no sixth image
  const auto image = noise(3, 3, 3);
  EXPECT_EQ(grid({image}, 8, 0), image);
  EXPECT_THROW(grid({}, 3), std::logic_error);
  EXPECT_THROW(grid({image, noise(3, 4, 3)}, 3), std::logic_error);
}

TEST(Image, LongLabelsAreBroken) {
  const auto lines = broken_text("a small red circle left of a large blue square", 128, 4);
  ASSERT_GT(lines.size(), 1u);
  std::string joined;
  for (const auto& line : lines) joined += (joined.empty() ? "" : " ") + line;
  EXPECT_EQ(joined, "a small red circle left of a large blue square");
  EXPECT_EQ(broken_text("a small red circle left of a large blue square", 64, 2).size(), 2u);
  EXPECT_EQ(broken_text("", 64, 2), std::vector<std::string>{""});
  const auto image = noise(28, 28, 1);
  const auto sheet = labelled_grid({image, image}, 2, {"", "a small red circle left of a large blue square"});
  EXPECT_EQ(sheet.width, 2 + 2 * (5 * 28 + 2)) << "at least 128 pixels a tile";
  EXPECT_GT(sheet.height, labelled_grid({image, image}, 2, {"", "x"}).height * 5 / 3);
}

TEST(Image, LabelsStandAboveLegibleTiles) {
  const auto image = noise(28, 28, 1);
  const auto blank = labelled_grid({image, image}, 2, {});
  EXPECT_EQ(blank.width, 2 + 2 * (3 * 28 + 2));  // enlarged three times
  const auto labelled = labelled_grid({image, image}, 2, {"", "ankle boot"});
  EXPECT_EQ(labelled.height, blank.height);
  const auto text_height = blank.height - 3 * 28 - 4;
  EXPECT_GT(text_height, 8);
  int64_t ink_left = 0, ink_right = 0;
  for (int64_t y = 0; y < labelled.height; ++y) {
    for (int64_t x = 0; x < labelled.width; ++x) {
      if (labelled.row(y)[x] == blank.row(y)[x]) continue;
      EXPECT_GE(x, 2 + 84 + 2) << "text leaves its tile";
      EXPECT_LT(x, blank.width - 2) << "text leaves its tile";
      EXPECT_LT(y, 2 + text_height) << "text covers the image";
      ++(x < 2 + 84 ? ink_left : ink_right);
    }
  }
  EXPECT_EQ(ink_left, 0);
  EXPECT_GT(ink_right, 100);
  EXPECT_EQ(text_line("Grüße", 200), text_line("Gruse", 200));  // the font has ASCII only
  EXPECT_EQ(text_line("Gr猫e", 200), text_line("Gr?e", 200));
  EXPECT_EQ(text_line("", 50, 1).channels, 1);
  EXPECT_THROW(labelled_grid({image}, 1, {"a", "b"}), std::logic_error);
}

}  // namespace
}  // namespace brume
