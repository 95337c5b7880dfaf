// Procedural pictures of one coloured form, or of two, on a plain ground: an endless, labelled and captioned data set that needs no files.
//
// Image `index` follows from (seed, index) alone, so it is the same in any order and on any thread: the draws are splitmix64
// (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", 2014) started at a hash of the two.
// Two objects stand side by side or one above the other: they lie at least the sum of their reaches apart along the relation's axis, so
// that they never touch, and at most half of that distance across it, so that the relation is plain. They differ in form or colour.
//
// A split is of captions, not of images: a caption (without its background) is of `test` if
// splitmix64(FNV-1a(caption)) mod 1000 < 1000 held_out, and a scene that is not of the split is drawn again. So no caption of `test` is
// ever seen in `train`, whatever the seed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/fields.h"
#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/core/dataset.h"
#include "brume/core/seed.h"
#include "brume/data/shapes/world.h"
#include "brume/data/split.h"

namespace brume::plugins {
namespace {

using namespace shapes;

constexpr double pi = std::numbers::pi;

/// The draws of one image; another `attempt` draws another.
class Random {
 public:
  Random(uint64_t seed, uint64_t attempt, uint64_t index) : stream_(mix_seed(seed, attempt, index)) {}
  double uniform() { return stream_.uniform(); }
  double between(double lo, double hi) { return lo + (hi - lo) * uniform(); }
  size_t below(size_t n) { return static_cast<size_t>(uniform() * static_cast<double>(n)); }

 private:
  SplitMix stream_;
};

// ---- A scene and its picture ---------------------------------------------------------------------------------------------

struct Object {
  Placed place;
  Color color;
};

struct Scene {
  Caption caption;
  Color from, to;   // of the ground, along `direction`
  Point direction;  // of length 1, y down
  double noise;
  std::vector<Object> objects;
};

/// Values are those of an 8-bit image, as every other data set's are.
float pixel_value(double v) { return static_cast<float>(std::round(255 * std::clamp(v, 0.0, 1.0)) / 127.5 - 1); }

void render(const Scene& scene, const ImageShape& shape, Random& random, std::span<float> pixels) {
  const double width = static_cast<double>(shape.width), height = static_cast<double>(shape.height);
  const double span = width * std::abs(scene.direction.x) + height * std::abs(scene.direction.y);
  const size_t plane = static_cast<size_t>(shape.height * shape.width);
  for (size_t i = 0; i < plane; ++i) {
    const Point pixel = {static_cast<double>(i % static_cast<size_t>(shape.width)) + 0.5,
                         static_cast<double>(i / static_cast<size_t>(shape.width)) + 0.5};
    Color c = blend(scene.from, scene.to, 0.5 + dot(pixel - Point{width / 2, height / 2}, scene.direction) / span);
    if (scene.noise > 0) {
      const double n = scene.noise * random.between(-1, 1);
      c = {c.red + n, c.green + n, c.blue + n};
    }
    for (const Object& o : scene.objects) c = blend(c, o.color, coverage(o.place, pixel));
    pixels[i] = pixel_value(c.red);
    if (shape.channels == 1) continue;
    pixels[plane + i] = pixel_value(c.green);
    pixels[2 * plane + i] = pixel_value(c.blue);
  }
}

class Shapes final : public Dataset {
 public:
  enum class Label { form, colour, form_colour };
  enum class Wording { full, brief };

  struct Options {
    int64_t seed = 0;
    Label label = Label::form;
    std::vector<int64_t> objects = {1};
    double pairs = 0.5;
    std::vector<std::string> forms = {"circle", "square", "triangle", "star", "cross"};
    std::vector<std::string> colours = {"red", "green", "blue", "yellow", "purple", "orange"};
    std::vector<std::string> sizes = {"small", "large"};
    std::vector<std::string> backgrounds = {"dark", "light", "gradient"};
    double position = 0.7;
    double rotation = 12;
    Wording caption = Wording::full;
    Split split;

    void declare(Fields& f) {
      f.field("seed", seed, "image i is a function of (seed, i)");
      f.choice("label", label, "property that the classes are; of the first object, if there are two",
               {{"form", Label::form}, {"colour", Label::colour}, {"form_colour", Label::form_colour}});
      f.field("objects", objects, "possible numbers of objects per image; of two, the caption says the relation", within(1, 2));
      f.require(!objects.empty() && objects.size() <= 2 && (objects.size() < 2 || objects[0] != objects[1]), "objects",
                "is [1], [2] or [1, 2]");
      f.field("pairs", pairs, "share of the images with two objects, if `objects` allows both", within(0, 1));
      words(f, "forms", forms, names(shapes::forms));
      words(f, "colours", colours, names(shapes::colours));
      words(f, "sizes", sizes, names(shapes::sizes));
      words(f, "backgrounds", backgrounds, names(shapes::backgrounds));
      f.field("position", position, "0 = centred, 1 = anywhere in the image", within(0, 1));
      f.field("rotation", rotation, "the largest rotation to either side, in degrees", within(0, 180));
      f.choice("caption", caption, "full: '... on a dark background'; short: the background is not mentioned",
               {{"full", Wording::full}, {"short", Wording::brief}});
      split.declare(f, "of the captions, by their hash, whatever the background: no caption of test is in train");
    }

   private:
    static void words(Fields& f, std::string_view key, std::vector<std::string>& chosen, const std::vector<std::string>& known) {
      std::string doc = "drawn uniformly from these; known:";
      for (const std::string& word : known) doc += " " + word;
      f.field(key, chosen, doc);
      f.require(!chosen.empty(), key, "needs one word at least");
      for (size_t i = 0; i < chosen.size(); ++i) {
        const std::string& word = chosen[i];
        if (std::find(known.begin(), known.end(), word) == known.end())
          f.require(false, key, "unknown word '" + word + "'" + hint(word, known));
        const auto here = chosen.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find(chosen.begin(), here, word) != here) f.require(false, key, "'" + word + "' is given twice");
      }
    }
  };

  static void check(const Options& o, const Context& context) {
    const ImageShape& shape = context.shape;
    if (shape.channels != 1 && shape.channels != 3)
      throw ConfigError("shapes draws images of 1 or 3 channels, the model wants " + shape.text());
    if (shape.channels == 1 && o.label != Label::form)
      throw ConfigError("the model's images (" + shape.text() + ") are grey, so the label cannot be a colour; use label: form");
    const bool pairs = std::find(o.objects.begin(), o.objects.end(), 2) != o.objects.end();
    if (pairs && o.forms.size() == 1 && (o.colours.size() == 1 || shape.channels == 1))
      throw ConfigError("two objects differ in form or colour; name more 'forms'" +
                        std::string(shape.channels == 1 ? " (the images are grey)" : " or 'colours'"));
    for (const int64_t objects : o.objects)
      if (!any_in_split(o, objects == 2, shape.channels == 3))
        throw ConfigError("no caption of " + std::string(objects == 2 ? "two objects" : "one object") + " is in the split '" +
                          std::string(o.split.word()) + "'; change held_out, or add words");
  }

  Shapes(Options options, const Context& context) : o_(std::move(options)), shape_(context.shape) {
    if (o_.label == Label::form) classes_ = o_.forms;
    if (o_.label == Label::colour) classes_ = o_.colours;
    if (o_.label == Label::form_colour)
      for (const std::string& form : o_.forms)
        for (const std::string& colour : o_.colours) classes_.push_back(colour + " " + form);
  }

  int64_t size() const override { return 0; }
  const std::vector<std::string>& classes() const override { return classes_; }

  Annotation read(int64_t index, uint64_t /*draw*/, std::span<float> pixels) const override {
    const uint64_t seed = static_cast<uint64_t>(o_.seed), i = static_cast<uint64_t>(index);
    constexpr uint64_t stream_of_counts = 1, stream_of_attempts = 16;
    int64_t count = o_.objects[0];
    if (o_.objects.size() > 1) count = SplitMix(mix_seed(seed, stream_of_counts, i)).uniform() < 1 - o_.pairs ? 1 : 2;
    for (uint64_t attempt = 0;; ++attempt) {
      Random random(seed, attempt == 0 ? 0 : stream_of_attempts + attempt, i);
      size_t label = 0;
      Scene scene = count == 1 ? single(random, label) : pair(random, label);
      if (!in_split(o_, scene.caption)) continue;
      render(scene, shape_, random, pixels);
      if (o_.caption == Wording::brief) scene.caption.background.clear();
      return {.label = static_cast<int64_t>(label), .caption = text_of(scene.caption)};
    }
  }

 private:
  static bool in_split(const Options& o, Caption caption) {
    caption.background.clear();
    return o.split.has(text_of(caption));
  }
  static std::vector<Described> every_object(const Options& o, bool coloured) {
    std::vector<Described> all;
    for (const std::string& size : o.sizes)
      for (const std::string& form : o.forms) {
        if (!coloured) all.push_back({size, "", form});
        for (size_t c = 0; coloured && c < o.colours.size(); ++c) all.push_back({size, o.colours[c], form});
      }
    return all;
  }
  static bool any_in_split(const Options& o, bool pairs, bool coloured) {
    const std::vector<Described> objects = every_object(o, coloured);
    for (const Described& a : objects) {
      if (!pairs && in_split(o, {{a}, "", ""})) return true;
      for (size_t b = 0; pairs && b < objects.size(); ++b)
        for (const Relation& r : relations)
          if (differ(a, objects[b]) && in_split(o, {{a, objects[b]}, std::string(r.word), ""})) return true;
    }
    return false;
  }
  static bool differ(const Described& a, const Described& b) { return a.form != b.form || a.colour != b.colour; }

  size_t label_of(size_t form, size_t colour) const {
    if (o_.label == Label::form) return form;
    if (o_.label == Label::colour) return colour;
    return form * o_.colours.size() + colour;
  }

  Scene ground(Random& random) const {
    const Background& b = find(backgrounds, o_.backgrounds[random.below(o_.backgrounds.size())]);
    const double level = random.between(b.lo, b.hi), angle = random.between(0, 2 * pi), tint = 0.04;
    const Color from = {level + random.between(-tint, tint), level + random.between(-tint, tint), level + random.between(-tint, tint)};
    const Color to = {from.red + b.rise, from.green + b.rise, from.blue + b.rise};
    return {.caption = {{}, "", std::string(b.word)},
            .from = from,
            .to = to,
            .direction = {std::cos(angle), std::sin(angle)},
            .noise = b.noise,
            .objects = {}};
  }

  double smaller_side() const { return static_cast<double>(std::min(shape_.width, shape_.height)); }

  Scene single(Random& random, size_t& label) const {
    const size_t form = random.below(o_.forms.size()), colour = random.below(o_.colours.size());
    label = label_of(form, colour);
    Scene scene = ground(random);
    const Size& size = find(sizes, o_.sizes[random.below(o_.sizes.size())]);
    const double width = static_cast<double>(shape_.width), height = static_cast<double>(shape_.height);
    const double radius = random.between(size.lo, size.hi) * std::min(width, height) / 2;
    const double x = o_.position * std::max(width / 2 - radius * reach, 0.0), y = o_.position * std::max(height / 2 - radius * reach, 0.0);
    const Point centre = {width / 2 + random.between(-x, x), height / 2 + random.between(-y, y)};
    const double angle = random.between(-o_.rotation, o_.rotation) * pi / 180;
    add(scene, random, {std::string(size.word), o_.colours[colour], o_.forms[form]}, {nullptr, centre, radius, angle});
    return scene;
  }

  Scene pair(Random& random, size_t& label) const {
    Described what[2];
    size_t form = random.below(o_.forms.size()), colour = random.below(o_.colours.size());
    label = label_of(form, colour);
    what[0] = {"", o_.colours[colour], o_.forms[form]};
    do {
      form = random.below(o_.forms.size()), colour = random.below(o_.colours.size());
      what[1] = {"", o_.colours[colour], o_.forms[form]};
    } while (what[1].form == what[0].form && (shape_.channels == 1 || what[1].colour == what[0].colour));
    Scene scene = ground(random);
    const Relation& relation = relations[random.below(relations.size())];
    scene.caption.relation = relation.word;
    double radius[2];
    for (int k = 0; k < 2; ++k) {
      const Size& size = find(sizes_of_two, o_.sizes[random.below(o_.sizes.size())]);
      what[k].size = size.word;
      radius[k] = random.between(size.lo, size.hi) * smaller_side() / 2;
    }
    Point centres[2];
    place_pair(random, relation, radius, centres);
    for (int k = 0; k < 2; ++k) {
      const double angle = random.between(-o_.rotation, o_.rotation) * pi / 180;
      add(scene, random, what[k], {nullptr, centres[k], radius[k], angle});
    }
    return scene;
  }

  /// Along the relation's axis the two stand apart by what they reach or more, and wander together; across it each wanders alone.
  void place_pair(Random& random, const Relation& relation, const double (&radius)[2], Point (&centres)[2]) const {
    const bool horizontal = relation.towards.x != 0;
    const double along = static_cast<double>(horizontal ? shape_.width : shape_.height);
    const double across = static_cast<double>(horizontal ? shape_.height : shape_.width);
    const double least = reach * (radius[0] + radius[1]), slack = std::max(along - 2 * least, 0.0);
    const double apart = least + random.between(0, o_.position * slack);
    const double spare = std::max(along - least - apart, 0.0);
    const int first = relation.towards.x + relation.towards.y < 0 ? 0 : 1;  // which of the two is at the smaller coordinate
    const double start = reach * radius[first] + spare * (0.5 + o_.position * random.between(-0.5, 0.5));
    const double limit = apart / 4;  // to either side: the two differ by half of their distance at most
    for (int k = 0; k < 2; ++k) {
      const double room = std::min(limit, o_.position * std::max(across / 2 - reach * radius[k], 0.0));
      const double main = start + (k == first ? 0 : apart), other = across / 2 + random.between(-room, room);
      centres[k] = horizontal ? Point{main, other} : Point{other, main};
    }
  }

  void add(Scene& scene, Random& random, Described what, Placed place) const {
    Color color = find(colours, what.colour).color;
    if (shape_.channels == 1) {  // there the words of colours mean nothing: light on dark, or dark on light
      const double grey = scene.from.red < 0.5 ? random.between(0.85, 1) : random.between(0, 0.15);
      what.colour.clear();
      color = {grey, grey, grey};
    }
    place.form = &find(forms, what.form);
    scene.caption.objects.push_back(std::move(what));
    scene.objects.push_back({place, color});
  }

  Options o_;
  ImageShape shape_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_shapes(Registry& r) {
  r.add<Dataset, Shapes>("shapes", "coloured forms drawn on the fly: endless, with labels and captions");
}

}  // namespace brume::plugins
