#include "brume/diffusion/options.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/core/boundary.h"
#include "brume/core/codes.h"
#include "brume/image/control_image.h"
#include "brume/interop/textual_inversion.h"

namespace brume {
namespace {

struct ImageFields {
  ImageShape& shape;
  void declare(Fields& f) {
    f.field("channels", shape.channels, "1 = grey, 3 = RGB", within(1, 64));
    f.field("height", shape.height, "pixels", within(1, 16384));
    f.field("width", shape.width, "pixels", within(1, 16384));
  }
};

const std::vector<std::pair<std::string, LearnedVariance>> variances{
    {"none", LearnedVariance::none}, {"learned", LearnedVariance::learned}, {"learned_range", LearnedVariance::learned_range}};

void declare_variance(Fields& f, LearnedVariance& variance) {
  f.choice("variance", variance,
           "what the network predicts in addition, in as many channels again: the log variance of DDPM's steps, or its place between "
           "DDPM's bounds",
           variances);
}

std::string name_of(LearnedVariance variance) {
  for (const auto& [name, v] : variances)
    if (v == variance) return name;
  throw std::logic_error("unknown variance");
}

/// Adds a problem for each part that does not fit: a model of codes takes samplers of codes, of its kernel, and no other model does.
void check_codes(const SampleOptions& sample, const ModelOptions& model, std::vector<Problem>& problems) {
  const OfCodes *own = of_codes(*sample.sampler), *wanted = of_codes(*model.parameterization);
  const auto fail = [&](const std::string& path, const std::string& message) { problems.push_back({{}, path, message}); };
  if (own && !wanted) fail("sample.sampler", "is for models of codes (model.parameterization: logits), and this one is of continuous data");
  if (!own && wanted)
    fail("sample.sampler", "is for continuous data, and the model is of codes (model.parameterization: logits); take d3pm or mdlm");
  if (own && wanted && own->kernel() && wanted->kernel() && *own->kernel() != *wanted->kernel())
    fail("sample.sampler",
         fmt::format("is for {} noise, and model.parameterization has the kernel {}{}", name_of(*own->kernel()), name_of(*wanted->kernel()),
                     *wanted->kernel() == CodeKernel::uniform ? "; take {type: d3pm, kernel: uniform}" : ""));
  for (size_t i = 0; wanted && i < sample.guidance.size(); ++i)
    if (sample.guidance[i]->traits().place == GuidancePlace::clip)
      fail(fmt::format("sample.guidance.{}", i),
           "limits the values of images, and the model's estimates are logits of codes; leave it out");
}

}  // namespace

void TrainedControlOptions::declare(Fields& f) {
  f.choice("image", image, "what it sees of a training image, see docs/control.md", image_preprocessors());
  f.field("widths", widths,
          "channels of the layers that see the image; each but the first halves its sides, down to those of the latents; empty = 16, 32, "
          "96, 256, as many as that takes",
          within(1, 65536));
}

void ModelOptions::declare(Fields& f) {
  ImageFields image_fields{image};
  f.section("image", image_fields, "the images that the model makes");
  f.field("autoencoder", autoencoder, "the first stage", "identity");
  f.field("network", network, "the backbone");
  f.field("conditioner", conditioner, "the condition of a sample: a class, a caption, an image", "none");
  f.field("noise", noise, "the noise level at time t", "linear");
  f.field("parameterization", parameterization, "what the network predicts", "eps");
  declare_variance(f, variance);
  f.field("class_names", class_names, "names of the classes; empty = those of the data set");
  f.section("control", control,
            "a ControlNet, which is trained on the model that train.from names, and written to control.safetensors; absent: the model is "
            "trained");
}

Controls ModelOptions::controls() const {
  const ConditionerTraits traits = conditioner->traits();
  return {traits.classes, traits.has_null, traits.captions};
}

Network::Context ModelOptions::network_context(const ImageShape& latent, uint64_t seed) const {
  const ConditionerTraits condition = conditioner->traits();
  const int64_t outputs = variance == LearnedVariance::none ? 1 : 2;
  return {.input = latent,
          .out_channels = outputs * latent.channels,
          .classes = condition.class_rows,
          .seed = seed,
          .context_width = condition.context_width,
          .image_channels = condition.image_channels ? condition.image_channels(image, latent) : 0,
          .vector_width = condition.vector_width,
          .size_ids = condition.size_ids,
          .guidance = condition.guidance,
          .noise = noise,
          .parameterization = parameterization};
}

void ModelOptions::check() const {
  if (!network) throw ConfigError("there is no section 'model': this is the configuration of a classifier, or of an autoencoder");
  const int64_t classes = conditioner->traits().classes;
  if (!class_names.empty() && int64_t(class_names.size()) != classes)
    throw ConfigError(
        fmt::format("model.class_names has {} names and model.conditioner {}", class_names.size(), counted(classes, "class")));
  expect_schedule(*noise);
  autoencoder.check({image});
  if (autoencoder.weightless()) network.check(network_context(autoencoder.make({image})->latent(image), 0));
}

void ClassifierNoise::declare(Fields& f) { f.field("schedule", schedule, "the noise level at time t, which is drawn evenly", "linear"); }

void ClassifierOptions::declare(Fields& f) {
  ImageFields image_fields{image};
  f.section("image", image_fields, "the images that are classified");
  f.field("network", network, "the network that classifies them");
  f.field("classes", classes, "number of classes", within(2, 1000000));
  f.field("class_names", class_names, "names of the classes; empty = those of the data set");
  f.section("noise", noise, "train on noisy images, as classifier guidance needs; absent: on clean ones");
  f.require(class_names.empty() || int64_t(class_names.size()) == classes, "class_names", "one name per class",
            fmt::format("{} names for {}", class_names.size(), counted(classes, "class")));
}

void AutoencoderOptions::declare(Fields& f) {
  ImageFields image_fields{image};
  f.section("image", image_fields, "the images that are encoded");
  f.field("network", network, "the network that encodes and decodes them");
}

void ClassifierOptions::check() const { network.check(network_context(0)); }

void PromptOptions::declare(Fields& f) {
  f.field("weights", weights, "(word:1.3), (word) = 1.1 and [word] = 1 / 1.1 count more or less; \\( is a bracket");
  f.choice("long", chunks,
           "prompts longer than the context: cut, with a warning; or chunks, as much context as the prompt needs (BREAK ends one)",
           {{"cut", false}, {"chunks", true}});
  f.field("changes", changes, "[a:b:0.5] changes at a share of the steps, [a|b] from step to step, a AND b are prompts side by side");
  f.choice("emphasis", emphasis,
           "weights multiply the tokens' rows and keep the mean of the prompt, or of each chunk (A1111); or they move the rows away from "
           "those of the empty prompt (ComfyUI)",
           {{"mean", Emphasis::mean}, {"chunk_mean", Emphasis::chunk_mean}, {"empty", Emphasis::empty}});
  f.field("absolute", absolute, "(word:1.3) is 1.3 whatever is around it, and [word] is text (ComfyUI); false = weights multiply");
  f.field("comma_tokens", comma_tokens, "a chunk ends after its last comma if at most so many tokens follow it (A1111: 20)", within(0, 75));
  f.unused(!weights, {"emphasis", "absolute"}, "weights is false");
  f.unused(!chunks, "comma_tokens", "long is cut");
  f.field("clip_skip", clip_skip, "last layers of the text encoder left out; absent = as the model has it", within(0, 255));
  f.field("clip_skips", clip_skips, "the same in equal shares of the steps: [1, 2] leaves 1 out in the first half, 2 in the second",
          within(0, 255));
  f.require(!clip_skip || clip_skips.empty(), "clip_skips", "is instead of clip_skip");
  f.field("regions", regions,
          "where each part of a prompt joined by AND counts: files of masks, white, or 'all'; one for each part, none: everywhere");
  f.require(changes || regions.empty(), "regions", "are those of prompts joined by AND, which changes: true reads");
  f.field("embeddings", embeddings, "files of textual inversions, FILE or FILE:WORD with the word that stands for it in prompts");
}

std::vector<PromptReading> PromptOptions::readings() const {
  PromptReading reading{weights, chunks, clip_skip, read_embeddings(embeddings)};
  reading.emphasis = emphasis, reading.absolute = absolute, reading.comma_tokens = comma_tokens;
  reading.words.insert(reading.words.end(), words.begin(), words.end());
  std::vector<PromptReading> all(std::max<size_t>(1, clip_skips.size()), reading);
  for (size_t i = 0; i < clip_skips.size(); ++i) all[i].skip = clip_skips[i];
  return all;
}

void SampleOptions::declare(Fields& f) {
  f.field("sampler", sampler, "the solver", "ddim");
  f.field("spacing", spacing, "the sigmas of its steps", "trailing");
  f.field("steps", steps, "number of steps", within(1, 1000000));
  f.field("guidance", guidance, "guidances of the denoiser, the first innermost");
  f.field("control", control, "images that steer the network block by block (ControlNet, T2I- and IP-Adapter); their effects add up");
  f.choice("noise_order", noise_order,
           "one stream of noise per image; one draw over the whole batch (PyTorch's order); one Brownian path per image, with which "
           "stochastic samplers converge as steps grow; or one generator per image, that of image i from seed + i (A1111)",
           {{"per_image", NoiseOrder::per_image},
            {"batch", NoiseOrder::batch},
            {"brownian", NoiseOrder::brownian},
            {"per_seed", NoiseOrder::per_seed}});
  f.choice("noise_generator", noise_generator,
           "random numbers of the noise orders batch and per_seed: PyTorch's on the processor, or on CUDA (A1111, stable-diffusion.cpp)",
           {{"cpu", NoiseGenerator::cpu}, {"cuda", NoiseGenerator::cuda}});
  f.require(noise_generator == NoiseGenerator::cpu || noise_order == NoiseOrder::batch || noise_order == NoiseOrder::per_seed,
            "noise_generator", "cuda needs noise_order: batch or per_seed");
  f.section("prompts", prompts, "reading of prompts, by models with CLIP's text encoder");
  f.field("lora", lora, "files of changes to the weights (LoRA and its kin), FILE, FILE:STRENGTH or FILE:STRENGTH@PART=STRENGTH,...");
  f.choice("start", start,
           "spread of the noise a run starts from: the schedule's; or sigma, as k-diffusion and its samplers in diffusers have it; or the "
           "schedule's at its largest sigma and sigma below it (ComfyUI)",
           {{"schedule", StartStd::schedule}, {"sigma", StartStd::sigma}, {"schedule_at_max", StartStd::schedule_at_max}});
  f.renamed("told_time", "timestep_rounding");
  f.choice("timestep_rounding", timestep_rounding,
           "timestep given to the network at a sigma between two training times: exact, the nearest, or the one below (diffusers' "
           "DPM-Solvers); nearest_step: the nearest at the sigmas of the spacing, exact at those a sampler adds between (diffusers' KDPM2)",
           {{"exact", TimestepRounding::exact},
            {"nearest", TimestepRounding::nearest},
            {"below", TimestepRounding::below},
            {"nearest_step", TimestepRounding::nearest_step}});
  f.field("tile", tile, "side in pixels of the tiles that latents are decoded in, blended where they overlap; 0 = whole images",
          within(0, 65536));
}

void SampleOptions::check(const ModelOptions& model) const {
  std::vector<Problem> problems;
  const LearnedVariance wanted = sampler->traits().variance;
  if (wanted != LearnedVariance::none && wanted != model.variance)
    problems.push_back({{},
                        "sample.sampler",
                        fmt::format("takes the variance that the network gives ({0}), and model.variance is {1}; set the sampler's "
                                    "variance to small or large, or train a model of variance: {0}",
                                    name_of(wanted), name_of(model.variance))});
  if (prompts.any() && !model.conditioner->traits().reads_prompts)
    problems.push_back({{}, "sample.prompts", "is for models with CLIP's text encoder (conditioner: clip_text), and this one has none"});
  check_codes(*this, model, problems);
  check_guidance(model.controls(), problems);
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

void SampleOptions::check_guidance(const Controls& controls, std::vector<Problem>& problems) const {
  const bool keeps_direction = sampler->traits().keeps_direction;
  std::optional<size_t> with_null;
  for (size_t i = 0; i < guidance.size(); ++i) {
    const GuidanceTraits traits = guidance[i]->traits();
    if (traits.uses_null && with_null)
      problems.push_back(
          {{},
           fmt::format("sample.guidance.{}", i),
           fmt::format("asks for the estimate without the condition, as sample.guidance.{} does: one of them can", *with_null)});
    if (traits.uses_null) with_null = i;
    if (traits.needs_direction && !keeps_direction)
      problems.push_back({{},
                          fmt::format("sample.guidance.{}", i),
                          "works with samplers that keep the unconditional direction only: ddim, euler, euler_ancestral"});
    try {
      guidance[i]->check(controls);
    } catch (const ConfigError& e) {
      for (const Problem& p : e.problems()) problems.push_back({p.place, fmt::format("sample.guidance.{}", i), p.message});
    }
  }
}

}  // namespace brume
