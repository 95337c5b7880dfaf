// brume invert CHECKPOINT IMAGE...
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/inversion.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/files/atomic_file.h"
#include "brume/image/image.h"
#include "brume/train/class_scores.h"
#include "brume/weights/safetensors.h"
#include "commands/open_data.h"
#include "program/outputs.h"
#include "program/progress.h"
#include "sampling/arguments.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string source, data, out, json;
  std::vector<std::string> images;
  std::vector<int64_t> steps{10, 20, 50, 100};
  std::vector<std::string> classes;
  SampleArguments settings;
  int64_t count = 16, batch = 16;
};

/// One number of steps.
struct Row {
  int64_t steps;
  std::vector<double> errors;  ///< one per image
  Tensor noise;
  double mean() const {
    double sum = 0;
    for (const double e : errors) sum += e;
    return sum / double(errors.size());
  }
};

struct Input {
  Tensor images;
  std::vector<Annotation> annotations;
};

Tensor read_images(const Arguments& a, const ImageShape& shape) {
  std::vector<Tensor> all;
  for (const std::string& path : a.images) {
    const Image image = read_image(path, shape.channels);
    if (image.height != shape.height || image.width != shape.width)
      throw ConfigError(
          fmt::format("{}: has {}x{} pixels, and the model makes {}x{}", path, image.height, image.width, shape.height, shape.width));
    all.push_back(to_tensor(image));
  }
  return at::stack(all);
}

std::vector<Annotation> annotations(const Arguments& a, const ModelOptions& model) {
  const int64_t classes = model.conditioner->traits().classes;
  if (a.classes.empty() != (classes == 0))
    throw ConfigError(classes == 0 ? std::string("--classes: this model is not class-conditional")
                                   : fmt::format("--classes is missing: this model has {}, and needs the class of each image",
                                                 counted(classes, "class")));
  std::vector<std::string> names = model.class_names;
  for (int64_t i = int64_t(names.size()); i < classes; ++i) names.push_back(std::to_string(i));
  ImageRequest request{.classes = a.classes, .count = int64_t(a.images.size())};
  request.names = {{"classes", "--classes"}};
  return annotations_of(request, {classes, false, false}, names);
}

/// Returns the pictures of the command line, or the first images of the data set.
Input read_input(Program& program, const Arguments& a, const ModelOptions& model) {
  if (a.images.empty() == a.data.empty()) throw ConfigError("give pictures, or --data with a data set of them");
  if (a.data.empty()) return {read_images(a, model.image), annotations(a, model)};
  const auto data = with_classes(open_data(program, "--data", a.data, model.image), "--data", {model.class_names, "the model"});
  Input input;
  std::vector<Tensor> batches;
  for_each_batch(*data, model.image, a.batch, a.count, [&](const Tensor& images, const std::vector<Annotation>& known) {
    batches.push_back(images.clone());
    input.annotations.insert(input.annotations.end(), known.begin(), known.end());
    return true;
  });
  input.images = at::cat(batches);
  return input;
}

Row invert_with(const Arguments& a, const Pipeline& model, SampleOptions options, const Input& input, int64_t steps) {
  options.steps = steps;
  options.noise_order = NoiseOrder::per_image;
  const int64_t count = input.images.size(0);
  Progress progress(counted(steps, "step"), 2 * count * steps, "image steps");
  int64_t before = 0;
  const auto observer = [&](int64_t first, const Step& step) {
    const int64_t n = step.x.size(0);
    progress.update(before + first * steps + n * (step.index + 1), double(n));
    return !interrupted.load();
  };
  const InversionRequest there{input.images, input.annotations, a.batch, observer};
  Row row{steps, {}, invert(model, there, options)};
  before = count * steps;
  SampleRequest back;
  back.images = there.annotations;
  back.batch = a.batch;
  back.initial_noise = row.noise;
  back.observer = observer;
  const Tensor errors = reconstruction_error(input.images, sample_images(model, back, options).clamp(-1, 1)).contiguous();
  row.errors.assign(errors.data_ptr<double>(), errors.data_ptr<double>() + errors.numel());
  progress.finish();
  return row;
}

void write_json(const Arguments& a, const std::vector<Row>& rows) {
  if (a.json.empty()) return;
  nlohmann::ordered_json j{{"model", a.source}, {"images", a.images}, {"runs", nlohmann::ordered_json::array()}};
  for (const Row& r : rows) j["runs"].push_back({{"steps", r.steps}, {"mse", r.mean()}, {"per_image", r.errors}});
  write_file(a.json, j.dump(1) + "\n");
}

int invert_images(Program& program, const Arguments& a) {
  check_file("-o", a.out);
  check_file("--json", a.json);
  const Model model = open_measured(program.registry, a.settings);
  SampleOptions options = model.sampling(request_of(a.settings, model));
  options.guidance.clear();
  const Input input = read_input(program, a, model.pipeline().options());
  catch_interrupt();
  std::vector<Row> rows;
  for (const int64_t steps : a.steps) rows.push_back(invert_with(a, model.pipeline(), options, input, steps));
  fmt::print("{:>8} {:>20}\n", "steps", "error (MSE, [0, 1])");
  for (const Row& r : rows) fmt::print("{:>8} {:>20.6f}\n", r.steps, r.mean());
  if (!a.out.empty()) {
    NamedTensors tensors;
    for (const Row& r : rows) tensors.push_back({fmt::format("noise_{}_steps", r.steps), r.noise});
    make_parent(a.out);
    write_safetensors(a.out, tensors, {{"format", "brume-noise"}});
    fmt::print("{}\n", a.out);
  }
  write_json(a, rows);
  return 0;
}

}  // namespace

void add_invert(Command app, Program& program, int& code) {
  const Command command =
      app.add_subcommand("invert", "finds the noise from which a deterministic sampler makes given images, and measures how well it does");
  auto a = std::make_shared<Arguments>();
  command.add_option("source", a->source, "model.safetensors, or a YAML file").required().type_name("CHECKPOINT");
  command.add_option("images", a->images, "pictures of the model's size").type_name("IMAGE");
  command.add_option("--data", a->data, "a data set instead of pictures, or a configuration that names one").type_name("DATA");
  command.add_option("-n,--count", a->count, "images of the data set").capture_default_str().check(between(1, 100000));
  command.add_option("--steps", a->steps, "numbers of steps, one row of the table per number")
      .delimiter(',')
      .capture_default_str()
      .check(between(1, 1000000));
  command.add_option("--classes", a->classes, "what the images show, by name or number, in turn").delimiter(',');
  command.add_option("-o,--out", a->out, "the noise as safetensors, one tensor noise_N_steps per number of steps").type_name("FILE");
  a->settings.add_to(command, {"--sampler", "--spacing", "--set", "--precision", "--device", "--threads"});
  command.add_option("--batch", a->batch, "images at once").capture_default_str().check(between(1, 65536));
  command.add_option("--json", a->json, "writes the figures to a file as well").type_name("FILE");
  command.callback([&program, &code, a] {
    a->settings.source = a->source;
    code = invert_images(program, *a);
  });
}

}  // namespace brume::tools
