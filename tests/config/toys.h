#pragma once
// A small world to make mistakes in: one plugin kind with every type of field, and a configuration that nests it.
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/registry.h"
#include "brume/config/yaml.h"
#include "support/registry.h"

namespace brume::test {

class Gear {
 public:
  static constexpr std::string_view kind = "gear";
  virtual ~Gear() = default;
  virtual double ratio() const = 0;
};

class Plain final : public Gear {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Plain(const Options&) {}
  double ratio() const override { return 1; }
};

class Cog final : public Gear {
 public:
  enum class Finish { rough, polished };
  struct Options {
    int64_t teeth = 12;
    double eta = 0.5, rho = 7;
    bool locked = false;
    std::string name = "cog";
    std::filesystem::path file;
    std::optional<int64_t> seed;
    std::optional<double> bias = 0.25;
    std::vector<int64_t> sizes{1, 2};
    std::vector<double> weights;
    std::vector<std::string> words;
    Finish finish = Finish::rough;
    void declare(Fields& f) {
      f.field("teeth", teeth, "how many", within(1, 100));
      f.field("eta", eta, "slip", within(0, 1));
      f.field("rho", rho, "curvature", more_than(0));
      f.field("locked", locked, "cannot turn");
      f.field("name", name, "its name");
      f.field("file", file, "a drawing");
      f.field("seed", seed, "of the wear", at_least(0));
      f.field("bias", bias, "offset", within(-1, 1));
      f.field("sizes", sizes, "of the parts", at_least(1));
      f.field("weights", weights, "of the parts", more_than(0));
      f.field("words", words, "written on it");
      f.choice("finish", finish, "of the surface", {{"rough", Finish::rough}, {"polished", Finish::polished}});
      f.require(double(teeth) > eta * 10, "teeth", "must be more than ten times eta");
    }
  };
  explicit Cog(const Options& o) : o(o) {
    if (o.name == "broken") throw ConfigError("a broken cog cannot be made");
  }
  double ratio() const override { return double(o.teeth); }
  Options o;
};

/// Needs another gear, and takes any number more.
class Chain final : public Gear {
 public:
  struct Options {
    std::shared_ptr<const Gear> first, second;
    std::vector<std::shared_ptr<const Gear>> rest;
    void declare(Fields& f) {
      f.field("first", first, "the first one");
      f.field("second", second, "the second one", "plain");
      f.field("rest", rest, "more of them");
    }
  };
  explicit Chain(const Options& o) : o(o) {}
  double ratio() const override { return o.first->ratio(); }
  Options o;
};

struct Machine {
  struct Motor {
    int64_t power = 5;
    std::shared_ptr<const Gear> gear;
    void declare(Fields& f) {
      f.field("power", power, "watts", at_least(0));
      f.field("gear", gear, "what it drives");
    }
  };
  struct Cooler {
    double speed = 1;
    void declare(Fields& f) { f.field("speed", speed, "turns a second", at_least(0)); }
  };
  Motor motor;
  std::optional<Cooler> cooler;
  int64_t steps = 50;
  std::string label;
  std::vector<std::shared_ptr<const Gear>> gears;
  void declare(Fields& f) {
    f.section("motor", motor, "what moves it");
    f.section("cooler", cooler, "what cools it");
    f.field("steps", steps, "number of steps", within(1, 1000));
    f.field("label", label, "on the box");
    f.field("gears", gears, "spare ones");
  }
};

inline const Registry& toys() {
  static const Registry registry = [] {
    Registry r;
    r.add<Gear, Plain>("plain", "a gear without parameters");
    r.add<Gear, Cog>("cog", "a gear with all of them");
    r.add<Gear, Chain>("chain", "a gear of gears");
    return r;
  }();
  return registry;
}

struct Read {
  Machine machine;
  Value resolved;
};
inline Read read(const Value& root) {
  Read r;
  r.resolved = read_config(toys(), root, r.machine);
  return r;
}
inline Read read(const std::string& yaml) { return read(parse_yaml(yaml, "x.yaml")); }

/// All that is said against this text.
inline std::string mistakes(const std::string& yaml) {
  return error_of([&] { read(yaml); });
}

inline const Cog& cog(const std::shared_ptr<const Gear>& gear) { return dynamic_cast<const Cog&>(*gear); }

}  // namespace brume::test
