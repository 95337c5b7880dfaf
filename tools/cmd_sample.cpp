// brume sample CHECKPOINT
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>

#include "config/suggest.h"
#include "io/image.h"
#include "io/model_file.h"
#include "io/safetensors.h"
#include "model_source.h"
#include "train/progress.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Asked {
  std::string source, out = "sample.png", frames, strip, noise, trajectory, image, mask;
  std::vector<std::string> classes;
  SampleSettings settings;
  int64_t count = 0, batch = 16, columns = 0;
  uint64_t seed = 0;
  std::optional<double> strength;  ///< 0.6 of an image, 1 with a mask
};

int64_t class_index(const std::string& word, const std::vector<std::string>& names) {
  if (names.empty()) throw ConfigError("--classes: this model is not class-conditional");
  if (const auto named = std::find(names.begin(), names.end(), word); named != names.end()) return named - names.begin();
  const int64_t classes = int64_t(names.size());
  int64_t index = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), index);
  if (error != std::errc() || end != word.data() + word.size())
    throw ConfigError(fmt::format("--classes: no class '{}'{}", word, hint(word, names)));
  if (index < 0 || index >= classes)
    throw ConfigError(fmt::format("--classes: class {} is out of range: this model has {} classes, 0 to {}", index, classes, classes - 1));
  return index;
}

/// What each image is to be: the classes in turn.
std::vector<Annotation> wanted(const Asked& a, const std::vector<std::string>& names) {
  std::vector<int64_t> classes;
  for (const std::string& word : a.classes) classes.push_back(class_index(word, names));
  if (classes.empty())
    for (size_t c = 0; c < names.size(); ++c) classes.push_back(int64_t(c));
  const int64_t count = a.count > 0 ? a.count : a.classes.empty() ? 16 : int64_t(a.classes.size());
  std::vector<Annotation> all;
  for (int64_t i = 0; i < count; ++i) all.push_back({classes.empty() ? -1 : classes[size_t(i) % classes.size()], ""});
  return all;
}

/// [1, C, H, W] in [-1, 1], of the size that the model makes.
Tensor given_image(const std::string& option, const std::string& file, int64_t channels, const ImageShape& shape) {
  if (!fs::is_regular_file(file)) throw ConfigError(fmt::format("{}: there is no file '{}'", option, file));
  if (channels != 1 && channels != 3)
    throw ConfigError(fmt::format("{}: the model makes {} channels, and an image file has 1 or 3", option, channels));
  const io::Image image = io::read_image(file, channels);
  if (image.height != shape.height || image.width != shape.width)
    throw ConfigError(fmt::format("{}: {} is {} pixels high and {} wide, and the model makes {} by {}", option, file, image.height,
                                  image.width, shape.height, shape.width));
  return io::to_tensor(image).unsqueeze(0);
}

void set_image(SampleRequest& request, const Asked& a, const ImageShape& shape) {
  if (a.image.empty()) {
    if (!a.mask.empty()) throw ConfigError("--mask: there is no image it is laid over; --image FILE names one");
    if (a.strength) throw ConfigError("--strength: there is no image to start from; --image FILE names one");
    return;
  }
  request.image = given_image("--image", a.image, shape.channels, shape);
  if (!a.mask.empty()) request.mask = (given_image("--mask", a.mask, 1, shape) + 1) / 2;
  request.strength = a.strength.value_or(a.mask.empty() ? 0.6 : 1);
}

/// How it was made, for the file of an image.
std::string command_of(const Asked& a, int64_t steps) {
  std::string text = fmt::format("{} --seed {} --steps {}", a.source, a.seed, steps);
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) text += fmt::format(" {} {}", option, value);
  };
  add("--cfg", a.settings.cfg);
  add("--classifier", a.settings.classifier);
  add("--classifier-scale", a.settings.classifier_scale);
  add("--image", a.image);
  add("--mask", a.mask);
  if (a.strength) text += fmt::format(" --strength {}", *a.strength);
  return text;
}

/// What an observer keeps of a run, where asked: x in the network's frame and x0, step by step, batch by batch.
struct Recorder {
  const NoiseSchedule& schedule;
  std::vector<std::vector<Tensor>> x, x0;  ///< [step][batch]
  std::vector<double> sigma, t;
  void add(int64_t first, const Step& step) {
    const size_t i = size_t(step.index);
    if (i >= x.size()) x.resize(i + 1), x0.resize(i + 1);
    x[i].push_back((step.x * schedule.signal(step.sigma)).cpu());
    x0[i].push_back(step.x0.cpu());
    if (first == 0) sigma.push_back(step.sigma), t.push_back(schedule.time(step.sigma));
  }
  static std::vector<Tensor> joined(const std::vector<std::vector<Tensor>>& parts) {
    std::vector<Tensor> all;
    for (const auto& p : parts) all.push_back(at::cat(p));
    return all;
  }
};

std::vector<io::Image> tiles(const Tensor& images) {
  std::vector<io::Image> all;
  for (int64_t i = 0; i < images.size(0); ++i) all.push_back(io::to_image(images[i]));
  return all;
}

int64_t columns(const Asked& a, size_t count) { return a.columns > 0 ? a.columns : int64_t(std::ceil(std::sqrt(double(count)))); }

void write_images(const Asked& a, const Tensor& images, const std::vector<std::string>& labels,
                  const std::map<std::string, std::string>& text) {
  const std::vector<io::Image> all = tiles(images);
  const fs::path out = a.out;
  if (out.extension() == ".png") {
    if (out.has_parent_path()) fs::create_directories(out.parent_path());
    if (all.size() == 1)
      io::write_png(out.string(), all[0], text);
    else
      io::write_png(out.string(),
                    labels.empty() ? io::grid(all, columns(a, all.size())) : io::labelled_grid(all, columns(a, all.size()), labels), text);
    fmt::print("{}\n", out.string());
    return;
  }
  fs::create_directories(out);
  for (size_t i = 0; i < all.size(); ++i) io::write_png((out / fmt::format("{:05}.png", i)).string(), all[i], text);
  fmt::print("{}: {} images\n", out.string(), all.size());
}

void write_frames(const Asked& a, const std::vector<Tensor>& frames) {
  std::vector<io::Image> pictures;
  for (const Tensor& f : frames) {
    const std::vector<io::Image> all = tiles(f);
    pictures.push_back(all.size() == 1 ? all[0] : io::grid(all, columns(a, all.size())));
  }
  const fs::path out = a.frames;
  if (out.extension() == ".png" || out.extension() == ".apng") {
    io::write_apng(out.string(), pictures, 100);
  } else {
    fs::create_directories(out);
    for (size_t i = 0; i < pictures.size(); ++i) io::write_png((out / fmt::format("step_{:04}.png", i)).string(), pictures[i]);
  }
  fmt::print("{}\n", out.string());
}

/// One row an image, from noise to clean, in at most ten columns.
void write_strip(const Asked& a, const std::vector<Tensor>& frames) {
  const size_t shown = std::min<size_t>(10, frames.size());
  std::vector<io::Image> all;
  for (int64_t image = 0; image < std::min<int64_t>(frames[0].size(0), 16); ++image)
    for (size_t k = 0; k < shown; ++k) all.push_back(io::to_image(frames[k * (frames.size() - 1) / std::max<size_t>(1, shown - 1)][image]));
  io::write_png(a.strip, io::grid(all, int64_t(shown)));
  fmt::print("{}\n", a.strip);
}

std::vector<std::string> labels_of(const SampleRequest& request, const std::vector<std::string>& names) {
  std::vector<std::string> labels;
  for (const Annotation& i : request.images)
    if (i.label >= 0) labels.push_back(names[size_t(i.label)]);
  return labels;
}

void write_record(const Asked& a, const Recorder& recorder, const Tensor& images) {
  std::vector<Tensor> x = Recorder::joined(recorder.x);
  x.push_back(images);
  if (!a.frames.empty()) write_frames(a, x);
  if (!a.strip.empty()) write_strip(a, x);
  if (a.trajectory.empty()) return;
  io::write_safetensors(a.trajectory, {{"x", at::stack(x)},
                                       {"x0", at::stack(Recorder::joined(recorder.x0))},
                                       {"sigma", at::tensor(recorder.sigma)},
                                       {"t", at::tensor(recorder.t)}});
  fmt::print("{}\n", a.trajectory);
}

int sample(Program& program, const Asked& a) {
  const SampleSource source(a.source);
  const Config config = source.configuration(program, a.settings);
  const std::unique_ptr<Pipeline> pipeline = source.load(program, config);
  const ModelFiles others = source.others(program, *pipeline);
  if (const std::string warning = blas_warning(); !warning.empty()) fmt::print(stderr, "warning: {}\n", warning);
  const std::vector<std::string> names = pipeline->classes(config.sample, others);
  SampleRequest request;
  request.images = wanted(a, names);
  request.seed = a.seed;
  request.models = &others;
  request.batch = config.sample.noise_order == NoiseOrder::batch ? std::max(a.batch, int64_t(request.images.size())) : a.batch;
  if (!a.noise.empty()) request.initial_noise = io::load_tensors(a.noise).at(0).tensor;
  set_image(request, a, config.model.image);
  const bool record = !a.frames.empty() || !a.strip.empty() || !a.trajectory.empty();
  if (record && config.sample.sampler->own_steps())
    throw ConfigError(
        "--frames, --strip and --trajectory need a sampler that takes the steps it is given; this one takes steps of its own");
  Recorder recorder{*config.model.noise, {}, {}, {}, {}};
  std::optional<Progress> progress;
  request.observer = [&](int64_t first, const Step& step) {
    if (record) recorder.add(first, step);
    const int64_t count = int64_t(request.images.size()), steps = config.sample.steps;
    if (!progress) progress.emplace("sample", count * steps, "image steps");
    progress->update(image_steps(first, std::min(request.batch, count - first), steps, step), double(step.x.size(0)));
    return !interrupted.load();
  };
  catch_interrupt();
  const Tensor images = pipeline->sample(request, config.sample);
  if (progress) progress->finish();
  write_images(a, images, labels_of(request, names), {{"brume", command_of(a, config.sample.steps)}});
  if (record) write_record(a, recorder, images);
  return 0;
}

}  // namespace

void add_sample(CLI::App& app, Program& program, int& code) {
  CLI::App* command = app.add_subcommand("sample", "makes images from a checkpoint (or from a configuration whose network has no weights)");
  auto a = std::make_shared<Asked>();
  command->add_option("source", a->source, "model.safetensors, or a YAML file")->required()->type_name("CHECKPOINT");
  command->add_option("-o,--out", a->out, "FILE.png = one picture (a grid), anything else = a directory of images")->capture_default_str();
  command->add_option("--classes", a->classes, "numbers or names, taken in turn")->delimiter(',');
  command->add_option("-n,--count", a->count, "number of images; 16, or one a class named")
      ->check(CLI::Range(int64_t(1), int64_t(100000000)));
  command->add_option("--cfg", a->settings.cfg, "scale of classifier-free guidance");
  command->add_option("--classifier", a->settings.classifier, "classifier guidance by this model.safetensors of one that knows noise")
      ->type_name("FILE");
  command->add_option("--classifier-scale", a->settings.classifier_scale, "of that guidance; 1 where not given");
  command->add_option("--image", a->image, "starts from an image, of the size that the model makes")->type_name("FILE");
  command->add_option("--strength", a->strength, "share of the steps that is run on the image: 0.6, or 1 with a mask")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--mask", a->mask, "what of the image is to be made anew: white; black is kept")->type_name("FILE");
  command->add_option("--seed", a->seed, "of the noise")->capture_default_str();
  command->add_option("--batch", a->batch, "images at once; changes nothing but speed and memory")
      ->capture_default_str()
      ->check(CLI::Range(int64_t(1), int64_t(65536)));
  command->add_option("--grid", a->columns, "columns of the picture")->check(CLI::Range(int64_t(1), int64_t(1000)));
  command->add_option("--frames", a->frames, "every step: FILE.png = one animated picture (APNG), else a directory");
  command->add_option("--strip", a->strip, "a picture of the way from noise to image")->type_name("FILE.png");
  command->add_option("--noise", a->noise, "initial noise N(0, 1) [count, C, H, W] from a safetensors file")->type_name("FILE");
  command->add_option("--trajectory", a->trajectory, "every step's x (network's frame), x0, sigma and t as safetensors")->type_name("FILE");
  a->settings.add_to(*command);
  command->callback([&program, &code, a] {
    a->settings.inpaint = !a->mask.empty();
    code = sample(program, *a);
  });
}

}  // namespace brume::tools
