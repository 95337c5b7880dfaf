// Drawing: what is drawn is at the requested place, and the file holds it.
#include "brume/image/canvas.h"

#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "support/tempdir.h"

namespace brume {
namespace {

Color at(const Image& image, int64_t x, int64_t y) {
  const uint8_t* pixel = image.row(y) + 3 * x;
  return color_of_bytes(pixel[0], pixel[1], pixel[2]);
}
bool is_white(Color c) { return c.red == 1 && c.green == 1 && c.blue == 1; }
bool is_red(Color c) { return c.red == 1 && c.green == 0 && c.blue == 0; }

constexpr Color red{1, 0, 0};

TEST(Canvas, BeginsWhite) {
  const Image image = Canvas(20, 30).image();
  EXPECT_EQ(image, Image(20, 30, 3, 255));
}

TEST(Canvas, LinesLieBetweenTheirPoints) {
  Canvas canvas(40, 60);
  canvas.line({{10, 20}, {50, 20}}, {red, 4, {}});
  const Image image = canvas.image();
  EXPECT_TRUE(is_red(at(image, 30, 20)));
  EXPECT_TRUE(is_white(at(image, 30, 14)));
  EXPECT_TRUE(is_white(at(image, 4, 20)));
  EXPECT_TRUE(is_white(at(image, 56, 20)));
}

TEST(Canvas, DashesLeaveGaps) {
  Canvas canvas(40, 100);
  canvas.line({{0, 20}, {100, 20}}, {red, 2, {10, 20}});
  const Image image = canvas.image();
  for (const int64_t x : {5, 35, 65, 95}) EXPECT_TRUE(is_red(at(image, x, 20))) << x;
  for (const int64_t x : {20, 50, 80}) EXPECT_TRUE(is_white(at(image, x, 20))) << x;
}

TEST(Canvas, MarkersAreFilledAndRingsAreNot) {
  for (const Marker marker : {Marker::disc, Marker::square, Marker::triangle, Marker::diamond, Marker::ring}) {
    Canvas canvas(40, 40);
    canvas.mark(marker, {20, 20}, 8, red);
    const Image image = canvas.image();
    EXPECT_EQ(is_red(at(image, 20, 20)), marker != Marker::ring);
    EXPECT_TRUE(is_white(at(image, 32, 20)));
  }
}

TEST(Canvas, NothingLeavesTheClip) {
  Canvas canvas(40, 40);
  canvas.clip({10, 10, 20, 20});
  canvas.line({{0, 15}, {40, 15}}, {red, 4, {}});
  canvas.mark(Marker::disc, {1e9, -1e9}, 3, red);
  canvas.unclip();
  const Image image = canvas.image();
  EXPECT_TRUE(is_red(at(image, 15, 15)));
  EXPECT_TRUE(is_white(at(image, 8, 15)));
  EXPECT_TRUE(is_white(at(image, 22, 15)));
}

TEST(Canvas, TextIsAsWideAsItSays) {
  EXPECT_EQ(Canvas::text_width("", 10), 0);
  EXPECT_GT(Canvas::text_width("sigma", 10), Canvas::text_width("t", 10));
  EXPECT_LT(Canvas::text_width("10^{-3}", 10), Canvas::text_width("10-3", 10));
  Canvas canvas(40, 200);
  canvas.text("sigma", {100, 25}, 10, {}, Align::right);
  const Image image = canvas.image();
  for (int64_t y = 0; y < 40; ++y) {
    for (int64_t x = 102; x < 200; ++x) EXPECT_TRUE(is_white(at(image, x, y)));
    for (int64_t x = 0; x < int64_t(96 - Canvas::text_width("sigma", 10)); ++x) EXPECT_TRUE(is_white(at(image, x, y)));
  }
}

TEST(Canvas, TheFileHoldsTheImage) {
  const test::TempFolder folder;
  Canvas canvas(37, 61);
  canvas.text("x^{2}", {5, 20}, 10, {0, 114, 178});
  canvas.vertical_text("up", {50, 18}, 9, {});
  canvas.fill({2, 30, 12, 35}, red);
  canvas.write(folder.file("a.png"));
  EXPECT_EQ(read_image(folder.file("a.png")), canvas.image());
}

}  // namespace
}  // namespace brume
