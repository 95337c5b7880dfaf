#include "sampling/arguments.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/suggest.h"
#include "brume/config/utf8.h"
#include "brume/diffusion/pipeline.h"
#include "brume/files/named_file.h"
#include "brume/files/text_file.h"
#include "brume/image/image.h"
#include "brume/weights/weights_file.h"
#include "sampling/pass_options.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

using A = SampleArguments;

/// Returns the lines that are not blank.
std::vector<std::string> prompts_in(const std::string& file) {
  if (!fs::exists(file) || fs::is_directory(file)) throw ConfigError(fmt::format("--prompts: there is no file '{}'", file));
  const std::string text = read_text(file);
  std::vector<std::string> prompts;
  for (const std::string_view line : lines_of(text))
    if (line.find_first_not_of(" \t") != line.npos) prompts.emplace_back(line);
  if (prompts.empty()) throw ConfigError(fmt::format("--prompts: '{}' has no prompt", file));
  return prompts;
}

/// Returns the one tensor of a safetensors file, [B, C, H, W] in [0, 1], for values finer than eight bits; in [-1, 1].
Tensor exact_image(const std::string& option, const std::string& file, int64_t channels) {
  const NamedTensors tensors = load_tensors(file);
  if (tensors.size() != 1 || tensors[0].tensor.dim() != 4 || tensors[0].tensor.size(1) != channels)
    throw ConfigError(fmt::format("{}: {} must hold one tensor [B, {}, H, W] of values in [0, 1]", option, file, channels));
  return tensors[0].tensor.to(at::kFloat) * 2 - 1;
}

void check_size(const std::string& option, const std::string& file, const Image& image, const ImageShape& shape) {
  if (image.height != shape.height || image.width != shape.width)
    throw ConfigError(fmt::format("{}: {} is {} high and {} wide, and the model makes {} by {}", option, file,
                                  counted(image.height, "pixel"), image.width, shape.height, shape.width));
}

/// Returns [1, C, H, W] in [-1, 1]; of this shape, if there is one.
Tensor given_image(const std::string& option, const std::string& file, int64_t channels, const std::optional<ImageShape>& shape) {
  if (!fs::is_regular_file(file)) throw ConfigError(fmt::format("{}: there is no file '{}'", option, file));
  if (lower_case(fs::path(file).extension().string()) == ".safetensors") return exact_image(option, file, channels);
  if (channels != 1 && channels != 3)
    throw ConfigError(fmt::format("{}: the model makes {}, and an image file has 1 or 3", option, counted(channels, "channel")));
  const Image image = read_image(file, channels);
  if (shape) check_size(option, file, image, *shape);
  return to_tensor(image).unsqueeze(0);
}

/// Returns [1, 1, H, W] in [0, 1]. White paint on transparency is a mask of the paint.
Tensor given_mask(const std::string& file, const ImageShape& shape) {
  if (!fs::is_regular_file(file) || lower_case(fs::path(file).extension().string()) == ".safetensors")
    return (given_image("--mask", file, 1, shape) + 1) / 2;
  const Image on_black = read_image(file, 3, 0), on_white = read_image(file, 3, 255);
  if (on_black == on_white) return (given_image("--mask", file, 1, shape) + 1) / 2;
  const auto refuse = [&](const char* why) {
    throw ConfigError(
        fmt::format("--mask: {} is partly transparent, and {}; paint white what is to be generated, on black or on "
                    "transparency",
                    file, why));
  };
  bool any = false, colored = false;
  for (size_t i = 0; i < on_black.pixels.size(); i += 3) {
    const auto [least, most] = std::minmax({on_black.pixels[i], on_black.pixels[i + 1], on_black.pixels[i + 2]});
    any |= most > 0;
    colored |= most - least > 16;
  }
  if (!any) refuse("its paint is black, so nothing would be generated");
  if (colored) refuse("its paint has colours");
  check_size("--mask", file, on_black, shape);
  return (to_tensor(read_image(file, 1, 0)).unsqueeze(0) + 1) / 2;
}

/// Returns the initial noise, of FILE:NAME, or of a FILE that holds one tensor.
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

std::vector<Option<A>> options_of_images() {
  Option<A> classes = option<A>(
      "--classes", "classes", [](auto& a) -> auto& { return a.request.classes; },
      "names or numbers, taken in turn; #2 is a number if names are numbers, too", [](CommandOption o) { o.delimiter(','); });
  classes.values = [](const A& a) { return words(fmt::format("{}", fmt::join(a.request.classes, ","))); };
  Option<A> seed{"--seed", "seed", [](Command command, A& a) { return add_seed(command, a.request.seed); },
                 [](const A& a) { return words(a.request.seed); }};
  return {
      seed,
      option<A>(
          "--steps", "steps", [](auto& a) -> auto& { return a.request.steps; }, "sampling steps"),
      option<A>(
          "--prompt", "prompts", [](auto& a) -> auto& { return a.request.prompts; },
          "what an image shows, in words; several prompts are taken in turn", one_each("TEXT")),
      option<A>(
          "--prompts", "", [](auto& a) -> auto& { return a.prompts_file; }, "a file of prompts, one per line; blank lines are left out",
          type_name("FILE")),
      option<A>(
          "--negative", "negatives", [](auto& a) -> auto& { return a.request.negatives; },
          "what the image is steered away from, by classifier-free guidance; one for all, or one per prompt", one_each("TEXT")),
      classes,
      option<A>(
          "--images-per-prompt", "images_per_prompt", [](auto& a) -> auto& { return a.request.images_per_prompt; },
          "images of each prompt, one after the other", range(1, 1000000)),
      option<A>(
          "--first", "first", [](auto& a) -> auto& { return a.request.first; },
          "number of the first image: a long run can be made piece by piece", range(0, int64_t(1) << 40)),
      option<A>(
          "-n,--count", "count", [](auto& a) -> auto& { return a.request.count; }, "number of images; 16, or one per class or prompt named",
          range(1, 100000000)),
      option<A>(
          "--height", "height", [](auto& a) -> auto& { return a.request.height; },
          "of the images, in pixels; as the model was trained if not given", range(1, 16384)),
      option<A>(
          "--width", "width", [](auto& a) -> auto& { return a.request.width; }, "of the images, in pixels", range(1, 16384)),
  };
}

/// Returns a flag with its opposite, absent if neither is given.
Option<A> flag_of_prompts(const char* flag, const char* name, std::optional<bool> ImageRequest::*field, const char* help) {
  return {flag, name,
          [=](Command command, A& a) {
            return command.add_flag_function(
                flag, [&a, field](int64_t count) { a.request.*field = count > 0; }, help);
          },
          [field](const A& a) { return words(a.request.*field); }};
}

/// Returns --clip-skip, whose numbers are separated by commas.
Option<A> clip_skip_option() {
  return {"--clip-skip", "clip_skip",
          [](Command command, A& a) {
            return command
                .add_option("--clip-skip", a.request.clip_skip,
                            "number of last layers of CLIP's text encoder to skip; several, like 1,2, in equal shares of the steps")
                .delimiter(',');
          },
          [](const A& a) { return words(fmt::format("{}", fmt::join(a.request.clip_skip, ","))); }};
}

std::vector<Option<A>> options_of_sampling() {
  return {
      option<A>(
          "--like", "like", [](auto& a) -> auto& { return a.request.like; },
          "samples as another program does: a1111, comfyui, sdcpp or diffusers, and the name of a sampler there, as in a1111:'DPM++ 2M "
          "Karras'; other options are laid over it",
          type_name("PROGRAM[:NAME]")),
      option<A>(
          "--sampler", "sampler", [](auto& a) -> auto& { return a.request.sampler; }, "a name, or {type: ddim, eta: 1}"),
      option<A>(
          "--spacing", "spacing", [](auto& a) -> auto& { return a.request.spacing; }, "a name, or {type: karras, rho: 5}"),
      option<A>(
          "--noise-order", "noise_order", [](auto& a) -> auto& { return a.request.noise_order; },
          "per_image; batch, PyTorch's order; or brownian"),
      option<A>(
          "--tile", "tile", [](auto& a) -> auto& { return a.request.tile; },
          "decodes latents in tiles of this many pixels per side, blended where they overlap; 0 = whole images"),
      option<A>(
          "--lora", "loras", [](auto& a) -> auto& { return a.open.loras; },
          "adds a LoRA or its kin to the weights, at a strength (1 if not given) that may differ by part, like @text=0.5,mid=1; several "
          "add up",
          one_each("FILE[:STRENGTH]")),
      option<A>(
          "--import", "import", [](auto& a) -> auto& { return a.import; },
          "a setting of another program's model, as `brume import --set` takes it", one_each("KEY=VALUE")),
      option<A>(
          "--embedding", "embeddings", [](auto& a) -> auto& { return a.request.embeddings; },
          "a textual inversion, and the word that stands for it in prompts if not the file's own", one_each("FILE[:WORD]")),
      option<A>(
          "--wildcards", "wildcards", [](auto& a) -> auto& { return a.request.wildcards; },
          "a line of DIRECTORY/NAME.txt, drawn by the seed, stands for each __NAME__ in a prompt", type_name("DIRECTORY")),
      flag_of_prompts("--prompt-weights", "prompt_weights", &ImageRequest::prompt_weights,
                      "(word:1.3), (word) and [word] change the weight of a word"),
      flag_of_prompts("--prompt-changes", "prompt_changes", &ImageRequest::prompt_changes,
                      "[a:b:0.5] changes at a share of the steps, [a|b] from step to step, a AND b are prompts side by side"),
      option<A>(
          "--region", "regions", [](auto& a) -> auto& { return a.request.regions; },
          "where a part of a prompt joined by AND counts: white; one for each part, 'all' for everywhere", one_each("FILE")),
      option<A>(
          "--long-prompts", "long_prompts", [](auto& a) -> auto& { return a.request.long_prompts; },
          "cut: the end of a prompt longer than the context is left out; chunks: the context grows"),
      clip_skip_option(),
  };
}

std::vector<Option<A>> options_of_guidance() {
  return {
      option<A>(
          "--cfg", "cfg", [](auto& a) -> auto& { return a.request.cfg; }, "scale of classifier-free guidance"),
      option<A>(
          "--classifier", "classifier", [](auto& a) -> auto& { return a.request.classifier; },
          "classifier guidance by this model.safetensors of a classifier of noisy images", type_name("FILE")),
      option<A>(
          "--classifier-scale", "classifier_scale", [](auto& a) -> auto& { return a.request.classifier_scale; },
          "scale of that guidance; 1 if not given"),
      option<A>(
          "--image", "image", [](auto& a) -> auto& { return a.image; },
          "starts from an image, of the size that the model makes; or from a tensor [B, C, H, W] in [0, 1] as .safetensors",
          type_name("FILE")),
      option<A>(
          "--mask", "mask", [](auto& a) -> auto& { return a.mask; },
          "the part of the image to generate: white; black and transparent are kept", type_name("FILE")),
      option<A>(
          "--strength", "strength", [](auto& a) -> auto& { return a.request.strength; },
          "share of the steps that is run on the image: 0.6, or 1 with a mask", [](CommandOption o) { o.check(between(0.0, 1.0)); }),
      option<A>(
          "--noise", "initial_noise", [](auto& a) -> auto& { return a.noise; },
          "initial noise N(0, 1) [count, C, H, W] from a safetensors file, by name if it holds several", type_name("FILE[:NAME]")),
      option<A>(
          "--batch", "batch", [](auto& a) -> auto& { return a.request.batch; }, "images per batch; changes nothing but speed and memory",
          [](CommandOption o) { o.capture_default_str().check(between(1, 65536)); }, false),
  };
}

std::vector<Option<A>> options_of_controls() {
  return {
      option<A>(
          "--control", "controls", [](auto& a) -> auto& { return a.request.controls; },
          "a ControlNet, control-LoRA, T2I-Adapter or IP-Adapter, its strength (1 if not given) and the share of the steps in which it "
          "counts, as in canny.safetensors:0.8@0-0.6; several add up",
          one_each("FILE[:SCALE][@FROM-TO]")),
      option<A>(
          "--control-image", "control_images", [](auto& a) -> auto& { return a.request.control_images; },
          "the image that steers, one for all controls or one per control; canny:, blur:, grey:, tile:, inpaint: or lines: before the file "
          "makes it of a photograph; or a tensor [B, 3, H, W] in [0, 1] as .safetensors",
          one_each("[PREPROCESSOR:]FILE")),
      option<A>(
          "--control-mask", "control_masks", [](auto& a) -> auto& { return a.request.control_masks; },
          "the part of the image where a control counts: white; one for all controls or one per control", one_each("FILE")),
      option<A>(
          "--image-encoder", "image_encoder", [](auto& a) -> auto& { return a.request.image_encoder; },
          "the CLIP that sees the image of an IP-Adapter: a file, or a directory of transformers", type_name("FILE")),
  };
}

std::vector<Option<A>> options_of_sizes() {
  std::vector<Option<A>> all;
  for (const Option<SizeArguments>& o : SizeArguments::options("")) all.push_back(lifted(o, &A::sizes));
  for (const Option<SizeArguments>& o : SizeArguments::options("negative-")) all.push_back(lifted(o, &A::negative_sizes));
  return all;
}

/// Returns what messages of the library call its fields.
FieldNames field_names() {
  FieldNames names;
  for (const Option<A>& o : A::options())
    if (!o.field.empty()) names[o.field] = o.long_name();
  names["sizes"] = "--original-size, --crop and --target-size";
  return names;
}

}  // namespace

const std::vector<Option<A>>& SampleArguments::options() {
  static const std::vector<Option<A>> all = [] {
    std::vector<Option<A>> options = options_of_images();
    for (auto* more : {options_of_sizes, options_of_sampling, options_of_passes, options_of_guidance, options_of_controls})
      for (Option<A>& o : more()) options.push_back(std::move(o));
    for (const Option<Overrides>& o : Overrides::options()) options.push_back(lifted(o, &A::overrides));
    return options;
  }();
  return all;
}

void SampleArguments::add_to(Command command, const std::vector<std::string>& some) {
  for (const Option<A>& o : options())
    if (some.empty() || std::find(some.begin(), some.end(), o.long_name()) != some.end()) o.declare(command, *this);
}

void SampleArguments::add_sampling_to(Command command) {
  add_to(command, {"--spacing", "--noise-order", "--tile", "--lora", "--import", "--embedding", "--prompt-weights", "--long-prompts",
                   "--clip-skip", "--set", "--precision", "--device", "--threads"});
}

std::map<std::string, std::string> import_settings(const std::string& option, const std::vector<std::string>& assignments) {
  std::map<std::string, std::string> settings;
  for (const std::string& assignment : assignments) {
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) throw ConfigError(fmt::format("{} {}: key=value is expected", option, assignment));
    settings[assignment.substr(0, equals)] = assignment.substr(equals + 1);
  }
  return settings;
}

Model open_model(Registry& registry, const SampleArguments& a) {
  OpenOptions o = a.open;
  o.registry = &registry;
  o.import = import_settings("--import", a.import);
  o.settings = a.overrides.set;
  o.precision = a.overrides.precision;
  o.device = a.overrides.device;
  o.threads = a.overrides.threads;
  o.names = field_names();
  o.warn = print_warning;
  return Model::open(a.source, o);
}

Model open_measured(Registry& registry, SampleArguments a) {
  if (a.overrides.precision.empty()) a.overrides.precision = "fp32";
  return open_model(registry, a);
}

ImageRequest request_of(const SampleArguments& a, const Model& model) {
  ImageRequest r = a.request;
  r.names = field_names();
  for (const std::string& setting : a.overrides.set)
    if (setting.starts_with("sample")) r.settings.push_back(setting);
  if (!a.prompts_file.empty())
    for (std::string& line : prompts_in(a.prompts_file)) r.prompts.push_back(std::move(line));
  r.sizes = a.sizes.read("");
  r.negative_sizes = a.negative_sizes.read("negative-");
  r.refiner = a.refiner;
  if (!a.noise.empty()) r.initial_noise = given_noise(a.noise);
  const ImageShape own = model.shape();
  const ImageShape shape{own.channels, r.height > 0 ? r.height : own.height, r.width > 0 ? r.width : own.width};
  const Pipeline& pipeline = model.pipeline();
  // A model that makes images out of others says itself which sizes it takes, unless they are masked.
  const bool any_size = pipeline.concat_image() && !pipeline.options().conditioner->traits().masks && !r.strength;
  if (!a.image.empty()) r.image = given_image("--image", a.image, shape.channels, any_size ? std::nullopt : std::optional(shape));
  if (!a.mask.empty()) r.mask = given_mask(a.mask, shape);
  return r;
}

std::vector<std::string> list_of(const std::string& text, const std::string& option) {
  std::vector<std::string> all(1);
  int depth = 0;
  for (const char c : text) {
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (c == ',' && depth == 0)
      all.emplace_back();
    else if (c != ' ' || !all.back().empty())
      all.back() += c;
  }
  for (const std::string& item : all)
    if (item.empty() && !text.empty()) throw ConfigError(fmt::format("{}: '{}' has an empty item", option, text));
  return text.empty() ? std::vector<std::string>{} : all;
}

std::vector<std::string> labels_of(const std::vector<Annotation>& images, const std::vector<std::string>& classes) {
  std::vector<std::string> labels;
  for (const Annotation& i : images) {
    const std::string name = i.label >= 0 ? classes[size_t(i.label)] : "";
    if (!i.caption.empty() || !name.empty()) labels.push_back(i.caption.empty() ? name : i.caption);
  }
  return labels.size() == images.size() ? labels : std::vector<std::string>{};
}

}  // namespace brume::tools
