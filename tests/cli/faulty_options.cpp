// A plugin whose options cannot be read: two of one name, and one called `type`.
#include "brume/config/plugin.h"
#include "brume/core/parameterization.h"

namespace {
using namespace brume;

class Odd final : public Parameterization {
 public:
  struct Options {
    double scale = 1, again = 2;
    std::string type, word = "c";
    void declare(Fields& f) {
      f.field("scale", scale, "of the output");
      f.field("scale", again, "of the output");
      f.field("type", type, "names the plugin");
      f.choice("word", word, "one of two", {"a", "b"});
    }
  };
  explicit Odd(const Options&) {}
  double c_skip(double) const override { return 1; }
  double c_out(double) const override { return 1; }
};

}  // namespace

BRUME_PLUGIN("faulty_options") { registry.add<Parameterization, Odd>("odd", "cannot be read"); }
