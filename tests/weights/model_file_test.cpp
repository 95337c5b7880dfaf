#include "brume/weights/weights_file.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include "brume/interop/inspect.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/safetensors.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

const std::string readable = "; readable are safetensors files, PyTorch files (.pt, .pth, .ckpt) and GGUF files";

class ModelFile : public ::testing::Test {
 protected:
  std::string error(const std::string& bytes) const {
    const auto path = folder.file("weights", bytes);
    auto text = error_of([&] { load_tensors(path); }, folder);
    EXPECT_EQ(error_of([&] { inspect(path); }, folder), text);
    return text;
  }
  TemporaryFolder folder;
};

TEST_F(ModelFile, IsToldByItsContent) {
  write_safetensors(folder.file("a.pt"), {{"x", at::ones({2})}}, {{"step", "7"}});
  std::map<std::string, std::string> metadata;
  EXPECT_TRUE(at::equal(load_tensors(folder.file("a.pt"), &metadata)[0].tensor, at::ones({2})));
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"step", "7"}}));
  const auto tensor = pickle::tensor(pickle::storage("FloatStorage", "0", 2), 0, {2}, {1});
  const auto value = pickle::dict({{"epoch", "K\x03"}, {"name", pickle::text("run")}, {"state_dict", pickle::dict({{"x", tensor}})}});
  const auto path = folder.file("b.safetensors", torch_bytes(pickle::whole(value), {numbers<float>({1, 1})}));
  EXPECT_TRUE(at::equal(load_tensors(path, &metadata)[0].tensor, at::ones({2})));
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"epoch", "3"}, {"name", "run"}}));
}

TEST_F(ModelFile, SaysWhatAnUnknownFileBeginsWith) {
  EXPECT_EQ(error("GGUF\x03\x01\x02\x04more"), "weights: is a GGUF file of version 67240195; 2 and 3 are read");
  EXPECT_EQ(error(std::string("sys_info\0\0\0", 11)),
            "weights: is no weights file brume reads: it begins with 73 79 73 5f 69 6e 66 6f ('sys_info', a tar archive of PyTorch 0.1: "
            "load it with a newer PyTorch and save it again)" +
                readable);
  EXPECT_EQ(error("version https://git-lfs.github.com/spec/v1\n"),
            "weights: is no weights file brume reads: it begins with 76 65 72 73 69 6f 6e 20 ('version ', a Git LFS pointer instead of "
            "the file: run 'git lfs pull')" +
                readable);
  EXPECT_EQ(error("hello"), "weights: is no weights file brume reads: it begins with 68 65 6c 6c 6f ('hello')" + readable);
  EXPECT_EQ(error(""), "weights: is empty");
  EXPECT_EQ(error_of([&] { load_tensors(folder.file("absent")); }, folder), "absent: cannot be opened: No such file or directory");
}

TEST_F(ModelFile, PngIsListedButHoldsNoTensors) {
  EXPECT_EQ(error_of([&] { load_tensors(folder.file("x", "\x89PNG\r\n\x1a\n")); }, folder),
            "x: is no weights file brume reads: it begins with 89 50 4e 47 0d 0a 1a 0a ('.PNG....', a PNG image)" + readable);
}

TEST_F(ModelFile, IsListedForPeople) {
  const auto header = R"({"__metadata__":{"config":"a\nb"},"unet.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                      R"("f8":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[24,28]}})";
  const auto path = folder.file("m", safetensors_bytes(header, std::string(28, '\0')));
  EXPECT_EQ(inspect(path), path +
                               ": safetensors\n"
                               "family: none that brume knows\n"
                               "2 tensors, 10 parameters, 28 bytes\n"
                               "metadata:\n"
                               "  config = a b\n"
                               "tensors:\n"
                               "  unet.weight  F32      [2, 3]                         24 bytes\n"
                               "  f8           F8_E4M3  [4]                             4 bytes\n");
  const auto tensor = pickle::tensor(pickle::storage("HalfStorage", "0", 2), 0, {2}, {1});
  const auto value = pickle::dict({{"epoch", "K\x03"}, {"state_dict", pickle::dict({{"x", tensor}})}});
  const auto other = folder.file("t", torch_bytes(pickle::whole(value), {"abcd"}));
  EXPECT_EQ(inspect(other), other +
                                ": PyTorch zip file\n"
                                "family: none that brume knows\n"
                                "1 tensor, 2 parameters, 4 bytes\n"
                                "metadata:\n"
                                "  epoch = 3\n"
                                "tensors:\n"
                                "  x  F16      [2]                             4 bytes\n");
}

/// Weights "block.0.a" to "block.N-1.a" and a "head", of so many numbers each.
std::vector<Weight> of_blocks(int64_t count, int64_t width) {
  std::vector<Weight> all;
  for (int64_t i = 0; i < count; ++i) all.push_back({fmt::format("block.{}.a", i), at::ones({width})});
  all.push_back({"head", at::ones({width})});
  return all;
}

std::string misfit(const std::vector<Weight>& file, const std::vector<Weight>& model) {
  NamedTensors tensors;
  for (const Weight& w : file) tensors.push_back({w.name, w.tensor});
  try {
    fitting("m", tensors, model);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST(Misfits, AreGroupedBelowTheirReason) {
  EXPECT_EQ(misfit(of_blocks(20, 4), of_blocks(20, 4)), "");
  EXPECT_EQ(misfit(of_blocks(20, 4), of_blocks(20, 6)),
            "m: has 21 of 21 tensors in other sizes than the model: the configuration is of another size:\n"
            "m: tensor 'block.0.a' has shape [4], the model's has [6] (20 like this)\n"
            "m: tensor 'head' has shape [4], the model's has [6]");
  const std::string fewer = misfit(of_blocks(5, 4), of_blocks(25, 4));
  EXPECT_TRUE(fewer.starts_with("m: lacks 20 of 26 tensors of the model: it has fewer layers, or is cut off:\n")) << fewer;
  EXPECT_NE(fewer.find("m: lacks the tensor 'block.5.a' [4] (20 like this)"), fewer.npos) << fewer;
  EXPECT_EQ(misfit(of_blocks(25, 4), of_blocks(5, 4)),
            "m: has 20 tensors that the model does not: it has more layers or parts:\n"
            "m: has a tensor 'block.5.a' that the model does not (20 like this)");
  const std::string other = misfit({{"x", at::ones({1})}}, of_blocks(20, 4));
  EXPECT_TRUE(other.starts_with("m: has none of the 21 tensors of the model: it is of another architecture:\n")) << other;
  EXPECT_EQ(misfit(of_blocks(3, 4), of_blocks(5, 4)),
            "m: lacks the tensor 'block.3.a' [4]\n"
            "m: lacks the tensor 'block.4.a' [4]");
}

}  // namespace
}  // namespace brume
