// brume launch, and images divided among the processes of a job.
#include "support/small_model.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

class Launch : public SmallModel {
 protected:
  static std::string bytes(const std::string& name) { return read_text(folder_->path() / name); }
  static void expect_images(const std::string& folder, int count) {
    for (int i = 0; i < count; ++i) {
      const std::string name = "/0000" + std::to_string(i) + ".png";
      EXPECT_EQ(bytes(folder + name), bytes("one" + name)) << folder << name;
    }
  }
  static Finished as_rank(const std::string& rank, std::vector<std::string> words) {
    return run_brume(std::move(words),
                     {folder_->path(), {{"RANK", rank}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "h"}, {"MASTER_PORT", "1"}}});
  }
};

TEST_F(Launch, ImagesOfSeveralProcessesAreThoseOfOne) {
  const std::vector<std::string> images{"sample", "m", "-n", "5", "--threads", "1", "-o"};
  const auto into = [&](std::vector<std::string> words, const std::string& folder) {
    words.insert(words.end(), images.begin(), images.end());
    words.push_back(folder);
    return words;
  };
  ASSERT_EQ(at(into({}, "one")).code, 0);
  const Finished two = at(into({"launch", "-n", "2", "--"}, "two"));
  EXPECT_EQ(two.code, 0) << two.err;
  EXPECT_NE(two.out.find("[0] two: 2 of 5 images\n"), std::string::npos) << two.out;
  EXPECT_NE(two.out.find("[1] two: 3 of 5 images\n"), std::string::npos) << two.out;
  expect_images("two", 5);

  // One process is lost with its piece; a second call makes that, and leaves the others as they are.
  ASSERT_EQ(as_rank("1", into({}, "half")).code, 0);
  EXPECT_FALSE(fs::exists(folder_->path() / "half/00001.png"));
  EXPECT_TRUE(fs::exists(folder_->path() / "half/00002.png"));
  std::vector<std::string> again = into({}, "half");
  again.push_back("--missing");
  const Finished rest = at(again);
  EXPECT_EQ(rest.out, "half: 2 of 5 images\n") << rest.err;
  expect_images("half", 5);
  EXPECT_EQ(at(again).out, "half: 0 of 5 images\n");
  again.insert(again.end(), {"--seed", "3"});
  const Finished other = at(again);
  EXPECT_EQ(other.code, 2);
  EXPECT_NE(other.err.find("error: --missing: half/00000.png was made by 'brume sample m"), std::string::npos) << other.err;
}

TEST_F(Launch, WhatCannotBeDividedIsRefused) {
  const Finished one_file = as_rank("0", {"sample", "m", "-o", "all.png"});
  EXPECT_EQ(one_file.err, "error: 2 processes: needs -o DIRECTORY; -o all.png is one picture of all images\n");
  const Finished contradiction = as_rank("0", {"sample", "m", "-o", "d", "--rank", "1", "--world", "2"});
  const Finished whole = as_rank("0", {"sweep", "m.yaml"});
  EXPECT_NE(whole.err.find("error: brume sweep does not divide its work: each of the 2 processes"), std::string::npos) << whole.err;
  EXPECT_NE(contradiction.err.find("--rank=1 --world=2 and the environment RANK=0 WORLD_SIZE=2"), std::string::npos) << contradiction.err;
}

TEST_F(Launch, AFailedProcessIsNamedAndEndsTheOthers) {
  const Finished done = at({"launch", "-n", "2", "--", "check", "absent.yaml"});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.err.find("ended with 2; the others are ended\n"), std::string::npos) << done.err;
  EXPECT_NE(done.err.find("] error: "), std::string::npos) << done.err;
}

}  // namespace
}  // namespace brume::test
