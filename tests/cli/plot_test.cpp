// brume plot: the pictures are whole and of the size announced, their numbers are right, and wrong uses are answered.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "brume/image/image.h"
#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

using Row = std::vector<std::string>;

std::vector<Row> rows_of(const fs::path& file) {
  std::vector<Row> rows;
  std::istringstream text(read_text(file));
  for (std::string line; std::getline(text, line);) {
    Row row;
    std::istringstream cells(line + ",");
    for (std::string cell; std::getline(cells, cell, ',');) row.push_back(cell);
    rows.push_back(row);
  }
  return rows;
}

class Plot : public testing::Test {
 protected:
  Finished at(std::vector<std::string> words) {
    words.insert(words.begin(), "plot");
    return run_brume(std::move(words), {.folder = folder_.path()});
  }
  /// The chart is there, not blank, as large as was said, and a small file.
  void expect_chart(const Finished& done, const std::string& name) {
    EXPECT_EQ(done.code, 0) << done.err;
    const Image image = read_image(folder_.file(name));
    EXPECT_NE(done.out.find(fmt::format("{}: {} x {} pixels\n", name, image.width, image.height)), std::string::npos) << done.out;
    EXPECT_LT(fs::file_size(folder_.path() / name), 300000u);
    EXPECT_GT(std::set<uint8_t>(image.pixels.begin(), image.pixels.end()).size(), 15u);
    EXPECT_EQ(image.pixels.front(), 255);
  }
  std::string error(std::vector<std::string> words) {
    const Finished done = at(std::move(words));
    EXPECT_EQ(done.code, 2) << done.out;
    return done.err;
  }
  std::vector<Row> csv(const std::string& name) { return rows_of(folder_.path() / name); }
  bool exists(const std::string& name) { return fs::exists(folder_.path() / name); }
  TempFolder folder_;
};

TEST_F(Plot, Schedules) {
  expect_chart(at({"schedule", "linear", "{type: flow, shift: 3}", "edm", "-o", "a.png", "--csv", "a.csv"}), "a.png");
  const auto rows = csv("a.csv");
  EXPECT_EQ(rows.front(), (Row{"schedule", "t", "time", "alpha", "sigma", "log_snr", "alpha_bar"}));
  std::map<std::string, Row> last;
  for (const Row& r : rows) last[r[0]] = r;
  const Row& linear = last["linear"];
  EXPECT_EQ(linear[1], "1");
  EXPECT_EQ(linear[2], "999");
  // DDPM: alpha_bar after its 1000 betas from 1e-4 to 0.02.
  EXPECT_NEAR(std::stod(linear[6]), 4.0358e-5, 1e-9);
  EXPECT_NEAR(std::stod(linear[4]), std::sqrt(1 / 4.0358e-5 - 1), 1e-2);
  EXPECT_NEAR(std::stod(linear[3]), std::sqrt(4.0358e-5), 1e-7);
  EXPECT_NEAR(std::stod(linear[5]), -2 * std::log(std::stod(linear[4])), 1e-9);
  EXPECT_EQ(std::stod(last["edm"][4]), 80);
  EXPECT_EQ(last["edm"][3], "1");
  EXPECT_TRUE(last.contains("\"flow")) << "a label with a comma is quoted";
}

TEST_F(Plot, EverySchedule) { expect_chart(at({"schedule", "-o", "a.png"}), "a.png"); }

TEST_F(Plot, Spacings) {
  const Finished done = at({"spacing", "trailing", "karras", "lcm", "--noise", "edm", "--steps", "10", "-o", "a.png", "--csv", "a.csv"});
  expect_chart(done, "a.png");
  EXPECT_NE(done.out.find("not drawn: lcm: spacing lcm needs a discrete noise schedule, or that of flow matching\n"), std::string::npos)
      << done.out;
  const auto rows = csv("a.csv");
  EXPECT_EQ(rows.front(), (Row{"spacing", "step", "sigma", "t"}));
  ASSERT_EQ(rows.size(), 1u + 2 * 11);
  for (int i = 0; i < 10; ++i) EXPECT_NEAR(std::stod(rows[size_t(1 + i)][3]), 1 - 0.1 * i, 1e-9);
  EXPECT_EQ(rows[11], (Row{"trailing", "10", "0", ""}));
  EXPECT_EQ(rows[12][0], "karras");
}

TEST_F(Plot, EverySpacing) {
  const Finished done = at({"spacing", "-o", "a.png"});
  expect_chart(done, "a.png");
  EXPECT_NE(done.out.find("not drawn: explicit: "), std::string::npos) << done.out;
}

TEST_F(Plot, Samplers) {
  expect_chart(at({"sampler", "heun", "ddim", "euler_ancestral", "lcm", "rk45", "--steps", "8", "-o", "a.png", "--csv", "a.csv", "--paths",
                   "p.csv"}),
               "a.png");
  const auto rows = csv("a.csv");
  EXPECT_EQ(rows.front(), (Row{"sampler", "steps", "calls", "error"}));
  std::map<std::string, std::map<int, Row>> all;
  for (size_t i = 1; i < rows.size(); ++i) all[rows[i][0]][std::stoi(rows[i][1])] = rows[i];
  EXPECT_FALSE(all.contains("euler_ancestral"));  // adds noise
  EXPECT_FALSE(all.contains("lcm"));              // takes the estimate for a point of the data
  EXPECT_EQ(all["rk45"].size(), 1u);              // its steps are its own
  const auto ratio = [&](const std::string& name) { return std::stod(all[name][64][3]) / std::stod(all[name][128][3]); };
  EXPECT_NEAR(ratio("heun"), 4, 0.6);
  EXPECT_NEAR(ratio("ddim"), 2, 0.2);
  EXPECT_EQ(all["heun"][64][2], "128");
  EXPECT_EQ(all["ddim"][64][2], "64");

  const auto paths = csv("p.csv");
  EXPECT_EQ(paths.front(), (Row{"sampler", "point", "step", "sigma", "x", "y"}));
  for (const char* name : {"heun", "ddim", "euler_ancestral", "lcm"}) {
    int moments = 0;
    for (const Row& r : paths) moments += r[0] == name && r[1] == "0";
    EXPECT_EQ(moments, 9) << name;
  }
}

TEST_F(Plot, ATable) {
  folder_.file("t.csv", "run,step,loss,note\na,1,0.5,x\na,100,0.05,\"1, 2\"\nb,1,0.7,\nb,10,,\nb,100,0.01,\n");
  const Finished done = at({"table", "t.csv", "--x", "step", "--y", "loss", "--by", "run", "--log-x", "--log-y", "--title", "Loss", "-o",
                            "a.png", "--csv", "b.csv"});
  expect_chart(done, "a.png");
  EXPECT_NE(done.out.find("rows left out for an empty cell: 1\n"), std::string::npos) << done.out;
  EXPECT_EQ(csv("b.csv"),
            (std::vector<Row>{{"run", "step", "loss"}, {"a", "1", "0.5"}, {"a", "100", "0.05"}, {"b", "1", "0.7"}, {"b", "100", "0.01"}}));
  expect_chart(at({"table", "t.csv", "--x", "step", "--y", "loss", "-o", "c.png"}), "c.png");
}

TEST_F(Plot, WrongTables) {
  folder_.file("t.csv", "step,loss\n1,0.5\n2,abc\n");
  const auto of = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"table", "t.csv", "-o", "a.png"});
    return error(std::move(words));
  };
  EXPECT_EQ(of({"--x", "stepp", "--y", "loss"}),
            "error: --x: t.csv has no column 'stepp'; did you mean 'step'?; its columns: step, loss\n");
  EXPECT_EQ(of({"--x", "step", "--y", "loss"}), "error: t.csv:3: column 'loss': 'abc' is not a number\n");
  folder_.file("t.csv", "step,loss\n0,0.5\n");
  EXPECT_EQ(of({"--x", "step", "--y", "loss", "--log-x"}),
            "error: t.csv:2: column 'step': 0 has no place on a logarithmic axis, which begins above 0\n");
  folder_.file("t.csv", "step,loss\n1,0.5,2\n");
  EXPECT_EQ(of({"--x", "step", "--y", "loss"}), "error: t.csv:2: has 3 cells, and there are 2 columns\n");
  folder_.file("t.csv", "step,loss\n1,\"0.5\n");
  EXPECT_EQ(of({"--x", "step", "--y", "loss"}), "error: t.csv:2: a quote is opened and never closed\n");
  folder_.file("t.csv", "step,loss\n");
  EXPECT_EQ(of({"--x", "step", "--y", "loss"}), "error: t.csv: has no rows below its names of columns\n");
  EXPECT_EQ(error({"table", "none.csv", "--x", "a", "--y", "b", "-o", "a.png"}), "error: none.csv: cannot be opened\n");
  EXPECT_FALSE(exists("a.png"));
}

TEST_F(Plot, WrongUses) {
  EXPECT_EQ(error({"schedul", "-o", "a.png"}), "error: unknown chart 'schedul'; did you mean 'schedule'?\n");
  EXPECT_NE(error({"schedule", "lineer", "cosin", "-o", "a.png"}).find("unknown noise_schedule 'cosin'; did you mean 'cosine'?"),
            std::string::npos);
  EXPECT_NE(error({"spacing", "--noise", "flwo", "-o", "a.png"}).find("did you mean 'flow'?"), std::string::npos);
  EXPECT_NE(error({"sampler", "{type: ddim, etta: 1}", "-o", "a.png"}).find("unknown key 'etta'; did you mean 'eta'?"), std::string::npos);
  EXPECT_NE(error({"schedule"}).find("--out is required"), std::string::npos);
  EXPECT_NE(error({"schedule", "-o", "a.svg"}).find("'a.svg' does not end in .png"), std::string::npos);
  EXPECT_NE(error({"spacing", "lcm", "--noise", "edm", "-o", "a.png"}).find("there is nothing to draw"), std::string::npos);
  EXPECT_NE(error({"schedule", "linear", "-o", "none/a.png"}).find("none"), std::string::npos);
  EXPECT_FALSE(exists("a.png"));
  EXPECT_FALSE(exists("a.svg"));
}

TEST_F(Plot, ThePicturesOfTheDocuments) {
  std::istringstream text(read_text(fs::path(BRUME_SOURCE_DIR) / "docs/concepts.md"));
  int pictures = 0;
  const std::string prefix = "brume plot ", folder = "docs/pictures/";
  for (std::string line; std::getline(text, line);) {
    const size_t out = line.find(folder);
    if (!line.starts_with(prefix) || out == std::string::npos) continue;
    const std::string name = line.substr(out + folder.size());
    std::istringstream command(line.substr(prefix.size(), out - prefix.size()) + name);
    std::vector<std::string> words;
    for (std::string word; command >> word;) words.push_back(word);
    expect_chart(at(words), name);
    const Image fresh = read_image(folder_.file(name)), kept = read_image((fs::path(BRUME_SOURCE_DIR) / folder / name).string());
    EXPECT_EQ(fresh.width, kept.width) << name;
    EXPECT_EQ(fresh.height, kept.height) << name;
    ++pictures;
  }
  EXPECT_EQ(pictures, 3);
}

}  // namespace
}  // namespace brume::test
