// The registry, its suggestions, and what describe prints.
#include "brume/config/suggest.h"
#include "toys.h"

namespace brume::test {
namespace {

class Ring final : public Gear {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Ring(const Options&) {}
  double ratio() const override { return 2; }
};

TEST(Suggest, NearWords) {
  EXPECT_EQ(closest("ddmi", {"ddim", "ddpm", "heun"}), "ddim");
  EXPECT_EQ(closest("rhoo", {"rho", "sigma_min", "final"}), "rho");
  EXPECT_EQ(closest("dpm", {"ddim", "ddpm"}), "ddpm");
  EXPECT_EQ(closest("sigmamin", {"sigma_max", "sigma_min"}), "sigma_min");
  EXPECT_EQ(closest("Steps", {"steps", "stop"}), "steps");
  EXPECT_EQ(closest("guidence", {"guidance"}), "guidance");
  EXPECT_EQ(closest("xo", {"eps", "v", "x0"}), "x0");
}

TEST(Suggest, NothingForFarWords) {
  EXPECT_EQ(closest("zebra", {"ddim", "ddpm", "heun"}), "");
  EXPECT_EQ(closest("x", {"v"}), "");
  EXPECT_EQ(closest("", {"v", "ab"}), "");
  EXPECT_EQ(closest("sampler", {"seed", "steps"}), "");
  EXPECT_EQ(closest("ddim", {}), "");
}

TEST(Suggest, Hint) {
  EXPECT_EQ(hint("ddmi", {"ddim", "heun"}), "; did you mean 'ddim'?");
  EXPECT_EQ(hint("zebra", {"ddim", "heun"}), "; known: ddim, heun");
  EXPECT_EQ(hint("zebra", {}), "; none is known");
}

TEST(Registry, NamesAndKindsAreSorted) {
  EXPECT_EQ(toys().kinds(), std::vector<std::string>{"gear"});
  EXPECT_EQ(toys().names("gear"), (std::vector<std::string>{"chain", "cog", "plain"}));
  EXPECT_TRUE(toys().names("nut").empty());
}

TEST(Registry, UnknownKindOrName) {
  EXPECT_EQ(error_of([] { toys().entry("gaer", "cog"); }), "unknown kind 'gaer'; did you mean 'gear'?");
  EXPECT_EQ(error_of([] { toys().entry("gear", "coog"); }), "unknown gear 'coog'; did you mean 'cog'?");
}

TEST(Registry, APresetIsAPluginWithOtherDefaults) {
  Registry registry = toys();
  registry.preset<Gear, Cog>("sprocket", "cog", "a cog for chains", [](Cog::Options& o) { o.teeth = 48, o.eta = 0.25; });
  EXPECT_EQ(registry.entry("gear", "sprocket").preset_of, "cog");
  EXPECT_TRUE(registry.entry("gear", "cog").preset_of.empty());
  const auto resolved = [&](const std::string& yaml) {
    Value full;
    read_plugin(registry, "gear", parse_yaml(yaml, "gear.yaml"), "", &full);
    return dump_yaml(full);
  };
  std::string wanted = resolved("{type: cog, teeth: 48, eta: 0.25, rho: 3}");
  wanted.replace(wanted.find("cog"), 3, "sprocket");
  EXPECT_EQ(resolved("{type: sprocket, rho: 3}"), wanted);
  EXPECT_NE(resolved("{type: sprocket, teeth: 20}").find("teeth: 20"), std::string::npos) << "a default is not what was given";
  EXPECT_NE(describe(registry, "gear", "sprocket").find("a cog for chains\n  preset of cog: teeth = 48, eta = 0.25\n"), std::string::npos)
      << describe(registry, "gear", "sprocket");
  EXPECT_NE(describe_markdown(registry, "gear", "sprocket").find("preset of cog: teeth = 48, eta = 0.25.\n"), std::string::npos);
  EXPECT_EQ(describe(registry, "gear", "cog").find("preset"), std::string::npos);
}

TEST(Registry, ANameRegisteredTwiceNamesBothOrigins) {
  Registry registry = toys();
  registry.set_origin("/plugins/libring.so");
  registry.add<Gear, Ring>("ring", "a ring");
  EXPECT_EQ(registry.entry("gear", "ring").origin, "/plugins/libring.so");
  EXPECT_EQ(registry.entry("gear", "cog").origin, "built-in");
  EXPECT_EQ(error_of([&] { registry.add<Gear, Ring>("cog", "another"); }),
            "gear 'cog' is registered twice: by built-in and by /plugins/libring.so");
  registry.set_origin("/plugins/other.so");
  EXPECT_EQ(error_of([&] { registry.add<Gear, Ring>("ring", "another"); }),
            "gear 'ring' is registered twice: by /plugins/libring.so and by /plugins/other.so");
  EXPECT_EQ(registry.entry("gear", "ring").doc, "a ring");
}

TEST(Registry, CreateReadsChecksAndMakes) {
  EXPECT_EQ(create<Gear>(toys(), parse_yaml("{type: cog, teeth: 9}", "x"))->ratio(), 9);
  EXPECT_EQ(error_of([] { create<Gear>(toys(), parse_yaml("{type: cog, teeth: 0, zz: 1}", "x")); }),
            "x:1:20: gear: teeth = 0 is outside [1, 100]\nx:1:23: gear: unknown key 'zz'; known: type, teeth, eta, rho, locked, name, "
            "file, seed, "
            "bias, sizes, weights, words, finish");
  EXPECT_EQ(error_of([] { create<Gear>(toys(), parse_yaml("{type: cog, name: broken}", "x")); }),
            "x:1:1: gear: a broken cog cannot be made");
}

TEST(Describe, Table) {
  EXPECT_EQ(describe(toys(), "gear", "cog"),
            "gear cog (built-in)\n"
            "  a gear with all of them\n"
            "\n"
            "  name     type           default  allowed           meaning\n"
            "  teeth    int            12       [1, 100]          how many\n"
            "  eta      float          0.5      [0, 1]            slip\n"
            "  rho      float          7        > 0               curvature\n"
            "  locked   bool           false                      cannot turn\n"
            "  name     string         cog                        its name\n"
            "  file     path                                      a drawing\n"
            "  seed     int or null    null     >= 0              of the wear\n"
            "  bias     float or null  0.25     [-1, 1]           offset\n"
            "  sizes    int list       [1, 2]   >= 1              of the parts\n"
            "  weights  float list     []       > 0               of the parts\n"
            "  words    string list    []                         written on it\n"
            "  finish   choice         rough    rough | polished  of the surface\n"
            "  rule: teeth: must be more than ten times eta\n");
  EXPECT_EQ(describe(toys(), "gear", "chain"),
            "gear chain (built-in)\n"
            "  a gear of gears\n"
            "\n"
            "  name    type       default     allowed  meaning\n"
            "  first   gear       (required)           the first one\n"
            "  second  gear       plain                the second one\n"
            "  rest    gear list  []                   more of them\n");
  EXPECT_EQ(describe(toys(), "gear", "plain"), "gear plain (built-in)\n  a gear without parameters\n\n  no parameters\n");
}

TEST(Describe, Markdown) {
  EXPECT_EQ(describe_markdown(toys(), "gear", "chain"),
            "### chain\n\na gear of gears\n\n"
            "| parameter | type | default | allowed | meaning |\n|---|---|---|---|---|\n"
            "| `first` | gear | `(required)` |  | the first one |\n"
            "| `second` | gear | `plain` |  | the second one |\n"
            "| `rest` | gear list | `[]` |  | more of them |\n\n");
  const std::string cog = describe_markdown(toys(), "gear", "cog");
  EXPECT_NE(cog.find("| `finish` | choice | `rough` | rough \\| polished | of the surface |\n"), std::string::npos) << cog;
  EXPECT_NE(cog.find("\n\nRule: teeth: must be more than ten times eta\n"), std::string::npos) << cog;
}

}  // namespace
}  // namespace brume::test
