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
  std::string source, out = "sample.png", frames, strip, noise, trajectory;
  std::vector<std::string> classes;
  SampleSettings settings;
  int64_t count = 0, batch = 16, columns = 0;
  uint64_t seed = 0;
};

int64_t class_index(const std::string& word, const ModelOptions& model) {
  const int64_t classes = model.conditioner->classes();
  if (classes == 0) throw ConfigError("--classes: this model is not class-conditional");
  for (size_t i = 0; i < model.class_names.size(); ++i)
    if (model.class_names[i] == word) return int64_t(i);
  int64_t index = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), index);
  if (error != std::errc() || end != word.data() + word.size())
    throw ConfigError(fmt::format("--classes: no class '{}'{}", word, hint(word, model.class_names)));
  if (index < 0 || index >= classes)
    throw ConfigError(fmt::format("--classes: class {} is out of range: this model has {} classes, 0 to {}", index, classes, classes - 1));
  return index;
}

/// What each image is to be: the classes in turn.
std::vector<Annotation> wanted(const Asked& a, const ModelOptions& model) {
  std::vector<int64_t> classes;
  for (const std::string& word : a.classes) classes.push_back(class_index(word, model));
  if (classes.empty())
    for (int64_t c = 0; c < model.conditioner->classes(); ++c) classes.push_back(c);
  const int64_t count = a.count > 0 ? a.count : a.classes.empty() ? 16 : int64_t(a.classes.size());
  std::vector<Annotation> all;
  for (int64_t i = 0; i < count; ++i) all.push_back({classes.empty() ? -1 : classes[size_t(i) % classes.size()], ""});
  return all;
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

int sample(Program& program, const Asked& a) {
  const ModelSource source(a.source);
  const Config config = source.configuration(program, a.settings);
  const std::unique_ptr<Pipeline> pipeline = source.load(config);
  const ModelOptions& m = config.model;
  if (const std::string warning = blas_warning(); !warning.empty()) fmt::print(stderr, "warning: {}\n", warning);
  SampleRequest request;
  request.images = wanted(a, m);
  request.seed = a.seed;
  request.batch = config.sample.noise_order == NoiseOrder::batch ? std::max(a.batch, int64_t(request.images.size())) : a.batch;
  if (!a.noise.empty()) request.initial_noise = io::load_tensors(a.noise).at(0).tensor;
  const bool record = !a.frames.empty() || !a.strip.empty() || !a.trajectory.empty();
  Recorder recorder{*m.noise, {}, {}, {}, {}};
  const int64_t count = int64_t(request.images.size());
  Progress progress("sample", count * config.sample.steps, "image steps");
  request.observer = [&](int64_t first, const Step& step) {
    if (record) recorder.add(first, step);
    const int64_t n = step.x.size(0);
    progress.update(first * step.count + n * (step.index + 1), double(n));
    return !interrupted.load();
  };
  catch_interrupt();
  const Tensor images = pipeline->sample(request, config.sample);
  progress.finish();

  std::vector<std::string> labels;
  for (const Annotation& i : request.images)
    if (i.label >= 0) labels.push_back(size_t(i.label) < m.class_names.size() ? m.class_names[size_t(i.label)] : std::to_string(i.label));
  write_images(a, images, labels, {{"brume", fmt::format("{} --seed {} --steps {}", a.source, a.seed, config.sample.steps)}});
  if (!record) return 0;
  std::vector<Tensor> x = Recorder::joined(recorder.x);
  x.push_back(images);
  if (!a.frames.empty()) write_frames(a, x);
  if (!a.strip.empty()) write_strip(a, x);
  if (!a.trajectory.empty()) {
    io::write_safetensors(a.trajectory, {{"x", at::stack(x)},
                                         {"x0", at::stack(Recorder::joined(recorder.x0))},
                                         {"sigma", at::tensor(recorder.sigma)},
                                         {"t", at::tensor(recorder.t)}});
    fmt::print("{}\n", a.trajectory);
  }
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
  command->callback([&program, &code, a] { code = sample(program, *a); });
}

}  // namespace brume::tools
