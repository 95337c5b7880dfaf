// The first loss of a training that starts from a model is that model's loss on the same batch, bit for bit, whatever program made it.
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/core/seed.h"
#include "brume/diffusion/pipeline.h"
#include "brume/files/atomic_file.h"
#include "brume/image/image.h"
#include "brume/interop/import/import.h"
#include "brume/train/source.h"
#include "brume/weights/safetensors.h"
#include "support/refs.h"
#include "train/autoencoder_support.h"

namespace brume::test {
namespace fs = std::filesystem;
namespace {

/// The file to start from: models of CompVis need a tokenizer that is not in their file, and are imported first.
std::string startable(const std::string& name, const TempFolder& folder) {
  const std::string path = ref_path(name).lexically_normal().string();
  if (!name.ends_with(".ckpt")) return path;
  const Contents contents =
      contents_of(import_model(path, {{{"tokenizer", ref_path("pipe/tiny_sd/tokenizer").string()}, {"text_heads", "4"}}, {}}));
  write_safetensors(folder.file("imported.safetensors"), contents.tensors, contents.metadata.entries());
  return folder.file("imported.safetensors");
}

int64_t number(const Value& root, const std::string& path) {
  const Value& v = nearest(root, path);
  return v.is_scalar() ? parse_number<int64_t>(v.scalar).value_or(0) : 0;
}

/// Images of the model's shape, in a folder per class or with captions. Returns the data set.
std::string images_for(const Value& model, const TempFolder& folder) {
  const int64_t classes = number(model, "model.conditioner.classes"), channels = number(model, "model.image.channels");
  for (int64_t i = 0; i < std::max<int64_t>(classes, 3); ++i) {
    const std::string place = classes > 0 ? fmt::format("data/c{:04}/", i) : "data/";
    fs::create_directories(folder.file(place));
    Image image(number(model, "model.image.height"), number(model, "model.image.width"), channels, 0);
    for (size_t p = 0; p < image.pixels.size(); ++p) image.pixels[p] = uint8_t(mix_seed(uint64_t(i), p) % 256);
    write_png(folder.file(fmt::format("{}{}.png", place, i)), image);
    if (classes == 0) write_file(folder.file(fmt::format("data/{}.txt", i)), "a small cat\n");
  }
  return fmt::format("{{type: {}, path: {}}}", classes > 0 ? "image_folder" : "captioned_folder", folder.file("data"));
}

class FirstLoss : public testing::TestWithParam<const char*> {};

TEST_P(FirstLoss, IsTheSources) {
  BRUME_NEED_REF(GetParam());
  const TempFolder folder;
  const std::string from = startable(GetParam(), folder);
  const StoredModel source = open_any(from);
  const std::string yaml = fmt::format(
      "train: {{from: {}, data: {}, batch: 2, steps: 1, seed: 11, preview: {{count: 0}}, log_every: 1}}\n"
      "compute: {{precision: fp32, threads: 1}}\n",
      from, images_for(sections(source.card), folder));
  Registry registry = builtins();
  Value resolved;
  const Config config = read_training(registry, parse_yaml(yaml, "x.yaml"), "", &resolved);
  const ModelFiles models(registry, resolve_compute(config.compute), "");
  Trainer trainer(config, resolved, folder.file("run"), {}, models);
  ASSERT_TRUE(trainer.run(nullptr));

  Pipeline pipeline(config.model, Compute{}, 0, &source.card.files);
  load_weights(from, source.tensors, pipeline.weights());
  for (const Weight& w : pipeline.weights()) Tensor(w.tensor).set_requires_grad(w.trainable);
  const TrainOptions& t = *config.train;
  Loader loader(t.data.make({config.image()}), config.image(), t.batch, mix_seed(11, 21), 0);
  const Batch batch = loader.next();
  at::Generator random = at::detail::createCPUGenerator(mix_seed(11, 22, 0));
  brume::Training state{0, 1, {}, &no_models()};
  EXPECT_EQ(double(metrics_of(folder.file("run")).front()["loss"]),
            pipeline.loss(*t.objective, {batch.images, batch.annotations}, state, random).item<double>());
}

INSTANTIATE_TEST_SUITE_P(Refs, FirstLoss,
                         testing::Values("pipe/tiny_sd", "pipe/tiny_ddpm", "ldm/tiny_ldm.ckpt", "net/gd_unet_adagn_class.pt",
                                         "net_edm/edm_songunet_ddpmpp_class.safetensors"),
                         [](const auto& info) {
                           return std::string(std::vector{"Diffusers", "DiffusersDdpm", "CompVis", "Adm", "Edm"}[info.index]);
                         });

}  // namespace
}  // namespace brume::test
