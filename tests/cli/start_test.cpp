// How the program starts: with a short spin of OpenMP's waiting threads. And its pages that are generated are those of this program.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/process.h"
#include "support/sanitizers.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

/// Returns the spin count that libgomp printed when it was loaded last.
std::string spins(const std::vector<std::string>& variables, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {"env", "-u", "OMP_WAIT_POLICY", "-u", "GOMP_SPINCOUNT", "OMP_DISPLAY_ENV=VERBOSE"};
  words.insert(words.end(), variables.begin(), variables.end());
  words.push_back((fs::path(BRUME_BINARY_DIR) / "brume").string());
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::string said = run(words).err, name = "GOMP_SPINCOUNT = '";
  const size_t at = said.rfind(name);
  return at == std::string::npos ? said : said.substr(at + name.size(), said.find('\'', at + name.size()) - at - name.size());
}

TEST(Start, ACommandThatComputesSpinsShortly) {
  if (sanitized) GTEST_SKIP() << "starts once under a sanitizer";
  const std::vector<std::string> computes = {"train", "nothing.yaml"};
  EXPECT_EQ(spins({}, computes), "1000");
  EXPECT_EQ(spins({"GOMP_SPINCOUNT=7"}, computes), "7");
  EXPECT_EQ(spins({"OMP_WAIT_POLICY=passive"}, computes), "0");
  EXPECT_NE(spins({}, {"list", "sampler"}), "1000") << "starts once";
}

TEST(Start, KeepsArgumentsAndExitCode) {
  const Finished done = run({"env", "-u", "OMP_WAIT_POLICY", "-u", "GOMP_SPINCOUNT", (fs::path(BRUME_BINARY_DIR) / "brume").string(),
                             "train", "no such file.yaml"});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.err.find("error: no such file.yaml: cannot be read"), std::string::npos) << done.err;
}

/// Runs the program with one thread and a limit of so many MiB: -v = address space, -d = private memory.
Finished within(int64_t mib, const std::string& arguments, const fs::path& folder, const std::string& limited = "-v") {
  const std::string limit = fmt::format("ulimit -c 0; ulimit {} {}; exec {}/brume {}", limited, mib * 1024, BRUME_BINARY_DIR, arguments);
  return run({"sh", "-c", limit}, {folder, {{"OMP_NUM_THREADS", "1"}, {"OMP_WAIT_POLICY", "passive"}}});
}

TEST(Start, AnAddressSpaceThatIsTooSmallIsAnErrorOfOneLine) {
  if (sanitized) GTEST_SKIP() << "sanitizers map terabytes";
  const TempFolder folder;
  const Finished none = within(600, "list sampler", folder.path());
  EXPECT_EQ(none.code, 2);
  int needed = 0;
  ASSERT_EQ(
      std::sscanf(none.err.c_str(), "error: there is not enough memory to start (ulimit -v allows 600 MiB): %d MiB are needed\n", &needed),
      1)
      << none.err;
  std::ofstream(folder.path() / "tiny.yaml") << R"(
model:
  image: {channels: 3, height: 16, width: 16}
  network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, groups: 8}
train: {data: {type: shapes}, batch: 4, steps: 1, workers: 1, preview: {count: 0}}
)";
  for (int more = 0; more < 100; more += 12) {  // the memory ends in each part of the start
    const Finished short_of_it = within(needed + more, "train tiny.yaml --overwrite", folder.path());
    if (short_of_it.code == 0) continue;
    EXPECT_EQ(short_of_it.code, 2) << more << ": " << short_of_it.err;
    EXPECT_NE(short_of_it.err.find("error: there is not enough memory"), std::string::npos) << more << ": " << short_of_it.err;
  }
}

TEST(Start, PrivateMemoryThatIsTooSmallIsAnErrorOfOneLine) {
  if (sanitized) GTEST_SKIP() << "sanitizers map terabytes";
  const TempFolder folder;
  for (const int mib : {60, 100, 150}) {  // OpenBLAS would try without end
    const Finished none = within(mib, "list sampler", folder.path(), "-d");
    EXPECT_EQ(none.code, 2);
    const std::string start = fmt::format("error: there is not enough memory to start (ulimit -d allows {} MiB): ", mib);
    EXPECT_TRUE(none.err.starts_with(start) && none.err.ends_with(" MiB are needed\n")) << none.err;
  }
}

TEST(Start, ATokenizerWithoutRoomForThreadsNamesTheMemory) {
  if (sanitized) GTEST_SKIP() << "sanitizers map terabytes";
  const TempFolder folder;
  std::ofstream(folder.path() / "captions.txt") << "a red circle\na green circle\na blue square\na green triangle\n";
  const std::string train = "tokenizer train captions.txt --size 20 -o pieces.model";
  int needed = 0;
  const std::string none = within(600, train, folder.path()).err;
  ASSERT_EQ(std::sscanf(none.c_str(), "error: there is not enough memory to start (ulimit -v allows 600 MiB): %d", &needed), 1) << none;
  int refused = 0;
  for (int more = 8; more < 64; more += 4) {
    const Finished done = within(needed + more, train, folder.path());
    if (done.code == 0) continue;
    ++refused;
    EXPECT_NE(done.err.find("error: there is not enough memory"), std::string::npos) << more << ": " << done.err;
  }
  EXPECT_GT(refused, 0);
}

std::string page(const std::string& file) { return read_text(fs::path(BRUME_SOURCE_DIR) / file); }

TEST(GeneratedPages, TheCommandLineIsUpToDate) {
  EXPECT_EQ(page("docs/cli.md"), run_brume({"describe", "--cli"}).out) << "regenerate: build/brume describe --cli > docs/cli.md";
}

TEST(GeneratedPages, TheTableOfTheReadmeIsUpToDate) {
  const std::string readme = page("README.md"), begin = "<!-- brume list --markdown -->\n", end = "<!-- end -->\n";
  const size_t from = readme.find(begin), to = readme.find(end, from);
  ASSERT_NE(to, std::string::npos);
  EXPECT_EQ(readme.substr(from + begin.size(), to - from - begin.size()), run_brume({"list", "--markdown"}).out)
      << "regenerate what stands between the two comments: build/brume list --markdown";
}

}  // namespace
}  // namespace brume::test
