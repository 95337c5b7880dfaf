// brume quantize MODEL [--data DATA] -o FILE
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "brume/config/counted.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/configuration.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/pipeline.h"
#include "brume/diffusion/quantization.h"
#include "brume/train/loader.h"
#include "brume/weights/int8_tensors.h"
#include "commands/open_data.h"
#include "program/outputs.h"
#include "program/program.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string model, data, out;
  Calibration calibration;
  int64_t threads = 0;
};

/// Says what calibrates, for the file.
std::string set_images(Program& program, const Arguments& a, const ImageShape& image, Calibration& c) {
  if (a.data.empty()) {
    print_warning("no --data: the layers are measured on noise alone, which is not what they see at low noise levels");
    return fmt::format("noise, {}", counted(c.count, "image"));
  }
  const auto data = open_data(program, "--data", a.data, image);
  if (data->encoded()) throw ConfigError("--data: images are needed, and these are moments of a first stage");
  const int64_t count = data->size() > 0 ? std::min(c.count, data->size()) : c.count;
  Batch batch = read_in_turn(*data, image, 0, count);
  c.images = batch.images, c.annotations = std::move(batch.annotations);
  return fmt::format("{}, {}", a.data, counted(c.images.size(0), "image"));
}

void print_layers(const Quantization& q) {
  size_t kept = 0;
  for (const QuantizedLayer& l : q.layers) {
    kept += l.kept;
    fmt::print("  {:>7.3f} %  {}{}\n", 100 * l.error, l.name, l.kept ? ", kept in float32" : "");
  }
  fmt::print("error of the network in int8: {:.3f} %", 100 * q.first_error);
  if (kept > 0) fmt::print("; with {} of {} in float32: {:.3f} %", kept, counted(q.layers.size(), "layer"), 100 * q.error);
  fmt::print("\n");
}

void quantize_model(Program& program, const Arguments& a) {
  check_file("--out", a.out);
  const std::string path = model_file(a.model);
  StoredModel stored = open_stored(path);
  if (!int8_in(path, stored.tensors).weights.empty())
    throw ConfigError(fmt::format("{}: has weights of int8 already; quantize the model that it was made of", path));
  const auto options = read_section<ModelOptions>(program.registry, "model", stored.card.model, path, stored.card.plugins);
  const Compute compute = resolve_compute({Precision::int8, "cpu", a.threads});
  const ModelFiles files(program.registry, compute, std::filesystem::path(path).parent_path());
  const Pipeline pipeline(options, compute, {path, stored.tensors, stored.card.files}, files);
  Calibration calibration = a.calibration;
  const std::string data = set_images(program, a, options.image, calibration);
  std::optional<Progress> progress;
  std::string shown;
  calibration.progress = [&](const std::string& stage, int64_t done, int64_t all) {
    if (stage != shown) progress.reset(), progress.emplace(stage, all, "evaluations");
    shown = stage;
    progress->update(done, 1);
  };
  const Quantization quantization = quantize(pipeline, calibration);
  progress.reset();
  print_layers(quantization);
  if (quantization.error > calibration.limit)
    print_warning(fmt::format("the error of the network stays above --error {:g}, with half of the layers in float32", calibration.limit));
  stored.card.int8 = quantization.section(data);
  save_model(a.out, quantized_weights(pipeline, quantization), stored.card);
  fmt::print("{}: {:.1f} MiB, {}: {:.1f} MiB\n", path, double(std::filesystem::file_size(path)) / (1 << 20), a.out,
             double(std::filesystem::file_size(a.out)) / (1 << 20));
}

}  // namespace

void add_quantize(Command app, Program& program, int&) {
  const Command command =
      app.add_subcommand("quantize", "makes an int8 model: measures the error of each layer, and keeps the worst layers in float32");
  auto a = std::make_shared<Arguments>();
  command.add_option("model", a->model, "a model.safetensors, or a model that `brume import` takes").required().type_name("MODEL");
  command.add_option("--data", a->data, "images to measure on: {type: idx, ...}, or a YAML file of it; noise alone if not given")
      .type_name("DATA");
  command.add_option("-n,--count", a->calibration.count, "images to measure on, shared among eight noise levels")
      .capture_default_str()
      .check(between(1, 65536));
  command.add_option("--error", a->calibration.limit, "of the network's result, relative: layers are kept in float32 until it is less")
      .capture_default_str()
      .check(between(0.0, 1.0));
  command.add_option("--seed", a->calibration.seed, "of the noise").capture_default_str();
  command.add_option("--threads", a->threads, "processor threads; 0 = all cores").capture_default_str().check(between(0, 4096));
  command.add_option("-o,--out", a->out, "the model's file").required().type_name("FILE");
  command.callback([&program, a] { quantize_model(program, *a); });
}

}  // namespace brume::tools
