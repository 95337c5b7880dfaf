// brume conform: the laws of plugins, measured.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "support/process.h"
#include "support/registry.h"

namespace brume::test {
namespace {

TEST(Conform, ASamplerThatHoldsWhatItPromises) {
  const Finished r = run_brume({"conform", "sampler", "dpmpp_2m"});
  EXPECT_EQ(r.code, 0) << r.err;
  for (const char* law : {"order on the Gaussian", "order on the mixture", "round trip", "distribution of the mixture", "12 of 12 equal",
                          "4 of 4 equal", "every law holds"})
    EXPECT_NE(r.out.find(law), std::string::npos) << law << "\n" << r.out;
}

TEST(Conform, OptionsCount) {
  const Finished r = run_brume({"conform", "sampler", "{type: ddim, eta: 1}"});
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  EXPECT_EQ(r.out.find("order on"), std::string::npos) << "it adds noise:\n" << r.out;
}

/// Every built-in plugin but the samplers, whose measurement takes minutes (docs/samplers.md).
TEST(Conform, EveryBuiltInPluginKeepsItsLaws) {
  for (const char* kind : {"guidance", "noise_schedule", "objective", "parameterization", "spacing"}) {
    const Finished r = run_brume({"conform", kind});
    EXPECT_EQ(r.code, 0) << r.out << r.err;
    for (const std::string& name : builtins().names(kind))
      if (name != "explicit") {
        EXPECT_NE(("\n" + r.out).find("\n" + name + "\n"), std::string::npos) << name << " was not measured";
      }
  }
}

struct PlantedBug {
  std::string kind, name;
  std::string law;  ///< that it breaks
};

const std::vector<PlantedBug> planted = {
    {"sampler", "wrong_sign", "order on the Gaussian"},
    {"sampler", "stale_history", "order on the mixture"},
    {"sampler", "one_noise_per_batch", "image i alone and in a batch of 12"},
    {"sampler", "in_place", "its input"},
    {"noise_schedule", "wrong_time", "time(sigma(t)) = t"},
    {"spacing", "one_too_few", "10 steps"},
    {"parameterization", "no_skip", "limit at sigma = 0"},
    {"parameterization", "sigma_for_variance", "a target of one size"},
    {"objective", "one_noise", "x = x0 + sigma noise"},
    {"objective", "batch_mean", "image i alone"},
    {"guidance", "exchanged", "towards the condition"},
    {"guidance", "swapped_rows", "image i alone and in a batch of 5"},
};

/// The names of the laws that `name` breaks.
std::set<std::string> broken(const std::string& kind, const std::string& name) {
  const Finished r = run_brume({"conform", kind, name, "--json", "--plugin", BRUME_BINARY_DIR "/tests/libplanted_bugs.so"});
  std::set<std::string> laws;
  const nlohmann::json all = nlohmann::json::parse(r.out, nullptr, false);
  if (all.is_discarded()) return ADD_FAILURE() << r.out << r.err, laws;
  for (const auto& law : all["plugins"][0]["laws"]) {
    EXPECT_FALSE(law["meaning"].get<std::string>().empty());
    EXPECT_FALSE(law["measured"].get<std::string>().empty()) << law;
    if (!law["holds"]) laws.insert(law["law"]);
  }
  EXPECT_EQ(r.code, laws.empty() ? 0 : 1);
  return laws;
}

TEST(Conform, FindsPlantedBugsAndNamesTheLaw) {
  size_t found = 0;
  std::string report;
  for (const PlantedBug& bug : planted) {
    const std::set<std::string> laws = broken(bug.kind, bug.name);
    found += laws.contains(bug.law);
    report += bug.kind + " " + bug.name + ": " + testing::PrintToString(laws) + "\n";
  }
  EXPECT_EQ(planted.size(), 12u);
  EXPECT_GE(found, 11u) << report;
}

TEST(Conform, SaysWhatTheBrokenLawMeans) {
  const Finished r = run_brume({"conform", "spacing", "one_too_few", "--plugin", BRUME_BINARY_DIR "/tests/libplanted_bugs.so"});
  EXPECT_EQ(r.code, 1);
  EXPECT_NE(r.out.find("FAIL  10 steps "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find(" 10 sigmas "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("N steps are N + 1 descending sigmas"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("1 of 1 fail"), std::string::npos) << r.out;
}

TEST(Conform, AsATable) {
  const Finished r = run_brume({"conform", "spacing", "karras", "--noise", "edm", "--markdown"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out.substr(0, 11), "| spacing |");
  EXPECT_NE(r.out.find("| `karras` |"), std::string::npos);
}

TEST(Conform, UnknownKindsAndNames) {
  EXPECT_EQ(run_brume({"conform", "samplr", "ddim"}).err, "error: no laws are measured of kind 'samplr'; did you mean 'sampler'?\n");
  EXPECT_EQ(run_brume({"conform", "sampler", "ddmi"}).err,
            "error: command line:1:1: sampler: unknown sampler 'ddmi'; did you mean 'ddim'?\n");
  EXPECT_EQ(run_brume({"conform", "guidance", "cgf"}).err,
            "error: command line:1:1: guidance: unknown guidance 'cgf'; did you mean 'cfg'?\n");
  EXPECT_EQ(run_brume({"conform", "objective", "{type: simple, targt: v}"}).err,
            "error: command line:1:16: objective: unknown key 'targt'; did you mean 'target'?\n");
}

}  // namespace
}  // namespace brume::test
