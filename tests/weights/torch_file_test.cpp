#include "brume/weights/torch_file.h"

#include <ATen/ops/equal.h>

#include <nlohmann/json.hpp>

#include "brume/weights/safetensors.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

const std::string float_storage = pickle::storage("FloatStorage", "0", 6);

/// A file whose only tensor "a" is a view of six floats.
std::string one_tensor(int32_t offset, const std::vector<int32_t>& sizes, const std::vector<int32_t>& strides) {
  return torch_bytes(pickle::whole(pickle::dict({{"a", pickle::tensor(float_storage, offset, sizes, strides)}})),
                     {numbers<float>({0, 1, 2, 3, 4, 5})});
}

std::vector<float> values_of(const at::Tensor& tensor) {
  const auto dense = tensor.contiguous();
  return {dense.data_ptr<float>(), dense.data_ptr<float>() + dense.numel()};
}

class TorchFile : public ::testing::Test {
 protected:
  PickleValue load(const std::string& bytes) const { return load_torch_file(folder.file("x.pt", bytes)); }
  std::string error(const std::string& bytes) const {
    return error_of([&] { state_dict(load(bytes), "x.pt"); }, folder);
  }
  TemporaryFolder folder;
};

TEST_F(TorchFile, ViewsShareTheirStorage) {
  const auto pickle = pickle::whole(pickle::dict({{"base", pickle::tensor(float_storage, 0, {2, 3}, {3, 1})},
                                                  {"transposed", pickle::tensor(float_storage, 0, {3, 2}, {1, 3})},
                                                  {"column", pickle::tensor(float_storage, 1, {2}, {3})},
                                                  {"scalar", pickle::tensor(float_storage, 5, {}, {})},
                                                  {"expanded", pickle::tensor(float_storage, 2, {2, 2}, {0, 0})},
                                                  {"empty", pickle::tensor(float_storage, 6, {0, 3}, {3, 1})}}));
  const auto tensors = state_dict(load(torch_bytes(pickle, {numbers<float>({0, 1, 2, 3, 4, 5})})));
  ASSERT_EQ(tensors.size(), 6u);
  EXPECT_EQ(values_of(*find(tensors, "base")), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(values_of(*find(tensors, "transposed")), (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(values_of(*find(tensors, "column")), (std::vector<float>{1, 4}));
  EXPECT_EQ(values_of(*find(tensors, "scalar")), (std::vector<float>{5}));
  EXPECT_EQ(values_of(*find(tensors, "expanded")), (std::vector<float>{2, 2, 2, 2}));
  EXPECT_EQ(find(tensors, "empty")->sizes().vec(), (std::vector<int64_t>{0, 3}));
  find(tensors, "base")->mul_(10);
  EXPECT_EQ(values_of(*find(tensors, "column")), (std::vector<float>{10, 40}));
  EXPECT_EQ(find(tensors, "absent"), nullptr);
}

TEST_F(TorchFile, ReadsCompressedAndMisalignedAndZip64Archives) {
  const auto data = pickle::whole(pickle::dict({{"a", pickle::tensor(float_storage, 0, {6}, {1})}}));
  const auto floats = numbers<float>({0, 1, 2, 3, 4, 5});
  const std::vector<float> expected{0, 1, 2, 3, 4, 5};
  EXPECT_EQ(values_of(state_dict(load(torch_bytes(data, {floats}, true)))[0].tensor), expected);
  for (size_t padding = 0; padding < 8; ++padding) {
    const auto bytes = zip_bytes({{"a/data.pkl", data}, {"a/data/0", floats, false, padding}});
    const auto tensor = state_dict(load(bytes))[0].tensor;
    EXPECT_EQ(values_of(tensor), expected);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 4, 0u);
  }
  const auto zip64 = zip_bytes({{"a/data.pkl", data, false, 0, true}, {"a/data/0", floats, false, 3, true}}, true);
  EXPECT_EQ(values_of(state_dict(load(zip64))[0].tensor), expected);
  const auto commented = zip_bytes({{"a/data.pkl", data}, {"a/data/0", floats}}) + std::string(1000, ' ');
  EXPECT_EQ(values_of(state_dict(load(commented))[0].tensor), expected);
}

TEST_F(TorchFile, ReadsWhatSurroundsTheTensors) {
  const auto call = [](std::string_view module, std::string_view name, const std::vector<std::string>& arguments) {
    return pickle::global(module, name) + pickle::tuple(arguments) + "R";
  };
  const auto tensor = pickle::tensor(float_storage, 0, {6}, {1});
  const auto old_view = {float_storage, pickle::integer(1), pickle::integers({2}), pickle::integers({2})};
  const auto pickle = pickle::dict({{"epoch", pickle::integer(3)},
                                    {"dtype", pickle::global("torch", "float16")},
                                    {"device", call("torch", "device", {pickle::text("cuda"), pickle::integer(1)})},
                                    {"size", call("torch", "Size", {pickle::integers({2, 3})})},
                                    {"parameter", call("torch._utils", "_rebuild_parameter", {tensor, "\x88", "N"})},
                                    {"old", call("torch._utils", "_rebuild_tensor", old_view)}});
  const auto value = load(torch_bytes(pickle::whole(pickle), {numbers<float>({0, 1, 2, 3, 4, 5})}));
  const auto& dict = *value.as_dict();
  EXPECT_EQ(*dict.find("epoch")->as_int(), 3);
  EXPECT_EQ(dict.find("dtype")->as_name()->text(), "torch.float16");
  EXPECT_EQ(dict.find("device")->as_name()->text(), "cuda:1");
  EXPECT_EQ(dict.find("size")->summary(), "a tuple of 2");
  EXPECT_EQ(dict.find("parameter")->as_tensor()->numel(), 6);
  EXPECT_EQ(values_of(*dict.find("old")->as_tensor()), (std::vector<float>{1, 3}));
}

TEST_F(TorchFile, FindsTheStateDict) {
  const auto tensor = pickle::tensor(float_storage, 0, {6}, {1});
  const auto names = [&](const std::string& value) {
    std::string all;
    const auto bytes = torch_bytes(pickle::whole(value), {numbers<float>({0, 1, 2, 3, 4, 5})});
    for (const auto& found : state_dict(load(bytes))) all += found.name + " ";
    return all;
  };
  EXPECT_EQ(names(pickle::dict({{"b", tensor}, {"a", tensor}, {"n", "K\x01"}})), "b a ");
  EXPECT_EQ(names(pickle::dict({{"epoch", "K\x01"}, {"state_dict", pickle::dict({{"x.y", tensor}})}, {"other", tensor}})), "x.y ");
  EXPECT_EQ(names(pickle::dict({{"ema", pickle::dict({{"x", tensor}, {"deep", pickle::dict({{"y", tensor}})}})}, {"z", tensor}})),
            "ema.x ema.deep.y z ");
  EXPECT_EQ(names("}(K\x01" + tensor + "u"), "1 ");
}

TEST_F(TorchFile, RefusesFilesWithoutAStateDict) {
  const auto wrong = [&](const std::string& value) {
    return error(torch_bytes(pickle::whole(value), {numbers<float>({0, 1, 2, 3, 4, 5})}));
  };
  EXPECT_EQ(wrong(pickle::dict({{"epoch", "K\x01"}, {"list", "]"}})), "x.pt: holds no tensors, but {'epoch': 1, 'list': a list of 0}");
  EXPECT_EQ(wrong("]"), "x.pt: holds a list of 0 instead of a state dict");
  EXPECT_EQ(wrong(pickle::tensor(float_storage, 0, {2, 3}, {3, 1})), "x.pt: holds a tensor of [2, 3] instead of a state dict");
  const auto tensor = pickle::tensor(float_storage, 0, {6}, {1});
  EXPECT_EQ(wrong(pickle::dict({{"a.b", tensor}, {"a", pickle::dict({{"b", tensor}})}})), "x.pt: two tensors are called 'a.b'");
}

TEST_F(TorchFile, RefusesEveryOtherGlobalByName) {
  const std::string tail =
      ": only tensors and plain data are read from a PyTorch file, and nothing in it is executed; save its "
      "state_dict() alone, or convert it to safetensors";
  const auto refused = [&](const std::string& module, const std::string& name) {
    return error(torch_bytes(pickle::whole(pickle::global(module, name) + pickle::tuple({pickle::text("touch /tmp/x")}) + "R"), {}));
  };
  EXPECT_EQ(refused("os", "system"), "x.pt: refuses to load 'os.system'" + tail);
  EXPECT_EQ(refused("builtins", "eval"), "x.pt: refuses to load 'builtins.eval'" + tail);
  EXPECT_EQ(refused("torch", "load"), "x.pt: refuses to load 'torch.load'" + tail);
  EXPECT_EQ(refused("torch", "QInt8Storage"), "x.pt: refuses to load 'torch.QInt8Storage'" + tail);
  EXPECT_EQ(refused("torch", "FloatStorage"), "x.pt: its pickle calls 'torch.FloatStorage' with 1 argument, which makes no sense");
  const auto stack_global = "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.";
  EXPECT_EQ(error(torch_bytes(stack_global, {})), "x.pt: refuses to load 'os.system'" + tail);
}

TEST_F(TorchFile, ChecksEveryViewAgainstItsStorage) {
  const auto beyond = [](const std::string& view) { return "x.pt: a tensor of " + view + " reaches beyond its storage of 6 elements"; };
  EXPECT_EQ(error(one_tensor(0, {2, 3}, {3, 1})), "no error");
  EXPECT_EQ(error(one_tensor(1, {2, 3}, {3, 1})), beyond("shape [2, 3], strides [3, 1] and offset 1"));
  EXPECT_EQ(error(one_tensor(0, {7}, {1})), beyond("shape [7], strides [1] and offset 0"));
  EXPECT_EQ(error(one_tensor(-1, {2}, {1})), beyond("shape [2], strides [1] and offset -1"));
  EXPECT_EQ(error(one_tensor(5, {2}, {-1})), beyond("shape [2], strides [-1] and offset 5"));
  EXPECT_EQ(error(one_tensor(0, {-2}, {1})), beyond("shape [-2], strides [1] and offset 0"));
  EXPECT_EQ(error(one_tensor(0, {2, 3}, {1})), beyond("shape [2, 3], strides [1] and offset 0"));
  EXPECT_EQ(error(one_tensor(7, {0}, {1})), beyond("shape [0], strides [1] and offset 7"));
  const int32_t big = INT32_MAX;
  EXPECT_EQ(error(one_tensor(0, {big, big, big}, {0, 0, 0})),
            beyond("shape [2147483647, 2147483647, 2147483647], strides [0, 0, 0] and offset 0"));
  EXPECT_EQ(error(one_tensor(0, {big, big, big}, {big, big, big})),
            beyond("shape [2147483647, 2147483647, 2147483647], strides [2147483647, 2147483647, 2147483647] and offset 0"));
}

TEST_F(TorchFile, ChecksStorages) {
  const auto with = [&](const std::string& storage, const std::vector<std::string>& storages) {
    return error(torch_bytes(pickle::whole(pickle::dict({{"a", pickle::tensor(storage, 0, {1}, {1})}})), storages));
  };
  EXPECT_EQ(with(float_storage, {}), "x.pt: storage 'archive/data/0' is missing from the archive");
  EXPECT_EQ(with(float_storage, {numbers<float>({1})}), "x.pt: storage '0' should have 6 elements of Float, but has 1");
  EXPECT_EQ(with(pickle::storage("BoolStorage", "0", 2), {std::string("\1\5", 2)}),
            "x.pt: tensor 'archive/data/0' is boolean, but element 1 is 5 (allowed: 0, 1)");
  EXPECT_EQ(with(pickle::storage("Size", "0", 2), {"12"}), "x.pt: 'torch.Size' is no kind of storage");
  EXPECT_EQ(with("K\x01Q", {}), "x.pt: its pickle refers to something other than a storage");
  const auto two = pickle::dict(
      {{"a", pickle::tensor(float_storage, 0, {1}, {1})}, {"b", pickle::tensor(pickle::storage("IntStorage", "0", 6), 0, {1}, {1})}});
  EXPECT_EQ(error(torch_bytes(pickle::whole(two), {std::string(24, '\0')})), "x.pt: storage '0' is of type Float and of type Int");
}

TEST_F(TorchFile, RefusesOtherArchives) {
  const auto data = pickle::whole("}");
  EXPECT_EQ(error(zip_bytes({{"x/data.pkl", data}, {"x/byteorder", "big"}})), "x.pt: its numbers are big-endian (readable: little)");
  EXPECT_EQ(error(zip_bytes({{"word/document.xml", "<>"}})),
            "x.pt: is a zip archive without a data.pkl, so no PyTorch file (it holds 'word/document.xml'...)");
  EXPECT_EQ(error(zip_bytes({})), "x.pt: is a zip archive without a data.pkl, so no PyTorch file (it holds nothing...)");
}

TEST_F(TorchFile, ReadsTheTensorsOfATorchScriptProgram) {
  // As torch.jit.save has modules: GLOBAL, EMPTY_TUPLE, NEWOBJ, a dict of the attributes, BUILD.
  const auto module = [](const std::string& name, const std::string& attributes) {
    return "c__torch__\n" + name + "\n)\x81" + attributes + "b";
  };
  const auto inner = module("Inner", pickle::dict({{"weight", pickle::tensor(float_storage, 0, {2, 3}, {3, 1})}}));
  const auto outer = module("Outer", pickle::dict({{"visual", inner}, {"bias", pickle::tensor(float_storage, 3, {3}, {1})}}));
  const std::string floats = numbers<float>({0, 1, 2, 3, 4, 5});
  const auto tensors =
      state_dict(load(zip_bytes({{"x/data.pkl", pickle::whole(outer)}, {"x/data/0", floats}, {"x/code/__torch__.py", ""}})));
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "visual.weight");
  EXPECT_EQ(values_of(tensors[0].tensor), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(values_of(tensors[1].tensor), (std::vector<float>{3, 4, 5}));
  EXPECT_EQ(error(zip_bytes({{"x/data.pkl", pickle::whole(outer)}, {"x/data/0", floats}})).substr(0, 43),
            "x.pt: refuses to load '__torch__.Outer': on");
}

TEST_F(TorchFile, RefusesDamagedArchives) {
  const std::string damaged = "x.pt: is a damaged zip archive: ";
  const auto whole = one_tensor(0, {6}, {1});
  EXPECT_EQ(error(whole.substr(0, 10)), damaged + "it is truncated: 10 bytes, too short for an archive");
  EXPECT_EQ(error(whole.substr(0, whole.size() / 2)), damaged + "it is truncated: the directory at its end is missing");
  EXPECT_EQ(error(whole.substr(1)), damaged + "its directory ends after 0 of 3 entries");
  EXPECT_EQ(error(zip_bytes({{"a/data.pkl", "x"}, {"a/data.pkl", "y"}})), damaged + "'a/data.pkl' is there twice");
  auto bomb = zip_bytes({{"a/data.pkl", std::string(100, 'x'), true}});
  const auto size = bomb.find("PK\x01\x02") + 24;
  bomb.replace(size, 4, raw<uint32_t>(1 << 30));
  EXPECT_EQ(error(bomb), damaged + "'a/data.pkl' would have 1073741824 bytes, more than " +
                             std::to_string(deflated(std::string(100, 'x')).size()) + " bytes can hold");
  bomb.replace(size, 4, raw<uint32_t>(99));
  EXPECT_EQ(error(bomb), damaged + "'a/data.pkl' does not decompress to its 99 bytes");
  auto changed = whole;
  changed[changed.find(numbers<float>({4}))] = '\1';  // a byte of a storage
  EXPECT_EQ(error(changed), damaged + "the checksum of 'archive/data/0' is wrong");
  changed = whole;
  changed[changed.find("FloatStorage")] = 'f';  // a byte of the pickle
  EXPECT_EQ(error(changed), damaged + "the checksum of 'archive/data.pkl' is wrong");
}

TEST_F(TorchFile, ReadsTheReferenceFile) {
  const auto path = shared_file("refs/formats/flat.pt");
  if (path.empty()) GTEST_SKIP() << "refs/formats is not in BRUME_SHARED";
  const auto tensors = state_dict(load_torch_file(path));
  const auto formats = nlohmann::json::parse(content_of(shared_file("refs/formats/formats.json")));
  for (const auto& [name, expected] : formats.at("flat.pt / nested.pt['state_dict'] / legacy_nonzip.pt").items()) {
    const auto* tensor = find(tensors, name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->sizes().vec(), expected.at("shape").get<std::vector<int64_t>>()) << name;
    const auto values = tensor->to(at::kDouble).flatten();
    const auto wanted = expected.at("values_as_double").get<std::vector<double>>();
    ASSERT_EQ(values.numel(), static_cast<int64_t>(wanted.size())) << name;
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(values[static_cast<int64_t>(i)].item<double>(), wanted[i]) << name;
  }
}

TEST_F(TorchFile, HoldsTheTensorsOfTheSafetensorsFile) {
  for (const std::string name : {"decoder", "encoder"}) {
    const auto path = shared_file("weights/taef2/taef2_" + name + ".pth");
    if (path.empty()) GTEST_SKIP() << "weights/taef2 is not in BRUME_SHARED";
    const auto tensors = state_dict(load_torch_file(path));
    const SafetensorsFile other(shared_file("weights/taef2/taef2_" + name + ".safetensors"));
    EXPECT_EQ(tensors.size(), other.entries().size());
    for (const auto& [key, tensor] : tensors) {
      ASSERT_TRUE(other.contains(key)) << key;
      EXPECT_EQ(tensor.scalar_type(), other.tensor(key).scalar_type()) << key;
      EXPECT_TRUE(at::equal(tensor, other.tensor(key))) << key;
    }
  }
}

}  // namespace
}  // namespace brume
