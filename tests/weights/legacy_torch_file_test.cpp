// torch.save before PyTorch 1.6, and what training programs store with their weights.
#include "brume/weights/legacy_torch_file.h"

#include <ATen/ops/equal.h>

#include <nlohmann/json.hpp>

#include "brume/interop/inspect.h"
#include "brume/weights/torch_file.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

const auto floats = numbers<float>({0, 1, 2, 3, 4, 5});

/// ("storage", class, key, device, elements, the part of it that is meant)
std::string storage(std::string_view kind, std::string_view key, int32_t count, const std::string& view = "N") {
  return pickle::tuple({pickle::text("storage"), pickle::global("torch", kind), pickle::text(key), pickle::text("cpu"),
                        pickle::integer(count), view}) +
         "Q";
}

std::vector<float> values_of(const at::Tensor& tensor) {
  const auto dense = tensor.to(at::kFloat).contiguous();
  return {dense.data_ptr<float>(), dense.data_ptr<float>() + dense.numel()};
}

class LegacyTorchFile : public ::testing::Test {
 protected:
  NamedTensors load(const std::string& bytes) const { return load_tensors(folder.file("x.pt", bytes)); }
  std::string error(const std::string& bytes) const {
    return error_of([&] { load(bytes); }, folder);
  }
  /// One tensor on the storage '7' of six floats.
  std::string one(const std::vector<LegacyStorage>& storages, const std::string& of = storage("FloatStorage", "7", 6)) const {
    return legacy_torch_bytes(pickle::whole(pickle::dict({{"a", pickle::tensor(of, 0, {2, 3}, {3, 1})}})), storages);
  }
  TemporaryFolder folder;
};

TEST_F(LegacyTorchFile, ViewsShareTheirStorage) {
  const auto f = storage("FloatStorage", "94", 6), half = storage("HalfStorage", "12", 2), flags = storage("BoolStorage", "5", 2);
  const auto value = pickle::whole(pickle::dict({{"base", pickle::tensor(f, 0, {2, 3}, {3, 1})},
                                                 {"half", pickle::tensor(half, 0, {2}, {1})},
                                                 {"transposed", pickle::tensor(f, 0, {3, 2}, {1, 3})},
                                                 {"column", pickle::tensor(f, 1, {2}, {3})},
                                                 {"scalar", pickle::tensor(f, 5, {}, {})},
                                                 {"flags", pickle::tensor(flags, 0, {2}, {1})},
                                                 {"empty", pickle::tensor(f, 6, {0, 3}, {3, 1})}}));
  for (size_t shift = 0; shift < 8; ++shift) {  // the storages are wherever the pickles end
    const auto padded = pickle::whole(pickle::text(std::string(shift, ' ')) + "0" + value.substr(2, value.size() - 3));
    const auto tensors = load(
        legacy_torch_bytes(padded, {{"12", 2, numbers<uint16_t>({0x3c00, 0xc000})}, {"5", 2, std::string("\1\0", 2)}, {"94", 6, floats}}));
    ASSERT_EQ(tensors.size(), 7u);
    EXPECT_EQ(values_of(*find(tensors, "base")), (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(values_of(*find(tensors, "transposed")), (std::vector<float>{0, 3, 1, 4, 2, 5}));
    EXPECT_EQ(values_of(*find(tensors, "column")), (std::vector<float>{1, 4}));
    EXPECT_EQ(values_of(*find(tensors, "scalar")), (std::vector<float>{5}));
    EXPECT_EQ(values_of(*find(tensors, "half")), (std::vector<float>{1, -2}));
    EXPECT_EQ(values_of(*find(tensors, "flags")), (std::vector<float>{1, 0}));
    EXPECT_EQ(find(tensors, "empty")->sizes().vec(), (std::vector<int64_t>{0, 3}));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(find(tensors, "base")->data_ptr()) % 4, 0u);
    find(tensors, "base")->mul_(10);
    EXPECT_EQ(values_of(*find(tensors, "column")), (std::vector<float>{10, 40}));
  }
}

TEST_F(LegacyTorchFile, ReadsPartsOfStoragesAndOldRebuilding) {
  const auto part = storage("FloatStorage", "7", 6, pickle::tuple({pickle::text("8"), pickle::integer(2), pickle::integer(3)}));
  const auto rebuilt = pickle::global("torch._utils", "_rebuild_tensor") +
                       pickle::tuple({part, pickle::integer(1), pickle::integers({2}), pickle::integers({1})}) + "R";
  const auto parameter = pickle::global("torch._utils", "_rebuild_parameter") + pickle::tuple({rebuilt, "\x88", "]"}) + "R";
  EXPECT_EQ(values_of(load(legacy_torch_bytes(pickle::whole(pickle::dict({{"a", parameter}})), {{"7", 6, floats}}))[0].tensor),
            (std::vector<float>{3, 4}));
  const auto beyond = storage("FloatStorage", "7", 6, pickle::tuple({pickle::text("8"), pickle::integer(4), pickle::integer(3)}));
  EXPECT_EQ(error(one({{"7", 6, floats}}, beyond)), "x.pt: 3 elements from 4 on reach beyond a storage of 6");
  EXPECT_EQ(error(one({{"7", 6, floats}}, part)),
            "x.pt: a tensor of shape [2, 3], strides [3, 1] and offset 0 reaches beyond its storage of 3 elements");
}

TEST_F(LegacyTorchFile, RefusesDamage) {
  const auto whole = one({{"7", 6, floats}});
  EXPECT_EQ(error(whole), "no error");
  EXPECT_EQ(error(whole.substr(0, whole.size() - 3)), "x.pt: is truncated: storage '7' has 24 bytes, 21 are there");
  EXPECT_EQ(error(whole.substr(0, whole.size() - 30)), "x.pt: is truncated: storage '7' has 24 bytes, 0 are there");
  const auto start = whole.find("\x80\x02}(X\x01");  // of what was saved
  EXPECT_EQ(error(whole.substr(0, start + 40)), "x.pt: its pickle cannot be read: at byte 10: a line without an end");
  EXPECT_EQ(error(one({{"7", 5, floats}})), "x.pt: storage '7' should have 6 elements of Float, but has 5");
  EXPECT_EQ(error(one({})), "x.pt: storage '7' is missing from the file");
  EXPECT_EQ(error(one({{"7", 6, floats}, {"8", 6, floats}})), "x.pt: holds a storage '8' that its pickle does not speak of");
  EXPECT_EQ(error(one({{"7", 6, floats}, {"7", 6, floats}})), "x.pt: holds a storage '7' that its pickle does not speak of");
  EXPECT_EQ(error(one({{"7", 6, floats}}, storage("FloatStorage", "7", INT32_MAX))),
            "x.pt: storage '7' should have 2147483647 elements of Float, more than the file can hold");
  EXPECT_EQ(error(one({{"7", 2, std::string("\1\5", 2)}}, storage("BoolStorage", "7", 2))),
            "x.pt: a tensor of shape [2, 3], strides [3, 1] and offset 0 reaches beyond its storage of 2 elements");
  const auto two = pickle::dict({{"a", pickle::tensor(storage("FloatStorage", "7", 6), 0, {1}, {1})},
                                 {"b", pickle::tensor(storage("IntStorage", "7", 6), 0, {1}, {1})}});
  EXPECT_EQ(error(legacy_torch_bytes(pickle::whole(two), {{"7", 6, floats}})), "x.pt: storage '7' has 6 elements of Float and 6 of Int");
}

TEST_F(LegacyTorchFile, RefusesOtherMachinesAndProtocols) {
  const auto value = pickle::whole("}");
  EXPECT_EQ(error(legacy_torch_bytes(value, {}, false)), "x.pt: its numbers are big-endian (readable: little)");
  EXPECT_EQ(error(legacy_torch_bytes(value, {}, true, 1002)), "x.pt: is of the legacy protocol 1002 (readable: 1001)");
  EXPECT_EQ(error(legacy_torch_bytes(value, {})), "x.pt: holds no tensors, but {}");
  const auto call = pickle::global("os", "system") + pickle::tuple({pickle::text("ls")}) + "R";
  EXPECT_EQ(error(legacy_torch_bytes(pickle::whole(call), {})),
            "x.pt: refuses to load 'os.system': only tensors and plain data are read from a PyTorch file, and nothing in it is executed; "
            "save its state_dict() alone, or convert it to safetensors");
}

TEST_F(LegacyTorchFile, IsListed) {
  const auto path = folder.file("x.pt", one({{"7", 6, floats}}));
  EXPECT_EQ(inspect(path), path +
                               ": legacy PyTorch file\n"
                               "family: none that brume knows\n"
                               "1 tensor, 6 parameters, 24 bytes\n"
                               "tensors:\n"
                               "  a  F32      [2, 3]                         24 bytes\n");
}

TEST_F(LegacyTorchFile, HoldsTheValuesOfTheReference) {
  const auto path = shared_file("refs/formats/legacy_nonzip.pt");
  if (path.empty()) GTEST_SKIP() << "refs/formats/legacy_nonzip.pt is not in BRUME_SHARED";
  const auto tensors = load_tensors(path), others = load_tensors(shared_file("refs/formats/flat.pt"));
  EXPECT_EQ(tensors.size(), others.size());
  for (const auto& [name, tensor] : others) {
    ASSERT_NE(find(tensors, name), nullptr) << name;
    EXPECT_TRUE(at::equal(*find(tensors, name), tensor)) << name;
  }
}

// --- what stands with the weights

class TrainingFile : public ::testing::Test {
 protected:
  std::string bytes(const std::string& value) const { return torch_bytes(pickle::whole(value), {floats}); }
  std::string names(const std::string& value, std::map<std::string, std::string>* metadata = nullptr) const {
    std::string all;
    for (const auto& [name, tensor] : load_tensors(folder.file("x.ckpt", bytes(value)), metadata)) all += name + " ";
    return all;
  }
  const std::string tensor = pickle::tensor(pickle::storage("FloatStorage", "0", 6), 0, {6}, {1});
  TemporaryFolder folder;
};

std::string called(const std::string& global, const std::vector<std::string>& arguments = {}) {
  return global + pickle::tuple(arguments) + "R";
}

TEST_F(TrainingFile, OfLightningIsReadWithoutItsCallbacks) {
  const auto checkpointing = pickle::global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint");
  const auto scalar = called(pickle::global("numpy.core.multiarray", "scalar"),
                             {called(pickle::global("numpy", "dtype"), {pickle::text("f8"), "\x89", "\x88"}) + "(K\x03Ntb",
                              called(pickle::global("_codecs", "encode"), {pickle::text("x"), pickle::text("latin1")})});
  const auto callbacks = "}(" + checkpointing + pickle::dict({{"best", "N"}}) + "u";
  const auto parameters = called(pickle::global("pytorch_lightning.utilities.parsing", "AttributeDict")) + "(" + pickle::text("lr") +
                          "G?\xf0" + std::string(6, '\0') + "u";
  const auto space = pickle::global("argparse", "Namespace") + ")\x81" + pickle::dict({{"lr", "K\x01"}}) + "b";
  const auto optimizer = pickle::dict({{"state", std::string("}(K\0", 4) + pickle::dict({{"exp_avg", tensor}}) + "u"}});
  std::map<std::string, std::string> metadata;
  EXPECT_EQ(names(pickle::dict({{"epoch", "K\x03"},
                                {"pytorch-lightning_version", pickle::text("1.4.2")},
                                {"state_dict", pickle::dict({{"model.w", tensor}})},
                                {"callbacks", callbacks},
                                {"hyper_parameters", parameters},
                                {"args", space},
                                {"optimizer_states", "]" + optimizer + "a"},
                                {"defaults", called(pickle::global("collections", "defaultdict"), {pickle::global("builtins", "list")})},
                                {"set", called(pickle::global("builtins", "set"), {"]"})},
                                {"lowest", scalar}}),
                  &metadata),
            "model.w ");
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"epoch", "3"}, {"pytorch-lightning_version", "1.4.2"}}));
}

TEST_F(TrainingFile, RefusesDangerBesideTheWeights) {
  const auto refused = [&](const std::string& module, const std::string& name) {
    const auto value = pickle::dict({{"state_dict", pickle::dict({{"w", tensor}})},
                                     {"callbacks", called(pickle::global(module, name), {pickle::text("touch /tmp/x")})}});
    const auto text = error_of([&] { names(value); }, folder);
    return text.substr(0, text.find(':', 8));
  };
  EXPECT_EQ(refused("os", "system"), "x.ckpt: refuses to load 'os.system'");
  EXPECT_EQ(refused("posix", "system"), "x.ckpt: refuses to load 'posix.system'");
  EXPECT_EQ(refused("builtins", "eval"), "x.ckpt: refuses to load 'builtins.eval'");
  EXPECT_EQ(refused("numpy.testing._private.utils", "runstring"), "x.ckpt: refuses to load 'numpy.testing._private.utils.runstring'");
  EXPECT_EQ(refused("torch.nn.modules.linear", "Linear"), "x.ckpt: refuses to load 'torch.nn.modules.linear.Linear'");
}

TEST_F(TrainingFile, GivesAveragedWeightsFirst) {
  const auto weights = pickle::dict({{"w", tensor}});
  const auto both = pickle::dict({{"model", weights}, {"ema", weights}, {"opt", pickle::dict({{"state", weights}})}, {"step", "K\x05"}});
  std::map<std::string, std::string> metadata;
  EXPECT_EQ(names(both, &metadata), "w ");
  EXPECT_EQ(metadata, (std::map<std::string, std::string>{{"state_dict", "ema"}, {"step", "5"}}));
  EXPECT_EQ(names(pickle::dict({{"optimizer", pickle::dict({{"state", weights}})}, {"model", weights}}), &metadata), "w ");
  EXPECT_EQ(metadata.at("state_dict"), "model");
  EXPECT_EQ(names(pickle::dict({{"model", weights}, {"z", tensor}})), "model.w z ");  // a state dict that has a part of that name
}

TEST_F(TrainingFile, ReadsTensorsWithAttributes) {
  const auto view =
      pickle::tuple({pickle::storage("FloatStorage", "0", 6), pickle::integer(0), pickle::integers({6}), pickle::integers({1})});
  const auto subclass = called(pickle::global("torch._tensor", "_rebuild_from_type_v2"),
                               {pickle::global("torch._utils", "_rebuild_tensor_v2"), pickle::global("torch", "Tensor"), view, "}"});
  const auto parameter = called(pickle::global("torch._utils", "_rebuild_parameter_with_state"), {tensor, "\x88", "]", "}"});
  EXPECT_EQ(names(pickle::dict({{"a", subclass}, {"b", parameter}})), "a b ");
}

}  // namespace
}  // namespace brume
