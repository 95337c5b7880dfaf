// brume conform: what a plugin promises, measured.
#include <gtest/gtest.h>

#include "support/process.h"

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

TEST(Conform, EveryNoiseSchedule) {
  const Finished r = run_brume({"conform", "noise_schedule"});
  EXPECT_EQ(r.code, 0) << r.out;
  EXPECT_NE(r.out.find("zero_terminal_snr"), std::string::npos);
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
}

}  // namespace
}  // namespace brume::test
