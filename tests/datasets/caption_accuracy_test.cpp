// The judge of captions: it agrees with pictures whose captions are true, and with none whose captions are false in one word.
#include <map>

#include "brume/core/metric.h"
#include "brume/core/seed.h"
#include "brume/data/shapes/world.h"
#include "support.h"

namespace brume::test {
namespace {

namespace world = shapes;

std::shared_ptr<const Metric> judge(const std::string& yaml = "caption_accuracy") {
  Registry registry;
  plugins::register_metric_caption_accuracy(registry);
  return create<Metric>(registry, parse_yaml(yaml, "x.yaml"));
}

std::string other_word(SplitMix& random, const std::vector<std::string>& words, const std::string& word) {
  std::string other = word;
  while (other == word) other = words[random.below(words.size())];
  return other;
}

/// Wrong in one attribute of one object, or in the relation.
shapes::Caption falsified(shapes::Caption c, SplitMix& random) {
  shapes::Described& object = c.objects[random.below(c.objects.size())];
  const uint64_t what = random.below(c.relation.empty() ? 3 : 4);
  if (what == 0) object.colour = other_word(random, {"red", "green", "blue", "yellow", "purple", "orange"}, object.colour);
  if (what == 1) object.form = other_word(random, {"circle", "square", "triangle", "star", "cross"}, object.form);
  if (what == 2) object.size = other_word(random, {"small", "large"}, object.size);
  if (what == 3) c.relation = other_word(random, {"left of", "right of", "above", "below"}, c.relation);
  return c;
}

double normal(SplitMix& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += random.uniform();
  return sum;
}

/// A little of every neighbour.
std::vector<float> blurred(const std::vector<float>& pixels, const ImageShape& shape) {
  std::vector<float> result;
  for (int64_t i = 0; i < shape.numel(); ++i) {
    const int64_t x = i % shape.width, y = i / shape.width % shape.height, plane = i - y * shape.width - x;
    float sum = 0, weights = 0;
    for (int64_t dy = -1; dy <= 1; ++dy)
      for (int64_t dx = -1; dx <= 1; ++dx) {
        if (y + dy < 0 || y + dy >= shape.height || x + dx < 0 || x + dx >= shape.width) continue;
        const float weight = (dy ? 0.2f : 1.0f) * (dx ? 0.2f : 1.0f);
        sum += weight * pixels[size_t(plane + (y + dy) * shape.width + x + dx)], weights += weight;
      }
    result.push_back(sum / weights);
  }
  return result;
}

struct Rates {
  int images = 0, right = 0, wrong = 0;
};

Rates rates(const std::string& options, int64_t side, int count, double sigma, bool blur) {
  const Opened set("{type: shapes, " + options + "}", {3, side, side});
  const auto metric = judge();
  SplitMix random(3);
  Rates r;
  for (int i = 0; i < count; ++i, ++r.images) {
    Picture p = set.read(i);
    if (blur) p.pixels = blurred(p.pixels, set.shape);
    for (float& v : p.pixels) v += float(sigma * normal(random));
    const Verdict yes = metric->judge(p.pixels, set.shape, {.label = -1, .caption = p.caption});
    const std::string lie = shapes::text_of(falsified(shapes::read_caption(p.caption), random));
    r.right += yes.right;
    r.wrong += !metric->judge(p.pixels, set.shape, {.label = -1, .caption = lie}).right;
  }
  return r;
}

constexpr const char* every_word =
    ", forms: [circle, square, triangle, star, cross, ring, heart, moon], colours: [red, green, blue, yellow, purple, orange, pink, cyan], "
    "backgrounds: [dark, light, gradient, noisy]";

TEST(CaptionAccuracy, AgreesWithTrueCaptionsAndNotWithFalseOnes) {
  for (const int64_t side : {32, 64})
    for (const int objects : {1, 2})
      for (const bool disturbed : {false, true}) {
        const std::string options = "objects: [" + std::to_string(objects) + "]";
        const Rates r = rates(options, side, 250, disturbed ? 0.05 : 0, disturbed);
        EXPECT_GE(r.right, 0.99 * r.images) << side << " " << objects << " " << disturbed;
        EXPECT_GE(r.wrong, 0.99 * r.images) << side << " " << objects << " " << disturbed;
      }
}

TEST(CaptionAccuracy, KnowsEveryWord) {
  for (const int objects : {1, 2}) {
    const Rates r = rates("objects: [" + std::to_string(objects) + "]" + every_word, 32, 250, 0, false);
    EXPECT_GE(r.right, 0.99 * r.images) << objects;
  }
}

TEST(CaptionAccuracy, SaysWhatIsWrong) {
  const Opened set("{type: shapes, objects: [2], caption: short}", {3, 32, 32});
  const auto metric = judge();
  const Picture p = set.read(0);
  const shapes::Caption truth = shapes::read_caption(p.caption);
  const auto wrong_parts = [&](const shapes::Caption& c) {
    const Verdict v = metric->judge(p.pixels, set.shape, {.label = -1, .caption = shapes::text_of(c)});
    EXPECT_EQ(v.group, "two objects");
    std::string wrong;
    for (const auto& [part, right] : v.parts)
      if (!right) wrong += part + " ";
    EXPECT_EQ(v.right, wrong.empty());
    return wrong;
  };
  EXPECT_EQ(wrong_parts(truth), "");
  shapes::Caption c = truth;
  c.objects[1].colour = c.objects[1].colour == "pink" ? "cyan" : "pink";
  EXPECT_EQ(wrong_parts(c), "colour ");
  c = truth;
  c.objects[0].size = c.objects[0].size == "small" ? "large" : "small";
  EXPECT_EQ(wrong_parts(c), "size ");
  c = truth;
  c.objects[0].form = "heart";
  EXPECT_EQ(wrong_parts(c), "form ");
  c = truth;
  c.relation = truth.relation == "above" ? "below" : "above";
  EXPECT_EQ(wrong_parts(c), "relation ");
  const Verdict seen = metric->judge(p.pixels, set.shape, {.label = -1, .caption = p.caption});
  EXPECT_TRUE(seen.seen.starts_with(p.caption + " on a ")) << seen.seen;
  const Verdict one = metric->judge(p.pixels, set.shape, {.label = -1, .caption = "a small red circle"});
  EXPECT_FALSE(one.right);
  EXPECT_EQ(one.group, "one object");
}

TEST(CaptionAccuracy, WhatIsNoPictureOfThisWorldIsNotRight) {
  const ImageShape shape{3, 32, 32};
  const auto metric = judge();
  const Annotation asked{.label = -1, .caption = "a small red circle"};
  EXPECT_EQ(metric->judge(std::vector<float>(3072, -0.8f), shape, asked).seen, "nothing");
  std::vector<float> broken(3072, std::nanf(""));
  EXPECT_FALSE(metric->judge(broken, shape, asked).right);
  SplitMix random(9);
  for (float& v : broken) v = float(normal(random));
  EXPECT_FALSE(metric->judge(broken, shape, asked).right);
}

TEST(CaptionAccuracy, GreyPicturesHaveNoColours) {
  const Opened set("{type: shapes, objects: [1, 2]}", {1, 32, 32});
  int right = 0;
  for (int i = 0; i < 200; ++i) {
    const Picture p = set.read(i);
    right += judge()->judge(p.pixels, set.shape, {.label = -1, .caption = p.caption}).right;
  }
  EXPECT_GE(right, 198);
}

TEST(CaptionAccuracy, Errors) {
  const std::vector<float> pixels(3072);
  const auto error = [&](const std::string& caption) {
    return error_of([&] { judge()->judge(pixels, {3, 32, 32}, {.label = -1, .caption = caption}); });
  };
  EXPECT_EQ(error("a medium red circle"), "caption 'a medium red circle': 'medium' is none of the metric's 'sizes'");
  EXPECT_EQ(error("a small rde circle"), "caption 'a small rde circle': 'rde' is not a colour or a form; did you mean 'red'?");
  EXPECT_EQ(error_of([] { judge("{type: caption_accuracy, sizes: [smal]}"); }),
            "x.yaml:1:33: metric: sizes: unknown word 'smal'; did you mean 'small'?");
}

}  // namespace
}  // namespace brume::test
