#include "brume/weights/weights_file.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>

#include "brume/interop/inspect.h"
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
                                "1 tensors, 2 parameters, 4 bytes\n"
                                "metadata:\n"
                                "  epoch = 3\n"
                                "tensors:\n"
                                "  x  F16      [2]                             4 bytes\n");
}

}  // namespace
}  // namespace brume
