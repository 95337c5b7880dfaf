// brume bench: what it measures, and what it says of what it cannot.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "brume/nn/ops/isa.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

TEST(Bench, MeasuresThePartsOfAnArchitecture) {
  const TempFolder dir;
  const std::string json = dir.file("parts.json");
  const Finished r =
      run_brume({"bench", "--arch", "small", "--rounds", "1", "--seconds", "0.1", "--batch", "4", "--profile", "--errors", "--json", json});
  ASSERT_EQ(r.code, 0) << r.err;
  for (const char* word : {"network, batch 4", "training, batch 4", "group_norm", "attention", "conv2d 1x1"})
    EXPECT_NE(r.out.find(word), std::string::npos) << word << " in\n" << r.out;
  EXPECT_EQ(r.err.find('\033'), std::string::npos) << "no escape codes where there is no terminal: " << r.err;
  EXPECT_NE(r.err.find("round 1 of 1: network, batch 4\n"), std::string::npos) << r.err;
  const auto parts = nlohmann::json::parse(std::ifstream(json));
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_GT(parts[0]["seconds"], 0);
  EXPECT_GT(parts[0]["operations"]["conv2d"]["flops"], 1e6);
  EXPECT_LT(parts[0]["error"], 0.05);
  EXPECT_FALSE(parts[1].contains("error")) << "of training";
  EXPECT_GT(parts[1]["operations"]["conv2d gradient by weight"]["flops"], 1e6);
}

TEST(Bench, MeasuresThePeaks) {
  const TempFolder dir;
  const std::string json = dir.file("peaks.json");
  const Finished r = run_brume({"bench", "--peak", "--json", json});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("  memory "), std::string::npos) << r.out;
  std::map<std::string, double> rates;
  for (const auto& peak : nlohmann::json::parse(std::ifstream(json))) rates[peak["peak"]] = peak["rate"];
  EXPECT_GT(rates["memory"], 0.1);
  if (!nn::isa_supported(nn::Isa::avx2)) return;
  EXPECT_GT(rates["float32"], 1);
  EXPECT_LT(rates["float32"], 1e5) << "the compiler left out the loop";
}

TEST(Bench, SaysWhatItCannot) {
  EXPECT_EQ(run_brume({"bench", "--arch", "sd16"}).err,
            "error: --arch: unknown architecture 'sd16'; there are adm64, dit-b4, dit-xl2, iddpm-cifar10, inception, sd15, sd3-medium, "
            "small; did you mean 'sd15'?\n");
  const TempFolder dir;
  dir.file("file", "x");
  EXPECT_EQ(run_brume({"bench", "--arch", "small", "--json", "file/x.json"}, {dir.path()}).err,
            "error: --json file/x.json: file is no directory\n");
  EXPECT_EQ(run_brume({"bench"}).err, "error: bench needs a configuration, --arch NAME or --peak\n");
  const Finished isa = run_brume({"bench", "--arch", "small"}, {{}, {{"BRUME_ISA", "amx2"}}});
  EXPECT_EQ(isa.err,
            "error: environment variable BRUME_ISA: unknown instruction set 'amx2'; allowed: reference, generic, avx2, avx512, "
            "avx512_bf16, amx\n");
  EXPECT_EQ(isa.code, 2);
}

}  // namespace
}  // namespace brume::test
