// brume sample CHECKPOINT
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "brume/config/suggest.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/files/named_file.h"
#include "brume/image/image.h"
#include "brume/train/progress.h"
#include "brume/weights/weights_file.h"
#include "commands/outputs.h"
#include "sampling/model_source.h"
#include "sampling/prompt_arguments.h"
#include "sampling/replay.h"
#include "sampling/sample_record.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string source, from, out = "sample.png", noise, image, mask;
  RecordArguments record;
  PromptArguments prompt_arguments;
  SampleSettings settings;
  int64_t batch = 16, columns = 0, height = 0, width = 0;  ///< 0 = the model's own
  uint64_t seed = 0;
  std::optional<double> strength;  ///< 0.6 of an image, 1 with a mask
};

/// The one tensor of a safetensors file, [B, C, H, W] in [0, 1], where eight bits a pixel are too few; in [-1, 1].
Tensor exact_image(const std::string& option, const std::string& file, int64_t channels) {
  const NamedTensors tensors = load_tensors(file);
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
  const Image image = read_image(file, channels);
  if (shape && (image.height != shape->height || image.width != shape->width))
    throw ConfigError(fmt::format("{}: {} is {} pixels high and {} wide, and the model makes {} by {}", option, file, image.height,
                                  image.width, shape->height, shape->width));
  return to_tensor(image).unsqueeze(0);
}

/// `concat`: the model takes an image next to its input; it checks the size of one without a mask itself.
void set_image(SampleRequest& request, const Arguments& a, const ImageShape& shape, bool concat, bool masks) {
  if (a.image.empty()) {
    if (!a.mask.empty()) throw ConfigError("--mask: there is no image it is laid over; --image FILE names one");
    if (a.strength) throw ConfigError("--strength: there is no image to start from; --image FILE names one");
    return;
  }
  request.image = given_image("--image", a.image, shape.channels, concat && !masks && !a.strength ? std::nullopt : std::optional(shape));
  if (!a.mask.empty()) request.mask = (given_image("--mask", a.mask, 1, shape) + 1) / 2;
  request.strength = a.strength.value_or(a.mask.empty() && !concat ? 0.6 : 1);
}

/// How these images are made again, all or one of them: the source, then options with their values.
std::vector<std::string> arguments_of(const Arguments& a, const Config& config, const std::vector<Annotation>& images,
                                      std::optional<size_t> one = {}) {
  std::vector<std::string> all{a.source};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) all.insert(all.end(), {option, value});
  };
  const auto number = [&](const char* option, int64_t value, bool wanted) { add(option, wanted ? std::to_string(value) : ""); };
  add("--seed", std::to_string(a.seed));
  number("--steps", config.sample.steps, true);
  const PromptArguments& w = a.prompt_arguments;
  if (one) {
    const Annotation& image = images[*one];
    if (config.model.conditioner->traits().captions) all.insert(all.end(), {"--prompt", image.caption});
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

/// The pictures of a run: one file when all are there, or one an image, as they come.
class Pictures {
 public:
  Pictures(const Arguments& a, const Config& config, const std::vector<Annotation>& wanted, const std::vector<std::string>& names)
      : a_(a),
        config_(config),
        wanted_(wanted),
        names_(names),
        one_file_(is_file("-o", a.out, {".png"})),
        apart_(config.sample.noise_order != NoiseOrder::batch && a.noise.empty()) {}
  bool one_file() const { return one_file_; }

  /// Images of a batch, from number `first` on of those asked for, into the directory.
  void add(int64_t first, const Tensor& images) {
    fs::create_directories(a_.out);
    for (int64_t i = 0; i < images.size(0); ++i, ++written_) {
      const size_t number = size_t(first + i);
      const auto arguments = apart_ ? arguments_of(a_, config_, wanted_, number) : arguments_of(a_, config_, wanted_);
      const std::string name = fmt::format("{:05}.png", a_.prompt_arguments.first + int64_t(number));
      write_png((fs::path(a_.out) / name).string(), to_image(images[i]), origin_text(arguments));
    }
  }

  /// One picture of all.
  void write(const Tensor& images) const {
    std::vector<Image> all;
    for (int64_t i = 0; i < images.size(0); ++i) all.push_back(to_image(images[i]));
    const std::vector<std::string> labels = labels_of(wanted_, names_);
    const int64_t columns = columns_of(a_.columns, all.size());
    make_parent(a_.out);
    write_png(a_.out,
              all.size() == 1  ? all[0]
              : labels.empty() ? grid(all, columns)
                               : labelled_grid(all, columns, labels),
              origin_text(arguments_of(a_, config_, wanted_)));
    fmt::print("{}\n", a_.out);
  }

  /// What is there of a run that ends here, whole or not.
  void report(std::FILE* to, bool whole) const {
    if (written_ > 0) fmt::print(to, "{}: {}{} images\n", a_.out, written_, whole ? "" : fmt::format(" of {}", wanted_.size()));
  }

 private:
  const Arguments& a_;
  const Config& config_;
  const std::vector<Annotation>& wanted_;
  const std::vector<std::string>& names_;
  bool one_file_;
  bool apart_;  ///< each can be made by itself
  int64_t written_ = 0;
};

/// The initial noise, of FILE:NAME, or of a FILE that holds one tensor.
Tensor given_noise(const std::string& asked) {
  const auto [file, name] = file_and_rest(asked, "--noise");
  const NamedTensors tensors = load_tensors(file);
  if (tensors.empty()) throw ConfigError(fmt::format("--noise: {} holds no tensor", file));
  if (name.empty() && tensors.size() == 1) return tensors[0].tensor;
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  if (name.empty())
    throw ConfigError(
        fmt::format("--noise: {0} holds {1} tensors; --noise {0}:NAME says which: {2}", file, names.size(), fmt::join(names, ", ")));
  const Tensor* found = find(tensors, name);
  if (!found) throw ConfigError(fmt::format("--noise: {} has no tensor '{}'{}", file, name, hint(name, names)));
  return *found;
}

/// What contradicts itself whatever the weights are.
void check_settings(const Arguments& a, const Config& config) {
  const NoiseOrder order = config.sample.noise_order;
  if (a.prompt_arguments.first > 0 && order == NoiseOrder::batch)
    throw ConfigError(fmt::format(
        "--first {}: noise order 'batch' draws the noise of all images at once, and a piece would not be what it is in the whole; "
        "--noise-order per_image makes a run in pieces",
        a.prompt_arguments.first));
  if (a.record.any() && config.sample.sampler->traits().own_steps)
    throw ConfigError(
        "--frames, --strip and --trajectory need a sampler that takes the steps it is given; this one takes steps of its own");
}

void warn_of_negatives(const SampleRequest& request, const Config& config) {
  const auto asked = [](const Annotation& image) { return !image.negative.empty(); };
  if (std::any_of(request.images.begin(), request.images.end(), asked) && !steers_from_null(config))
    fmt::print(stderr, "warning: --negative: is of no effect, as no guidance steers away from it; --cfg 5 does\n");
}

SampleRequest request_of(const Arguments& a, const Config& config, const Pipeline& model, const std::vector<std::string>& names) {
  SampleRequest request;
  const Controls controls = config.model.controls();
  request.images = a.prompt_arguments.images({int64_t(names.size()), controls.has_null, controls.captions}, names);
  request.first = a.prompt_arguments.first;
  request.seed = a.seed;
  request.height = a.height;
  request.width = a.width;
  request.batch = config.sample.noise_order == NoiseOrder::batch ? std::max(a.batch, int64_t(request.images.size())) : a.batch;
  if (!a.noise.empty()) request.initial_noise = given_noise(a.noise);
  const ImageShape& own = config.model.image;
  set_image(request, a, {own.channels, a.height > 0 ? a.height : own.height, a.width > 0 ? a.width : own.width}, model.concat_image(),
            config.model.conditioner->traits().masks);
  return request;
}

/// Runs it; what `pictures` and `record` are told of is theirs to write.
Tensor run(SampleRequest& request, const Config& config, const Pipeline& model, Pictures& pictures, Record* record) {
  const int64_t count = int64_t(request.images.size()), steps = config.sample.steps;
  if (record) request.ended = [&](const Tensor& x) { record->end(x); };
  if (!pictures.one_file()) request.made = [&](int64_t first, const Tensor& images) { pictures.add(first, images); };
  Progress progress("sample", count * steps, "image steps");
  request.observer = [&](int64_t first, const Step& step) {
    if (record) record->add(first, step);
    progress.update(image_steps(first, std::min(request.batch, count - first), steps, step), double(step.x.size(0)));
    return !interrupted.load();
  };
  catch_interrupt();
  return sample_images(model, request, config.sample);
}

int sample(Program& program, const Arguments& asked) {
  check_record(asked.record);
  is_file("-o", asked.out, {".png"});
  const SampleSource source(asked.source, asked.settings.import);
  const Config config = source.configuration(program, asked.settings);
  Arguments a = asked;
  a.record.columns = a.columns, a.record.tile = config.sample.tile;
  check_settings(a, config);
  const std::unique_ptr<Pipeline> pipeline = source.load(program, config);
  const ModelFiles others = source.others(program, *pipeline);
  if (const std::string warning = blas_warning(); !warning.empty()) fmt::print(stderr, "warning: {}\n", warning);
  const std::vector<std::string> names = requestable_classes(*pipeline, config.sample, others);
  SampleRequest request = request_of(a, config, *pipeline, names);
  request.models = &others;
  warn_of_negatives(request, config);
  Pictures pictures(a, config, request.images, names);
  Record record(a.record, *pipeline);
  Tensor images;
  try {
    images = run(request, config, *pipeline, pictures, a.record.any() ? &record : nullptr);
  } catch (...) {
    pictures.report(stderr, false);
    throw;
  }
  if (pictures.one_file())
    pictures.write(images);
  else
    pictures.report(stdout, true);
  if (a.record.any()) record.write(images);
  return 0;
}

}  // namespace

void add_sample(CLI::App& app, Program& program, int& code) {
  CLI::App* command = app.add_subcommand("sample", "makes images from a checkpoint (or from a configuration whose network has no weights)");
  auto a = std::make_shared<Arguments>();
  command->add_option("source", a->source, "model.safetensors, or a YAML file")->required()->type_name("CHECKPOINT");
  command->add_option("-o,--out", a->out, "FILE.png = one picture (a grid), anything else = a directory of images")->capture_default_str();
  a->prompt_arguments.add_to(*command);
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
  command->add_option("--mask", a->mask, "what of the image is repainted: white; black is kept")->type_name("FILE");
  add_seed(*command, a->seed);
  command->add_option("--batch", a->batch, "images at once; changes nothing but speed and memory")
      ->capture_default_str()
      ->check(CLI::Range(int64_t(1), int64_t(65536)));
  command->add_option("--grid", a->columns, "columns of the picture")->check(CLI::Range(int64_t(1), int64_t(1000)));
  command->add_option("--frames", a->record.frames, "every step: FILE.png = one animated picture (APNG), else a directory");
  command->add_option("--strip", a->record.strip, "a picture of the way from noise to image")->type_name("FILE.png");
  command->add_option("--noise", a->noise, "initial noise N(0, 1) [count, C, H, W] from a safetensors file, by name where it holds several")
      ->type_name("FILE[:NAME]");
  command->add_option("--trajectory", a->record.trajectory, "every step's x (network's frame), x0, sigma, t and the image as safetensors")
      ->type_name("FILE");
  a->settings.add_to(*command);
  command->callback([&program, &code, a] {
    a->settings.inpaint = !a->mask.empty();
    code = sample(program, *a);
  });
}

}  // namespace brume::tools
