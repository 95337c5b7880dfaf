// The procedural data set: its images are a function of (seed, index), look the same at every resolution, and say what they show.
#include <algorithm>
#include <map>
#include <numbers>
#include <set>

#include "brume/data/shapes/world.h"
#include "support.h"

namespace brume::test {
namespace {

constexpr ImageShape rgb{3, 32, 32};
constexpr const char* all_forms = "forms: [circle, square, triangle, star, cross, ring, heart, moon]";

TEST(Shapes, IsEndlessAndDefaultsToFiveForms) {
  const Opened set("shapes", rgb);
  EXPECT_EQ(set.data->size(), 0);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"circle", "square", "triangle", "star", "cross"}));
  EXPECT_NE(set.read(int64_t{1} << 62), set.read((int64_t{1} << 62) + 1));
}

TEST(Shapes, ImageIsAFunctionOfSeedAndIndex) {
  const Opened a("{type: shapes, seed: 7}", rgb), b("{type: shapes, seed: 7}", rgb), c("{type: shapes, seed: 8}", rgb);
  std::vector<Picture> forward, backward;
  for (int i = 0; i < 100; ++i) forward.push_back(a.read(i));
  for (int i = 99; i >= 0; --i) backward.push_back(b.read(i, 1234));
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  for (int i = 0; i < 100; ++i) EXPECT_NE(forward[static_cast<size_t>(i)].pixels, c.read(i).pixels);
}

TEST(Shapes, SeedsAndIndicesDoNotShareImages) {
  std::set<std::vector<float>> seen;
  for (int seed = 0; seed < 20; ++seed) {
    const Opened set("{type: shapes, seed: " + std::to_string(seed) + "}", rgb);
    for (int i = 0; i < 20; ++i) seen.insert(set.read(i).pixels);
  }
  EXPECT_EQ(seen.size(), 400u);
}

TEST(Shapes, EightThreadsReadWhatOneReads) { expect_same_on_8_threads(Opened("shapes", rgb), 200); }

TEST(Shapes, ValuesAreThoseOfAnEightBitImage) {
  for (const ImageShape shape : {rgb, ImageShape{1, 28, 28}, ImageShape{3, 16, 48}, ImageShape{1, 5, 3}}) {
    const Opened set("{type: shapes, backgrounds: [dark, light, gradient, noisy]}", shape);
    for (int i = 0; i < 50; ++i)
      for (const float v : set.read(i).pixels) {
        ASSERT_TRUE(v >= -1 && v <= 1) << v;
        const float level = (v + 1) * 127.5f;
        ASSERT_NEAR(level, std::round(level), 1e-4);
      }
  }
}

TEST(Shapes, LabelsAreBalanced) {
  const auto count = [](const std::string& yaml, int n) {
    const Opened set(yaml, rgb);
    std::vector<int> counts(set.data->classes().size(), 0);
    for (int i = 0; i < n; ++i) ++counts.at(static_cast<size_t>(set.read(i).label));
    return counts;
  };
  // Five standard deviations of a binomial count.
  for (const int n : count("shapes", 5000)) EXPECT_NEAR(n, 1000, 141);
  for (const int n : count("{type: shapes, label: colour}", 6000)) EXPECT_NEAR(n, 1000, 144);
  for (const int n : count("{type: shapes, label: form_colour}", 6000)) EXPECT_NEAR(n, 200, 70);
}

TEST(Shapes, CaptionSaysWhatIsDrawn) {
  const char* one = "{type: shapes, forms: [ring], colours: [red], sizes: [small], backgrounds: [dark]}";
  EXPECT_EQ(Opened(one, rgb).read(3).caption, "a small red ring on a dark background");
  EXPECT_EQ(Opened(one, {1, 32, 32}).read(3).caption, "a small ring on a dark background");
}

TEST(Shapes, LabelAndCaptionAgree) {
  const auto check = [](const std::string& label, auto words) {
    const Opened set("{type: shapes, label: " + label + "}", rgb);
    for (int i = 0; i < 300; ++i) {
      const Picture p = set.read(i);
      const std::string name = set.data->classes().at(static_cast<size_t>(p.label));
      EXPECT_NE(p.caption.find(words(name)), std::string::npos) << p.caption << " is labelled " << name;
    }
  };
  check("form", [](const std::string& name) { return " " + name + " on a "; });
  check("colour", [](const std::string& name) { return " " + name + " "; });
  check("form_colour", [](const std::string& name) { return " " + name + " on a "; });
  EXPECT_EQ(Opened("{type: shapes, label: form_colour, forms: [star, moon], colours: [red, pink]}", rgb).data->classes(),
            (std::vector<std::string>{"red star", "pink star", "red moon", "pink moon"}));
}

// A picture does not depend on its resolution, so its average over blocks of 8x8 pixels is what anti-aliasing should give.
TEST(Shapes, AntiAliasingIsAnAverageOverThePixel) {
  const std::string yaml = std::string("{type: shapes, ") + all_forms + ", backgrounds: [dark, light, gradient]}";
  const ImageShape large{3, 256, 256};
  const Opened small_set(yaml, rgb), large_set(yaml, large);
  for (int i = 0; i < 100; ++i) {
    const Picture s = small_set.read(i), l = large_set.read(i);
    ASSERT_EQ(s.caption, l.caption);
    double worst = 0, total = 0;
    for (int64_t y = 0; y < 32; ++y)
      for (int64_t x = 0; x < 32; ++x) {
        double sum = 0;
        for (int64_t k = 0; k < 64; ++k) sum += static_cast<double>(l.value(large, 0, 8 * y + k / 8, 8 * x + k % 8));
        const double difference = std::abs(sum / 64 - static_cast<double>(s.value(rgb, 0, y, x)));
        worst = std::max(worst, difference);
        total += difference;
      }
    EXPECT_LT(worst, 90) << s.caption;  // at a tip or a notch, at which the distance alone does not give the area
    EXPECT_LT(total / 1024, 1) << s.caption;
  }
}

TEST(Shapes, CircleHasTheAreaOfACircle) {
  const ImageShape grey{1, 128, 128};
  const Opened set("{type: shapes, forms: [circle], sizes: [large], backgrounds: [dark], position: 0}", grey);
  for (int i = 0; i < 20; ++i) {
    const Picture p = set.read(i);
    const double ground = static_cast<double>(p.value(grey, 0, 0, 0)), form = static_cast<double>(p.value(grey, 0, 64, 64));
    double area = 0, across = 0;
    for (int64_t y = 0; y < 128; ++y)
      for (int64_t x = 0; x < 128; ++x) area += (static_cast<double>(p.value(grey, 0, y, x)) - ground) / (form - ground);
    for (int64_t x = 0; x < 128; ++x) across += (static_cast<double>(p.value(grey, 0, 64, x)) - ground) / (form - ground);
    EXPECT_NEAR(area / (across * across * std::numbers::pi / 4), 1, 0.02);
  }
}

TEST(Shapes, FormsStayInsideTheImage) {
  const std::string yaml = std::string("{type: shapes, position: 1, rotation: 180, backgrounds: [dark], ") + all_forms + "}";
  for (const ImageShape shape : {ImageShape{3, 256, 256}, ImageShape{3, 192, 512}}) {
    const Opened set(yaml, shape);
    for (int i = 0; i < 100; ++i) {
      const Picture p = set.read(i);
      for (int64_t c = 0; c < 3; ++c)
        for (int64_t y = 0; y < shape.height; ++y)
          for (int64_t x = 0; x < shape.width; ++x)
            if (y == 0 || x == 0 || y == shape.height - 1 || x == shape.width - 1) {
              ASSERT_LE(p.value(shape, c, y, x), 56) << p.caption << " " << i;  // (0.18 + 0.04) * 255
            }
    }
  }
}

TEST(Shapes, FormsCanBeToldApart) {
  std::map<std::string, std::vector<float>> drawn;
  for (const std::string form : {"circle", "square", "triangle", "star", "cross", "ring", "heart", "moon"})
    drawn[form] =
        Opened("{type: shapes, position: 0, rotation: 0, sizes: [large], backgrounds: [dark], forms: [" + form + "]}", {1, 32, 32})
            .read(4)
            .pixels;
  for (const auto& [a, first] : drawn)
    for (const auto& [b, second] : drawn) {
      double difference = 0;
      for (size_t i = 0; i < first.size(); ++i) difference += std::abs(first[i] - second[i]) / 2;
      if (a != b) {
        EXPECT_GT(difference, 0.05 * 1024) << a << " and " << b;
      }
    }
}

/// FNV-1a over the bytes of 200 images, their captions and labels.
uint64_t fingerprint(const std::string& yaml, const ImageShape& shape) {
  const Opened set(yaml, shape);
  uint64_t hash = 1469598103934665603u;
  const auto add = [&](long byte) { hash = (hash ^ static_cast<uint8_t>(byte)) * 1099511628211u; };
  for (int i = 0; i < 200; ++i) {
    const Picture p = set.read(i);
    for (const float v : p.pixels) add(std::lround((v + 1) * 127.5f));
    for (const char c : p.caption) add(c);
    add(static_cast<long>(p.label));
  }
  return hash;
}

// Models are trained on these images: they stay what they are.
TEST(Shapes, OneObjectIsDrawnAsEver) {
  EXPECT_EQ(fingerprint("shapes", rgb), 0x60ccfe536528466bu);
  EXPECT_EQ(fingerprint("{type: shapes, objects: [1], caption: full, split: all}", rgb), 0x60ccfe536528466bu);
  const std::string many = std::string("{type: shapes, seed: 7, ") + all_forms +
                           ", sizes: [small, medium, large], backgrounds: [dark, light, gradient, noisy], rotation: 30}";
  EXPECT_EQ(fingerprint(many, {3, 24, 40}), 0x0994ba9492708812u);
  EXPECT_EQ(fingerprint("{type: shapes, seed: 3}", {1, 28, 28}), 0xa36d713b133f477bu);
}

TEST(Shapes, CaptionsOfTwoObjects) {
  const Opened set("{type: shapes, objects: [2], caption: short}", rgb);
  std::map<std::string, int> relations, sizes;
  for (int i = 0; i < 2000; ++i) {
    const Picture p = set.read(i);
    const shapes::Caption c = shapes::read_caption(p.caption);
    ASSERT_EQ(shapes::text_of(c), p.caption);
    ASSERT_EQ(c.objects.size(), 2u) << p.caption;
    EXPECT_TRUE(c.background.empty());
    EXPECT_TRUE(c.objects[0].form != c.objects[1].form || c.objects[0].colour != c.objects[1].colour) << p.caption;
    EXPECT_EQ(set.data->classes().at(size_t(p.label)), c.objects[0].form);
    ++relations[c.relation], ++sizes[c.objects[1].size];
  }
  ASSERT_EQ(relations.size(), 4u);
  for (const auto& [word, count] : relations) EXPECT_NEAR(count, 500, 97) << word;  // five standard deviations
  for (const auto& [word, count] : sizes) EXPECT_NEAR(count, 1000, 112) << word;
  EXPECT_NE(Opened("{type: shapes, objects: [2]}", rgb).read(0).caption.find(" background"), std::string::npos);
}

// Drawn large, the two are two connected things, each of its own: of one colour each, so their pixels can be distinguished.
TEST(Shapes, TwoObjectsStandApartAsTheirCaptionSays) {
  const std::string yaml = std::string("{type: shapes, objects: [2], position: 1, rotation: 30, backgrounds: [dark], ") + all_forms + "}";
  for (const ImageShape shape : {ImageShape{3, 128, 128}, ImageShape{3, 96, 160}}) {
    const Opened set(yaml, shape);
    for (int i = 0; i < 200; ++i) {
      const Picture p = set.read(i);
      const shapes::Caption c = shapes::read_caption(p.caption);
      if (c.objects[0].colour == c.objects[1].colour) continue;
      double top[2] = {1e9, 1e9}, left[2] = {1e9, 1e9}, bottom[2] = {-1, -1}, right[2] = {-1, -1};
      for (int64_t y = 0; y < shape.height; ++y)
        for (int64_t x = 0; x < shape.width; ++x)
          for (size_t k = 0; k < 2; ++k) {
            const Color color = shapes::find(shapes::colours, c.objects[k].colour).color;
            const double wanted[3] = {color.red, color.green, color.blue};
            bool here = true;
            for (int64_t ch = 0; ch < 3; ++ch) here = here && std::abs(double(p.value(shape, ch, y, x)) - 255 * wanted[ch]) < 1;
            if (!here) continue;
            top[k] = std::min(top[k], double(y)), bottom[k] = std::max(bottom[k], double(y));
            left[k] = std::min(left[k], double(x)), right[k] = std::max(right[k], double(x));
          }
      const std::map<std::string, double> gaps = {
          {"left of", left[1] - right[0]}, {"right of", left[0] - right[1]}, {"above", top[1] - bottom[0]}, {"below", top[0] - bottom[1]}};
      EXPECT_GT(gaps.at(c.relation), 0) << p.caption << " " << i;
      const double dx = (left[0] + right[0] - left[1] - right[1]) / 2, dy = (top[0] + bottom[0] - top[1] - bottom[1]) / 2;
      const bool horizontal = c.relation == "left of" || c.relation == "right of";
      EXPECT_GT(std::abs(horizontal ? dx : dy), 1.2 * std::abs(horizontal ? dy : dx)) << p.caption << " " << i;
    }
  }
}

TEST(Shapes, CountsAreDrawnUniformly) {
  const Opened set("{type: shapes, objects: [1, 2], caption: short, split: train}", rgb);
  int pairs = 0;
  for (int i = 0; i < 2000; ++i) pairs += shapes::read_caption(set.read(i).caption).objects.size() == 2;
  EXPECT_NEAR(pairs, 1000, 112);
  EXPECT_EQ(set.read(77), set.read(77));
}

TEST(Shapes, SplitsShareNoCaption) {
  const auto captions = [](const std::string& split, int seed) {
    const Opened set(
        "{type: shapes, objects: [1, 2], caption: short, held_out: 0.3, seed: " + std::to_string(seed) + ", split: " + split + "}",
        {3, 8, 8});
    std::set<std::string> all;
    for (int i = 0; i < 4000; ++i) all.insert(set.read(i).caption);
    return all;
  };
  const std::set<std::string> train = captions("train", 0), test = captions("test", 1), all = captions("all", 2);
  for (const std::string& c : test) EXPECT_FALSE(train.contains(c)) << c;
  const auto of_one = [](const std::set<std::string>& set) {
    return std::count_if(set.begin(), set.end(), [](const std::string& c) { return shapes::read_caption(c).objects.size() == 1; });
  };
  EXPECT_EQ(of_one(train) + of_one(test), 60);
  EXPECT_EQ(of_one(all), 60);
  int held_out = 0;
  for (const std::string& c : all) held_out += test.contains(c);
  EXPECT_GT(held_out, 0);
}

TEST(Shapes, ABackgroundDoesNotChangeTheSplit) {
  const Opened full("{type: shapes, split: test}", rgb), brief("{type: shapes, split: test, caption: short}", rgb);
  for (int i = 0; i < 100; ++i) {
    const Picture a = full.read(i), b = brief.read(i);
    EXPECT_EQ(a.pixels, b.pixels);
    EXPECT_EQ(a.caption.substr(0, a.caption.find(" on a ")), b.caption);
  }
}

TEST(Shapes, CaptionsOfTheWorldOnly) {
  const auto error = [](const std::string& text) { return error_of([&] { shapes::read_caption(text); }); };
  EXPECT_EQ(error("a small red circel"), "caption 'a small red circel': 'circel' is not a form; did you mean 'circle'?");
  EXPECT_EQ(error("a small rad circle"), "caption 'a small rad circle': 'rad' is not a colour or a form; did you mean 'red'?");
  EXPECT_EQ(error("a small red circle left of"), "caption 'a small red circle left of': ends where the article should stand (a)");
  EXPECT_EQ(error("two circles"), "caption 'two circles': 'two' is not the article; known: a");
  EXPECT_EQ(error("a small red circle on a dark ground"),
            "caption 'a small red circle on a dark ground': 'ground' is not the last word; known: background");
}

TEST(Shapes, Errors) {
  const auto error = [](const std::string& options) { return open_error("{type: shapes, " + options + "}", rgb); };
  EXPECT_EQ(error("forms: [circel]"), "x.yaml:1:23: dataset: forms: unknown word 'circel'; did you mean 'circle'?");
  EXPECT_EQ(error("colours: [red, red]"), "x.yaml:1:25: dataset: colours: 'red' is given twice");
  EXPECT_EQ(error("sizes: []"), "x.yaml:1:23: dataset: sizes: needs one word at least");
  EXPECT_EQ(error("position: 2"), "x.yaml:1:26: dataset: position = 2 is outside [0, 1]");
  EXPECT_EQ(error("objects: [3]"), "x.yaml:1:26: dataset: objects = 3 is outside [1, 2]");
  EXPECT_EQ(error("objects: [1, 1]"), "x.yaml:1:25: dataset: objects: is [1], [2] or [1, 2]");
  EXPECT_EQ(error("objects: [2], forms: [star], colours: [red]"),
            "x.yaml:1:1: dataset: two objects differ in form or colour; name more 'forms' or 'colours'");
  EXPECT_EQ(error("split: test, held_out: 0"),
            "x.yaml:1:1: dataset: no caption of one object is in the split 'test'; change held_out, or add words");
  EXPECT_EQ(error("lable: form"), "x.yaml:1:16: dataset: unknown key 'lable'; did you mean 'label'?");
  EXPECT_EQ(open_error("shapes", {4, 32, 32}), "x.yaml:1:1: dataset: shapes draws images of 1 or 3 channels, the model wants 4x32x32");
  EXPECT_EQ(open_error("{type: shapes, label: colour}", {1, 32, 32}),
            "x.yaml:1:1: dataset: the model's images (1x32x32) are grey, so the label cannot be a colour; use label: form");
}

}  // namespace
}  // namespace brume::test
