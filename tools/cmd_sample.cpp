// brume sample CHECKPOINT
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/all.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <optional>

#include "io/image.h"
#include "io/model_file.h"
#include "io/safetensors.h"
#include "model_source.h"
#include "replay.h"
#include "train/progress.h"
#include "wishes.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Asked {
  std::string source, from, out = "sample.png", frames, strip, noise, trajectory, image, mask;
  Wishes wishes;
  SampleSettings settings;
  int64_t batch = 16, columns = 0, height = 0, width = 0;  ///< 0 = the model's own
  uint64_t seed = 0;
  std::optional<double> strength;  ///< 0.6 of an image, 1 with a mask
};

/// The one tensor of a safetensors file, [B, C, H, W] in [0, 1], where eight bits a pixel are too few; in [-1, 1].
Tensor exact_image(const std::string& option, const std::string& file, int64_t channels) {
  const io::NamedTensors tensors = io::load_tensors(file);
  if (tensors.size() != 1 || tensors[0].tensor.dim() != 4 || tensors[0].tensor.size(1) != channels)
    throw ConfigError(fmt::format("{}: {} must hold one tensor [B, {}, H, W] of values in [0, 1]", option, file, channels));
  return tensors[0].tensor.to(at::kFloat) * 2 - 1;
}

/// [1, C, H, W] in [-1, 1], of the size that the model makes, where that is told.
Tensor given_image(const std::string& option, const std::string& file, int64_t channels, const std::optional<ImageShape>& shape) {
  if (!fs::is_regular_file(file)) throw ConfigError(fmt::format("{}: there is no file '{}'", option, file));
  if (fs::path(file).extension() == ".safetensors") return exact_image(option, file, channels);
  if (channels != 1 && channels != 3)
    throw ConfigError(fmt::format("{}: the model makes {} channels, and an image file has 1 or 3", option, channels));
  const io::Image image = io::read_image(file, channels);
  if (shape && (image.height != shape->height || image.width != shape->width))
    throw ConfigError(fmt::format("{}: {} is {} pixels high and {} wide, and the model makes {} by {}", option, file, image.height,
                                  image.width, shape->height, shape->width));
  return io::to_tensor(image).unsqueeze(0);
}

/// `beside`: the model makes images out of others; where those are not masked ones, it says itself of which sizes.
void set_image(SampleRequest& request, const Asked& a, const ImageShape& shape, bool beside, bool masks) {
  if (a.image.empty()) {
    if (!a.mask.empty()) throw ConfigError("--mask: there is no image it is laid over; --image FILE names one");
    if (a.strength) throw ConfigError("--strength: there is no image to start from; --image FILE names one");
    return;
  }
  request.image = given_image("--image", a.image, shape.channels, beside && !masks && !a.strength ? std::nullopt : std::optional(shape));
  if (!a.mask.empty()) request.mask = (given_image("--mask", a.mask, 1, shape) + 1) / 2;
  request.strength = a.strength.value_or(a.mask.empty() && !beside ? 0.6 : 1);
}

/// How these images are made again, all or one of them: the source, then options with their values.
std::vector<std::string> arguments_of(const Asked& a, const Config& config, const std::vector<Annotation>& images,
                                      std::optional<size_t> one = {}) {
  std::vector<std::string> all{a.source};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) all.insert(all.end(), {option, value});
  };
  const auto number = [&](const char* option, int64_t value, bool wanted) { add(option, wanted ? std::to_string(value) : ""); };
  add("--seed", std::to_string(a.seed));
  number("--steps", config.sample.steps, true);
  const Wishes& w = a.wishes;
  if (one) {
    const Annotation& image = images[*one];
    if (config.model.conditioner->captions()) all.insert(all.end(), {"--prompt", image.caption});
    add("--negative", image.negative);
    number("--classes", image.label, image.label >= 0);
    number("--first", w.first + int64_t(*one), true);
    number("--count", 1, true);
  } else {
    for (const std::string& prompt : w.prompts) all.insert(all.end(), {"--prompt", prompt});
    add("--prompts", w.prompts_file);
    for (const std::string& negative : w.negatives) all.insert(all.end(), {"--negative", negative});
    add("--classes", fmt::format("{}", fmt::join(w.classes, ",")));
    number("--images-per-prompt", w.per_prompt, w.per_prompt > 0);
    number("--first", w.first, w.first > 0);
    number("--count", w.count, w.count > 0);
  }
  number("--height", a.height, a.height > 0);
  number("--width", a.width, a.width > 0);
  const SampleSettings& s = a.settings;
  add("--sampler", s.sampler);
  add("--spacing", s.spacing);
  add("--noise-order", s.noise_order);
  add("--tile", s.tile);
  for (const std::string& lora : s.lora) all.insert(all.end(), {"--lora", lora});
  for (const std::string& setting : s.import) all.insert(all.end(), {"--import", setting});
  for (const std::string& embedding : s.embeddings) all.insert(all.end(), {"--embedding", embedding});
  add("--prompt-weights", s.prompt_weights);
  add("--long-prompts", s.long_prompts);
  add("--clip-skip", s.clip_skip);
  add("--cfg", s.cfg);
  add("--classifier", s.classifier);
  add("--classifier-scale", s.classifier_scale);
  add("--image", a.image);
  add("--mask", a.mask);
  if (a.strength) add("--strength", fmt::format("{}", *a.strength));
  add("--noise", a.noise);
  for (const std::string& set : s.overrides.set)
    if (may_be_told("--set", set)) add("--set", set);  // plugins are named again by whoever makes it again
  add("--precision", s.overrides.precision);
  return all;
}

/// What an observer keeps of a run, where asked: x in the network's frame and x0, step by step, batch by batch.
struct Recorder {
  const NoiseSchedule& schedule;
  std::vector<std::vector<Tensor>> x, x0;  ///< [step][batch]
  std::vector<double> sigma, t;
  std::vector<Tensor> end;  ///< [batch]: x at the end
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

void write_images(const Asked& a, const Config& config, const Tensor& images, const std::vector<Annotation>& wanted,
                  const std::vector<std::string>& names) {
  const std::vector<io::Image> all = tiles(images);
  const std::vector<std::string> labels = labels_of(wanted, names);
  const auto text = origin_text(arguments_of(a, config, wanted));
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
  const bool apart = config.sample.noise_order != NoiseOrder::batch && a.noise.empty();  // each can be made by itself
  for (size_t i = 0; i < all.size(); ++i)
    io::write_png((out / fmt::format("{:05}.png", a.wishes.first + int64_t(i))).string(), all[i],
                  apart ? origin_text(arguments_of(a, config, wanted, i)) : text);
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

/// What is shown of each step: x, where it is pixels; what the estimates decode to, where it is latents.
std::vector<Tensor> frames_of(const std::vector<Tensor>& x, const std::vector<Tensor>& x0, const Tensor& images, const Pipeline& pipeline) {
  if (x.back().sizes() == images.sizes()) return x;
  const at::NoGradGuard no_grad;
  std::vector<Tensor> frames;
  for (const Tensor& latents : x0)
    frames.push_back(pipeline.autoencoder().decode(latents.to(pipeline.compute().device)).to(at::kFloat).cpu());
  frames.push_back(images);
  return frames;
}

void write_record(const Asked& a, const Recorder& recorder, const Tensor& images, const Pipeline& pipeline) {
  std::vector<Tensor> x = Recorder::joined(recorder.x), x0 = Recorder::joined(recorder.x0);
  const bool pixels = x.front().sizes() == images.sizes();
  x.push_back(pixels ? images : at::cat(recorder.end));
  if (!a.frames.empty() || !a.strip.empty()) {
    const std::vector<Tensor> frames = frames_of(x, x0, images, pipeline);
    if (!a.frames.empty()) write_frames(a, frames);
    if (!a.strip.empty()) write_strip(a, frames);
  }
  if (a.trajectory.empty()) return;
  io::write_safetensors(a.trajectory, {{"x", at::stack(x)},
                                       {"x0", at::stack(x0)},
                                       {"image", images},
                                       {"sigma", at::tensor(recorder.sigma)},
                                       {"t", at::tensor(recorder.t)}});
  fmt::print("{}\n", a.trajectory);
}

int sample(Program& program, const Asked& a) {
  const SampleSource source(a.source, a.settings.import);
  const Config config = source.configuration(program, a.settings);
  const std::unique_ptr<Pipeline> pipeline = source.load(program, config);
  const ModelFiles others = source.others(program, *pipeline);
  if (const std::string warning = blas_warning(); !warning.empty()) fmt::print(stderr, "warning: {}\n", warning);
  const std::vector<std::string> names = pipeline->classes(config.sample, others);
  SampleRequest request;
  request.images = a.wishes.images({int64_t(names.size()), config.model.controls().has_null, config.model.controls().captions}, names);
  request.first = a.wishes.first;
  request.seed = a.seed;
  request.height = a.height;
  request.width = a.width;
  request.models = &others;
  request.batch = config.sample.noise_order == NoiseOrder::batch ? std::max(a.batch, int64_t(request.images.size())) : a.batch;
  if (!a.noise.empty()) request.initial_noise = io::load_tensors(a.noise).at(0).tensor;
  const ImageShape& own = config.model.image;
  set_image(request, a, {own.channels, a.height > 0 ? a.height : own.height, a.width > 0 ? a.width : own.width}, pipeline->image_beside(),
            config.model.conditioner->masks());
  const bool record = !a.frames.empty() || !a.strip.empty() || !a.trajectory.empty();
  if (record && config.sample.sampler->own_steps())
    throw ConfigError(
        "--frames, --strip and --trajectory need a sampler that takes the steps it is given; this one takes steps of its own");
  Recorder recorder{*config.model.noise, {}, {}, {}, {}, {}};
  if (record) request.ended = [&](const Tensor& x) { recorder.end.push_back(x.to(at::kFloat).cpu()); };
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
  write_images(a, config, images, request.images, names);
  if (record) write_record(a, recorder, images, *pipeline);
  return 0;
}

}  // namespace

void add_sample(CLI::App& app, Program& program, int& code) {
  CLI::App* command = app.add_subcommand("sample", "makes images from a checkpoint (or from a configuration whose network has no weights)");
  auto a = std::make_shared<Asked>();
  command->add_option("source", a->source, "model.safetensors, or a YAML file")->required()->type_name("CHECKPOINT");
  command->add_option("-o,--out", a->out, "FILE.png = one picture (a grid), anything else = a directory of images")->capture_default_str();
  a->wishes.add_to(*command);
  command->add_option("--height", a->height, "of the images, in pixels; as the model was trained where not given")
      ->check(CLI::Range(int64_t(1), int64_t(16384)));
  command->add_option("--width", a->width, "of the images, in pixels")->check(CLI::Range(int64_t(1), int64_t(16384)));
  command  // replayed() has put the image's own arguments in its place, long before this is read
      ->add_option("--from", a->from, "makes an image of `brume sample` again, from what it tells; options given besides replace its own")
      ->type_name("FILE.png [CHECKPOINT]");
  command->add_option("--cfg", a->settings.cfg, "scale of classifier-free guidance");
  command->add_option("--classifier", a->settings.classifier, "classifier guidance by this model.safetensors of one that knows noise")
      ->type_name("FILE");
  command->add_option("--classifier-scale", a->settings.classifier_scale, "of that guidance; 1 where not given");
  command
      ->add_option("--image", a->image,
                   "starts from an image, of the size that the model makes; or from a tensor [B, C, H, W] in [0, 1] as .safetensors")
      ->type_name("FILE");
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
  command->add_option("--trajectory", a->trajectory, "every step's x (network's frame), x0, sigma, t and the image as safetensors")
      ->type_name("FILE");
  a->settings.add_to(*command);
  command->callback([&program, &code, a] {
    a->settings.inpaint = !a->mask.empty();
    code = sample(program, *a);
  });
}

}  // namespace brume::tools
