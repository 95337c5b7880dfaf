// brume likelihood and brume invert, on the exact denoiser of Gaussian data.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/image/image.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class Measures : public testing::Test {
 protected:
  Measures() {
    folder_.file("model.yaml",
                 "model:\n  image: {channels: 1, height: 8, width: 8}\n  network: {type: gaussian, std: 0.4}\n  parameterization: x0\n"
                 "  noise: cosine\nsample: {sampler: ddim, guidance: [clip]}\n");
    folder_.file("data.yaml", "type: shapes\n");
  }
  Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {.folder = folder_.path()}); }
  nlohmann::json json(const std::string& name) { return nlohmann::json::parse(std::ifstream(folder_.path() / name)); }
  TempFolder folder_;
};

TEST_F(Measures, TheBound) {
  const Finished done = at({"likelihood", "model.yaml", "--data", "data.yaml", "-n", "5", "--steps", "40", "--json", "a.json"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find("bits/dim on 5 images (variational bound)"), std::string::npos) << done.out;
  const auto a = json("a.json");
  EXPECT_EQ(a["per_image"].size(), 5u);
  EXPECT_EQ(a["terms"].size(), 40u);
  double sum = a["prior"];
  for (const double t : a["terms"]) sum += t;
  EXPECT_NEAR(sum, a["bits_per_dim"].get<double>(), 1e-4);
  EXPECT_GT(a["standard_error"].get<double>(), 0);
  // The images do not depend on their batch.
  EXPECT_EQ(at({"likelihood", "model.yaml", "--data", "data.yaml", "-n", "5", "--steps", "40", "--batch", "2", "--json", "b.json"}).code,
            0);
  EXPECT_EQ(json("b.json")["per_image"], a["per_image"]);
}

TEST_F(Measures, TheOde) {
  const Finished done = at({"likelihood", "model.yaml", "--data", "{type: shapes}", "-n", "2", "--method", "ode", "--json", "a.json"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find("bits/dim on 2 images (probability-flow ODE)"), std::string::npos) << done.out;
  EXPECT_GT(json("a.json")["evaluations"].get<int64_t>(), 50);
}

TEST_F(Measures, TheNoiseOfAnImage) {
  ASSERT_EQ(at({"sample", "model.yaml", "-n", "1", "-o", "x.png"}).code, 0);
  const Finished done = at({"invert", "model.yaml", "x.png", "--steps", "10,100", "-o", "n.safetensors", "--json", "a.json"});
  EXPECT_EQ(done.code, 0) << done.err;
  const auto runs = json("a.json")["runs"];
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_LT(runs[1]["mse"].get<double>(), 0.3 * runs[0]["mse"].get<double>());
  const NamedTensors noise = load_tensors((folder_.path() / "n.safetensors").string());
  ASSERT_EQ(noise.size(), 2u);
  EXPECT_EQ(noise[0].tensor.sizes(), (std::vector<int64_t>{1, 1, 8, 8}));
  const auto sampled = [&](const std::string& given) {
    return at({"sample", "model.yaml", "-n", "1", "--noise", given, "--steps", "100", "-o", "y.png"});
  };
  EXPECT_EQ(sampled("n.safetensors:noise_100_steps").code, 0);
  const Image x = read_image((folder_.path() / "x.png").string(), 1), y = read_image((folder_.path() / "y.png").string(), 1);
  for (size_t i = 0; i < x.pixels.size(); ++i) EXPECT_NEAR(x.pixels[i], y.pixels[i], 6) << i;
  EXPECT_EQ(sampled("n.safetensors").err,
            "error: --noise: n.safetensors holds 2 tensors; --noise n.safetensors:NAME says which: noise_10_steps, noise_100_steps\n");
  EXPECT_EQ(sampled("n.safetensors:noise_100_step").err,
            "error: --noise: n.safetensors has no tensor 'noise_100_step'; did you mean 'noise_100_steps'?\n");
  write_safetensors((folder_.path() / "empty.safetensors").string(), {});
  EXPECT_EQ(sampled("empty.safetensors").err, "error: --noise: empty.safetensors holds no tensor\n");
  EXPECT_EQ(sampled("none.safetensors").err, "error: --noise: there is no file 'none.safetensors'\n");
}

TEST_F(Measures, OneImageHasNoSpread) {
  const Finished done = at({"likelihood", "model.yaml", "--data", "{type: shapes}", "-n", "1", "--steps", "10"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find(" bits/dim on 1 image (variational bound)"), std::string::npos) << done.out;
  EXPECT_EQ(done.out.find("±"), std::string::npos) << done.out;
}

TEST_F(Measures, OutputsAreCheckedBeforeTheRun) {
  ASSERT_EQ(at({"sample", "model.yaml", "-n", "1", "-o", "z.png"}).code, 0);
  folder_.file("file", "x");
  EXPECT_EQ(at({"invert", "model.yaml", "z.png", "-o", "file/n.safetensors"}).err, "error: -o file/n.safetensors: file is no directory\n");
  EXPECT_EQ(at({"invert", "model.yaml", "z.png", "--json", "file/n.json"}).err, "error: --json file/n.json: file is no directory\n");
  EXPECT_EQ(at({"likelihood", "model.yaml", "--data", "data.yaml", "--json", "file/n.json"}).err,
            "error: --json file/n.json: file is no directory\n");
}

TEST_F(Measures, Refusals) {
  ASSERT_EQ(at({"sample", "model.yaml", "-n", "4", "-o", "grid.png"}).code, 0);
  const auto error = [&](std::vector<std::string> words) {
    const Finished done = at(std::move(words));
    EXPECT_EQ(done.code, 2);
    return done.err;
  };
  EXPECT_EQ(error({"invert", "model.yaml", "grid.png"}), "error: grid.png: has 22x22 pixels, and the model makes 8x8\n");
  EXPECT_EQ(error({"invert", "model.yaml", "grid.png", "--classes", "1"}), "error: grid.png: has 22x22 pixels, and the model makes 8x8\n");
  EXPECT_NE(error({"likelihood", "model.yaml", "--data", "{type: shappes}"}).find("did you mean 'shapes'?"), std::string::npos);
  EXPECT_NE(error({"likelihood", "model.yaml", "--data", "data.yaml", "--method", "odd"}).find("--method"), std::string::npos);
  EXPECT_EQ(error({"likelihood", "model.yaml", "--data", "data.yaml", "--steps", "2000"}),
            "error: 2000 steps are more than the schedule's 1000 training times\n");
}

}  // namespace
}  // namespace brume::test
