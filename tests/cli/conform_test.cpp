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

TEST(Conform, SamplersAtEqualCalls) {
  const Finished r = run_brume({"conform", "sampler", "ddim", "heun", "rk45", "tcd", "--calls", "8,15"});
  EXPECT_EQ(r.code, 0) << r.err;
  for (const char* part : {"calls/step  W1 at 8 calls ", "  W1 at 15 calls ", "\nddim ", "(8 steps, 8 calls)", "(15 steps, 15 calls)",
                           "\nheun ", "(4 steps, 7 calls)", "(8 steps, 15 calls)", "\nrk45 chooses the number of its steps: 0.00",
                           "\ntcd is left out: it needs a consistency model"})
    EXPECT_NE(r.out.find(part), std::string::npos) << part << " in\n" << r.out;
  EXPECT_EQ(run_brume({"conform", "sampler", "predictor_corrector", "--calls", "1"}).out.find("steps"), std::string::npos);
}

TEST(Conform, SamplersAtEqualCallsAsATable) {
  const Finished r =
      run_brume({"conform", "sampler", "predictor_corrector", "{type: ddim, eta: 1}", "mdlm", "--calls", "1,8", "--markdown"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(
      r.out.starts_with("| sampler | calls per step | W1 at 1 call | W1 at 8 calls |\n|---|---|---|---|\n| `predictor_corrector` |"))
      << r.out;
  for (const char* part :
       {" | - | ", "\n| `{type: ddim, eta: 1}` | 1 | ", "(1 step, 1 call) | ", "\n- mdlm is left out: it works on codes"})
    EXPECT_NE(r.out.find(part), std::string::npos) << part << " in\n" << r.out;
}

TEST(Conform, SamplersAtEqualCallsAsJson) {
  const Finished r = run_brume({"conform", "sampler", "heun", "predictor_corrector", "rk45", "d3pm", "--calls", "1,8", "--json"});
  EXPECT_EQ(r.code, 0) << r.err;
  const auto all = nlohmann::json::parse(r.out);
  EXPECT_EQ(all["calls"], (std::vector<int64_t>{1, 8}));
  ASSERT_EQ(all["samplers"].size(), 4u);
  const auto &heun = all["samplers"][0], &corrector = all["samplers"][1], &rk45 = all["samplers"][2], &d3pm = all["samplers"][3];
  EXPECT_EQ(heun["name"], "heun");
  EXPECT_EQ(heun["runs"][1]["budget"], 8);
  EXPECT_EQ(heun["runs"][1]["steps"], 4);
  EXPECT_EQ(heun["runs"][1]["calls"], 7);
  EXPECT_EQ(heun["runs"][1]["calls_per_step"], 1.75);
  EXPECT_GT(heun["runs"][1]["error"], 0);
  EXPECT_EQ(corrector["runs"][0], (nlohmann::json{{"budget", 1}, {"steps", 0}}));
  EXPECT_EQ(rk45["own_count"], true);
  ASSERT_EQ(rk45["runs"].size(), 1u);
  EXPECT_GT(rk45["runs"][0]["calls"], 8);
  EXPECT_FALSE(rk45["runs"][0].contains("budget"));
  EXPECT_NE(d3pm["left_out"].get<std::string>().find("codes"), std::string::npos);
}

TEST(Conform, BudgetsThatAreNone) {
  for (const char* value : {"0", "x", "8,x", "-1", "1001"}) {
    const Finished r = run_brume({"conform", "sampler", "ddim", "--calls", value});
    EXPECT_EQ(r.code, 2) << value;
    EXPECT_NE(r.err.find("--calls"), std::string::npos) << r.err;
    const std::string_view last = std::string_view(value).substr(std::string_view(value).find(',') + 1);
    EXPECT_NE(r.err.find(last), std::string::npos) << r.err;
  }
  EXPECT_EQ(run_brume({"conform", "spacing", "karras", "--calls", "8,16"}).err,
            "error: --calls 8,16: counts the network calls of samplers, and 'spacing' is another kind\n");
  EXPECT_EQ(run_brume({"conform", "sampler", "ddmi", "--calls", "8"}).err,
            "error: command line:1:1: sampler: unknown sampler 'ddmi'; did you mean 'ddim'?\n");
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
