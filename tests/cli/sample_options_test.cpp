// brume sample: options that would be of no effect, or found wrong only after the run; what a stopped run leaves; and directories as
// models.
#include "brume/image/image.h"
#include "brume/weights/weights_file.h"
#include "support/small_model.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

class SampleOptions : public SmallModel {
 protected:
  static fs::path path(const std::string& name) { return folder_->path() / name; }
  static std::string said(std::vector<std::string> more) {
    std::vector<std::string> words{"sample", "m/model.safetensors", "-n", "2"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = at(words);
    EXPECT_EQ(done.code, 2) << done.err;
    return done.err;
  }
};

TEST_F(SampleOptions, EndingsThatAreNotWritten) {
  EXPECT_EQ(said({"-o", "out.jpg"}),
            "error: -o out.jpg: no .jpg is written there, but .png or .safetensors; a name without an ending is a directory\n");
  EXPECT_EQ(said({"-o", "out.JPEG"}),
            "error: -o out.JPEG: no .jpeg is written there, but .png or .safetensors; a name without an ending is a directory\n");
  EXPECT_EQ(said({"--frames", "s.gif"}),
            "error: --frames s.gif: no .gif is written there, but .png or .apng; a name without an ending is a directory\n");
  EXPECT_EQ(said({"--strip", "s.jpg"}),
            "error: --strip s.jpg: no .jpg is written there, but .png; a name without an ending is a directory\n");
  EXPECT_EQ(said({"--strip", "strip"}), "error: --strip strip: is one picture, a file that ends in .png\n");
  for (const char* name : {"out.jpg", "out.JPEG", "s.gif", "s.jpg", "strip", "sample.png"}) EXPECT_FALSE(fs::exists(path(name))) << name;
  EXPECT_EQ(at({"sample", "m", "-n", "1", "-o", "run.v2"}).code, 0);
  EXPECT_TRUE(fs::is_regular_file(path("run.v2/00000.png"))) << "no ending of a file";
  EXPECT_EQ(at({"sample", "m", "-n", "1", "-o", "LARGE.PNG"}).code, 0);
  EXPECT_TRUE(fs::is_regular_file(path("LARGE.PNG")));
}

TEST_F(SampleOptions, ATensorHasTheImagesOfThePictures) {
  ASSERT_EQ(at({"sample", "m", "-n", "2", "-o", "all.safetensors"}).code, 0);
  ASSERT_EQ(at({"sample", "m", "-n", "2", "-o", "each"}).code, 0);
  const NamedTensors tensors = load_tensors(path("all.safetensors").string());
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].name, "images");
  ASSERT_EQ(tensors[0].tensor.size(0), 2);
  for (int64_t i = 0; i < 2; ++i)
    EXPECT_TRUE(to_image(tensors[0].tensor[i]) == read_image(path("each/0000" + std::to_string(i) + ".png").string())) << i;
}

TEST_F(SampleOptions, OutputsAreCheckedBeforeTheRun) {
  folder_->file("file", "x");
  fs::create_directories(path("folder"));
  EXPECT_EQ(said({"-o", "file/out.png"}), "error: -o file/out.png: file is no directory\n");
  EXPECT_EQ(said({"-o", "file"}), "error: -o file: is a file, and a directory is written there\n");
  EXPECT_EQ(said({"--trajectory", "folder"}), "error: --trajectory folder: is a directory, and a file is written there\n");
  EXPECT_EQ(said({"--frames", "file/frames"}), "error: --frames file/frames: file is no directory\n");
  const Finished made = at({"sample", "m", "-n", "1", "-o", "new/a.png", "--strip", "new/b/s.png", "--trajectory", "new/c/t.safetensors"});
  EXPECT_EQ(made.code, 0) << made.err;
  for (const char* name : {"new/a.png", "new/b/s.png", "new/c/t.safetensors"}) EXPECT_TRUE(fs::is_regular_file(path(name))) << name;
}

TEST_F(SampleOptions, ContradictionsAndSeeds) {
  EXPECT_EQ(
      said({"--first", "3", "--noise-order", "batch"}),
      "error: --first 3: noise order 'batch' draws the noise of all images at once, and a piece would not be what it is in the whole; "
      "--noise-order per_image makes a run in pieces\n");
  for (const char* seed : {"-2", "1.5", "x", "18446744073709551616"})
    EXPECT_EQ(said({"--seed", seed}),
              std::string("--seed: ") + seed +
                  " is no whole number from 0 to 18446744073709551615, and not -1\nRun with --help for more information.\n");
}

TEST_F(SampleOptions, AnEmptyValueIsNotTheNextArgument) {
  EXPECT_EQ(said({"--steps=", "3"}), "error: --steps= has an empty value; a number is expected\n");
  EXPECT_EQ(said({"--prompt-weights="}),
            "error: --prompt-weights= has an empty value; true and false are allowed, and no value means true\n");
  EXPECT_EQ(said({"--lora=", "-o", "a.png"}), "error: lora: there is no file ''\n");
  EXPECT_EQ(said({"--prompt=", "-o", "a.png"}), "error: --prompt: this model is not asked in words; --classes names what it makes\n");
  EXPECT_EQ(said({"--mask=", "-o", "a.png"}), "error: --mask= has an empty value; FILE is expected\n");
  EXPECT_EQ(said({"-n=", "-o", "a.png"}), "error: -n= has an empty value; a number is expected\n");
  EXPECT_EQ(at({"sample", "m", "-n=1", "-o=equals.png"}).code, 0);
  EXPECT_TRUE(fs::exists(path("equals.png")));
  const Finished made = at({"sample", "m", "--classes", "2", "-o", "empty.png", "--negative=x", "--negative="});
  EXPECT_EQ(made.code, 2);
  EXPECT_EQ(at({"sample", "m", "--sampler=", "-n", "1", "-o", "empty.png"}).code, 0);
  EXPECT_TRUE(fs::exists(path("empty.png"))) << "-o was not taken for the value";
}

TEST_F(SampleOptions, ARandomSeedIsPrintedAndRecorded) {
  const Finished made = at({"sample", "m", "--seed", "-1", "-n", "1", "-o", "drawn.png"});
  ASSERT_EQ(made.code, 0) << made.err;
  const size_t begin = made.err.find("seed: ");
  ASSERT_NE(begin, std::string::npos) << made.err;
  const std::string seed = made.err.substr(begin + 6, made.err.find('\n', begin) - begin - 6);
  EXPECT_EQ(at({"sample", "m", "--seed", seed, "-n", "1", "-o", "again.png"}).code, 0);
  EXPECT_EQ(read_image(path("drawn.png").string()), read_image(path("again.png").string()));
  EXPECT_EQ(read_png_text(path("drawn.png").string()), read_png_text(path("again.png").string()));
}

TEST_F(SampleOptions, NamesOfImagesAfterTheirSeed) {
  const Finished made = at({"sample", "m", "--seed", "7", "--first", "3", "-n", "2", "--names", "{seed}_{index}_a", "-o", "named"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_TRUE(fs::exists(path("named/7_00003_a.png")) && fs::exists(path("named/7_00004_a.png")));
  EXPECT_EQ(at({"sample", "m", "--seed", "7", "--first", "3", "-n", "2", "--names", "{seed}_{index}_a", "-o", "named", "--missing"}).code,
            0);
  for (const char* pattern : {"{seed}", "{index}/{seed}", "{index}{step}"})
    EXPECT_EQ(at({"sample", "m", "-n", "2", "--names", pattern, "-o", "other"}).err,
              "error: --names " + std::string(pattern) +
                  ": is no pattern of names; it needs {index}, may have {seed}, and no other braces or /\n");
  EXPECT_NE(at({"sample", "m", "-n", "1", "--names", "{seed}_{index}", "-o", "two.png"}).err.find("--names: has no effect"),
            std::string::npos);
}

TEST_F(SampleOptions, ClassesThatNoImageShows) {
  const Finished made = at({"sample", "m", "--classes", "0,1,2", "-n", "2", "-o", "two.png"});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.err.find("warning: --classes: the last 1 of 3 have no effect, as --count is 2\n"), std::string::npos) << made.err;
  EXPECT_NE(at({"sample", "m", "--tile", "8", "-n", "1", "-o", "two.png"}).err.find("warning: --tile: has no effect"), std::string::npos);
}

TEST_F(SampleOptions, SettingsWithoutEffect) {
  const auto told = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> all{"sample", "m", "-n", "1", "--steps", "3", "-o", "two.png"};
    all.insert(all.end(), settings.begin(), settings.end());
    return at(all).err;
  };
  const auto expect = [&](const std::vector<std::string>& settings, const std::string& warning) {
    const std::string said = told(settings);
    EXPECT_NE(said.find(warning), std::string::npos) << said;
  };
  expect({"--sampler", "rk45"}, "sample.steps: counts for the first and the last level alone");
  expect({"--sampler", "dpm_adaptive", "--spacing", "karras"}, "sample.spacing: only its first and last level count");
  expect({"--sampler", "{type: euler, s_noise: 1.1}"}, "s_noise has no effect, as s_churn is 0");
  expect({"--sampler", "{type: euler, s_churn: 1, s_tmin: 1e7, s_noise: 1.1}"}, "s_noise has no effect on these 3 steps");
  expect({"--sampler", "{type: unipc, disable_corrector: [7]}"}, "disable_corrector has no effect on these 3 steps");
  expect({"--set", "sample.guidance=[{type: clip, keep_direction: true}]", "--sampler", "unipc"}, "keep_direction has no effect");
  expect({"--set", "sample.guidance=[{type: dynamic_threshold, quantile: 0.9}]"}, "quantile has no effect, as maximum is 1 or less");
  for (const char* sampler : {"{type: euler, s_churn: 1, s_noise: 1.1}", "{type: unipc, disable_corrector: [0]}", "unipc"})
    EXPECT_EQ(told({"--sampler", sampler}).find("no effect"), std::string::npos) << sampler;
}

TEST_F(SampleOptions, AStoppedRunLeavesWhatItMade) {
  const Finished stopped = run({"timeout", "--foreground", "--preserve-status", "-s", "INT", "6", BRUME_BINARY_DIR "/brume", "sample", "m",
                                "-n", "1000000", "--batch", "4", "-o", "many"},
                               {folder_->path()});
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_NE(stopped.err.find(" of 1000000 images\n"), std::string::npos) << stopped.err;
  ASSERT_TRUE(fs::is_regular_file(path("many/00003.png")));
  ASSERT_EQ(at({"sample", "m", "-n", "4", "-o", "few"}).code, 0);
  EXPECT_EQ(read_image(path("many/00003.png").string()), read_image(path("few/00003.png").string()));
}

TEST_F(SampleOptions, TheDirectoryOfATraining) {
  EXPECT_EQ(at({"sample", "m", "-n", "1", "-o", "d.png"}).code, 0);
  EXPECT_EQ(at({"sample", "m/", "-n", "1", "-o", "d2.png"}).code, 0);
  EXPECT_EQ(read_image(path("d.png").string()), read_image(path("d2.png").string()));
  folder_->file("begun/config.yaml", "model: {}\n");
  EXPECT_EQ(at({"sample", "begun"}).err, "error: begun: is the directory of a training that has written no model.safetensors yet\n");
}

TEST_F(SampleOptions, NoRateBeforeThereIsTime) {
  const Finished done = at({"sample", "m", "-n", "1", "-o", "rate.png"});
  EXPECT_EQ(done.err.find("e+0"), std::string::npos) << done.err;
}

TEST_F(SampleOptions, WeightsAreNoConfiguration) {
  EXPECT_EQ(at({"check", "m/model.safetensors"}).err,
            "error: m/model.safetensors: is a weights file, no configuration; `brume check --show m/model.safetensors` prints the one it "
            "holds, `brume inspect m/model.safetensors` what else is in it\n");
  const Finished shown = at({"check", "--show", "m/model.safetensors"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_NE(shown.out.find("    type: class_label\n"), std::string::npos) << shown.out;
  folder_->file("shown.yaml", shown.out);
  EXPECT_EQ(at({"check", "shown.yaml"}).code, 0);
}

TEST_F(SampleOptions, AnImportKeepsItsSource) {
  const std::string before = read_text(path("m/model.safetensors"));
  fs::create_symlink(path("m/model.safetensors"), path("link.safetensors"));
  for (const char* target : {"m/model.safetensors", "m/../m/model.safetensors", "link.safetensors"})
    EXPECT_EQ(at({"import", "m/model.safetensors", "-o", target, "--overwrite"}).err,
              std::string("error: -o ") + target + ": is the source itself, which would be lost; name another file\n");
  EXPECT_EQ(read_text(path("m/model.safetensors")), before);
}

TEST_F(SampleOptions, AMetricNeedsTheClassesOfTheModel) {
  EXPECT_EQ(at({"evaluate", "m", "--metric", "caption_accuracy", "--captions", "captions.txt"}).err,
            "error: --captions: m/model.safetensors is conditioned on classes; --data has both classes and captions\n");
  EXPECT_EQ(at({"evaluate", "m", "--metric", "caption_accuracy", "--data", "{type: shapes, label: colour}"}).err,
            "error: --data: has 6 classes, and m/model.safetensors has 5\n");
}

TEST(UnknownWords, HaveTheNearest) {
  const auto said = [](std::vector<std::string> words) {
    const Finished done = run_brume(std::move(words));
    EXPECT_EQ(done.code, 2);
    return done.err;
  };
  EXPECT_EQ(said({"smaple", "m"}), "error: unknown command 'smaple'; did you mean 'sample'?\n");
  EXPECT_EQ(said({"plot", "spacign"}), "error: unknown chart 'spacign'; did you mean 'spacing'?\n");
  EXPECT_EQ(said({"sample", "m", "--stepss", "4"}), "error: brume sample: unknown option '--stepss'; did you mean '--steps'?\n");
  EXPECT_EQ(said({"sample", "m", "--stepss=4"}), "error: brume sample: unknown option '--stepss'; did you mean '--steps'?\n");
  EXPECT_EQ(said({"import", "m", "--ouput", "x"}), "error: brume import: unknown option '--ouput'; did you mean '--out'?\n");
  EXPECT_EQ(said({"check", "m", "--abcdefgh"}),
            "error: brume check: unknown option '--abcdefgh'; brume check --help lists those there are\n");
  EXPECT_EQ(said({"export", "m", "--to", "difusers", "x"}),
            "--to: unknown value 'difusers'; did you mean 'diffusers'?\nRun with --help for more information.\n");
  EXPECT_EQ(run_brume({"--help"}).code, 0);
  EXPECT_EQ(run_brume({"sample", "--help"}).code, 0);
}

TEST(Describe, Sections) {
  const auto out = [](std::vector<std::string> words) { return run_brume(std::move(words)).out; };
  EXPECT_TRUE(out({"describe", "sample"}).starts_with("section sample\n  how the model is sampled\n\n  name "));
  EXPECT_NE(out({"describe", "sample"}).find("\n  prompts.clip_skip "), std::string::npos);
  EXPECT_TRUE(out({"describe", "preview"}).starts_with("section train.preview\n"));
  EXPECT_NE(out({"describe", "train"}).find("\n  checkpoint_every "), std::string::npos);
  EXPECT_TRUE(out({"describe", "compute", "--markdown"})
                  .starts_with("### compute\n\nthe device, precision and threads of the computation\n\n| key |"));
  const auto err = [](std::vector<std::string> words) { return run_brume(std::move(words)).err; };
  EXPECT_EQ(err({"describe", "image"}),
            "error: 'image' is the name of several sections; which of model.image, classifier.image, autoencoder.image?\n");
  EXPECT_EQ(err({"describe", "trian"}), "error: unknown kind or section 'trian'; did you mean 'train'?\n");
  EXPECT_EQ(err({"describe", "smapler"}), "error: unknown kind or section 'smapler'; did you mean 'sampler'?\n");
  EXPECT_EQ(err({"describe", "spacing"}), "error: describe needs the name of a spacing as well, like: brume describe spacing ays\n");
}

}  // namespace
}  // namespace brume::test
