// Networks as NVlabs' programs pickle them: the dict and its tensors, and that nothing else is called.
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <random>

#include "brume/weights/weights_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

/// A tensor whose storage is in the pickle, as Tensor.__reduce_ex__ has it outside of torch.save.
std::string tensor_of(const std::vector<float>& values) {
  const auto count = int32_t(values.size());
  const std::string id = pickle::tuple({pickle::text("storage"), pickle::global("torch", "FloatStorage"), pickle::text("7"),
                                        pickle::text("cpu"), pickle::integer(count), "N"}) +
                         "Q";
  const std::string saved = legacy_torch_bytes(pickle::whole(id), {{"7", count, numbers<float>(values)}});
  const std::string storage =
      pickle::global("torch.storage", "_load_from_bytes") + "B" + raw<uint32_t>(uint32_t(saved.size())) + saved + "\x85R";
  return pickle::tensor(storage, 0, {count}, {1});
}

std::string network_of(const std::string& name, const std::vector<std::pair<std::string, std::string>>& state) {
  return pickle::global("torch_utils.persistence", "_reconstruct_persistent_obj") +
         pickle::dict({{"type", pickle::text("class")},
                       {"module_src", pickle::text("raise SystemExit('the source is run')")},
                       {"class_name", pickle::text(name)},
                       {"state", pickle::dict(state)}}) +
         "\x85R";
}

std::string file_of(const std::string& inner) {
  const std::string block = network_of("Block", {{"_parameters", pickle::dict({{"w", inner}})},
                                                 {"_buffers", "}"},
                                                 {"_modules", "}"},
                                                 {"resample_filter", "](" + pickle::integer(1) + pickle::integer(3) + "e"},
                                                 {"clip_act", "N"},
                                                 {"names", "](" + pickle::text("a") + "e"},
                                                 {"num_heads", pickle::integer(2)},
                                                 {"out_channels", pickle::integer(16)}});
  const std::string container = pickle::global("torch.nn.modules.container", "ModuleDict") + ")\x81" +
                                pickle::dict({{"_parameters", "}"}, {"_modules", pickle::dict({{"8x8_block0", block}})}}) + "b";
  const std::string ema = network_of("Precond", {{"_parameters", pickle::dict({{"gain", tensor_of({3})}})},
                                                 {"_buffers", pickle::dict({{"freqs", tensor_of({1, 2})}})},
                                                 {"_modules", pickle::dict({{"enc", container}})},
                                                 {"img_resolution", pickle::integer(8)}});
  return pickle::whole(pickle::dict({{"ema", ema}, {"dataset_kwargs", pickle::global("dnnlib.util", "EasyDict") + ")\x81"}}));
}

TEST(NetworkPickle, HasItsTensorsAndNumbers) {
  const TemporaryFolder folder;
  std::map<std::string, std::string> metadata;
  const NamedTensors tensors = load_tensors(folder.file("net.pkl", file_of(tensor_of({4, 5, 6}))), &metadata);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_TRUE(at::equal(*find(tensors, "gain"), at::tensor({3.f})));
  EXPECT_TRUE(at::equal(*find(tensors, "freqs"), at::tensor({1.f, 2.f})));
  EXPECT_TRUE(at::equal(*find(tensors, "enc.8x8_block0.w"), at::tensor({4.f, 5.f, 6.f})));
  EXPECT_EQ(metadata.at("channels_per_head"), "8");
  EXPECT_EQ(metadata.at("img_resolution"), "8");
  EXPECT_EQ(metadata.at("resample_filter"), "1, 3");
  EXPECT_EQ(metadata.at("clip_act"), "none");
  EXPECT_FALSE(metadata.contains("names"));
  EXPECT_EQ(metadata.at("class_name"), "Precond");
}

TEST(NetworkPickle, CallsNothingElse) {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& inner) {
    return error_of([&] { load_tensors(folder.file("net.pkl", file_of(inner))); }, folder);
  };
  EXPECT_NE(
      error(pickle::global("os", "system") + pickle::tuple({pickle::text("true")}) + "R").find("net.pkl: refuses to load 'os.system'"),
      std::string::npos);
  EXPECT_EQ(error_of(
                [&] {
                  load_tensors(folder.file("x.pkl", pickle::whole(pickle::dict({{"a", pickle::integer(1)}}))));
                },
                folder),
            "x.pkl: is a pickle without a network: no 'ema' with parameters is in it");
  EXPECT_EQ(error_of([&] { load_tensors(folder.file("x.pkl", pickle::whole("N"))); }, folder), "x.pkl: holds none instead of a network");
}

TEST(NetworkPickle, DamagedOnesAreErrors) {
  const TemporaryFolder folder;
  const std::string whole = file_of(tensor_of({4, 5, 6}));
  std::mt19937 random(3);
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    for (int changes = 0; changes < 3; ++changes) bytes[2 + random() % (bytes.size() - 2)] = char(random());
    if (i % 8 == 0) bytes.resize(2 + random() % (bytes.size() - 2));
    const auto path = folder.file("x", bytes);
    try {
      load_tensors(path);
    } catch (const ConfigError&) {
    }
    std::filesystem::remove(path);
  }
}

}  // namespace
}  // namespace brume
