// guided-diffusion (Dhariwal & Nichol 2021) and improved-diffusion (Nichol & Dhariwal 2021): U-Nets, super-resolution U-Nets and noisy
// classifiers, whose names brume's `unet` and `unet_encoder` have. Names and shapes tell the architecture, flags by the names of their
// command lines (or of UNetModel's arguments) the rest; a flag that is not said has the default of those programs, and if that
// is a guess the error asks for it: the heads of the attention, the size of the images.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/tree.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/guided_unet.h"
#include "brume/interop/layouts/conditioning.h"
#include "brume/interop/layouts/control_names.h"

namespace brume {
namespace {

const std::vector<std::string> flag_names{"image_size",
                                          "large_size",
                                          "small_size",
                                          "num_channels",
                                          "num_res_blocks",
                                          "num_heads",
                                          "num_heads_upsample",
                                          "num_head_channels",
                                          "attention_resolutions",
                                          "channel_mult",
                                          "dropout",
                                          "class_cond",
                                          "use_checkpoint",
                                          "use_scale_shift_norm",
                                          "resblock_updown",
                                          "use_fp16",
                                          "use_new_attention_order",
                                          "learn_sigma",
                                          "sigma_small",
                                          "diffusion_steps",
                                          "noise_schedule",
                                          "timestep_respacing",
                                          "use_kl",
                                          "predict_xstart",
                                          "rescale_timesteps",
                                          "rescale_learned_sigmas",
                                          "in_channels",
                                          "out_channels",
                                          "model_channels",
                                          "num_classes",
                                          "conv_resample",
                                          "classifier_use_fp16",
                                          "classifier_width",
                                          "classifier_depth",
                                          "classifier_attention_resolutions",
                                          "classifier_use_scale_shift_norm",
                                          "classifier_resblock_updown",
                                          "classifier_pool",
                                          "pool"};

/// Returns the sizes of images that the programs' default multipliers belong to.
std::optional<int64_t> published_size(const std::vector<double>& multipliers) {
  const std::vector<std::pair<std::vector<double>, int64_t>> table{
      {{0.5, 1, 1, 2, 2, 4, 4}, 512}, {{1, 1, 2, 2, 4, 4}, 256}, {{1, 1, 2, 3, 4}, 128}, {{1, 2, 3, 4}, 64}, {{1, 2, 2, 2}, 32}};
  for (const auto& [m, size] : table)
    if (m == multipliers) return size;
  return {};
}

int64_t image_size(const Flags& flags, const GuidedUnet& u, bool enlarges) {
  const char* name = enlarges ? "large_size" : "image_size";
  std::optional<int64_t> size = flags.integer(name);
  if (!size && enlarges) size = flags.integer("image_size");
  const int64_t divisor = int64_t(1) << (u.levels() - 1);
  if (u.positions > 0) {
    const int64_t found = std::llround(std::sqrt(double(u.positions))) * divisor;
    flags.agree(name, size, found);
    return found;
  }
  if (size && (*size < divisor || *size % divisor))
    throw ConfigError(fmt::format("{}: {} halve the images {} times, so it must be a multiple of {}", flags.given(name),
                                  counted(u.levels(), "level"), u.levels() - 1, divisor));
  if (size) return *size;
  if (const auto published = published_size(u.multipliers); published && !enlarges) return *published;
  flags.refuse_missing(name, "the size of its images is not to be read from the weights");
}

/// Returns heads of 64 channels for a classifier of guided-diffusion, and what its flags say for a U-Net.
Value heads_of(const Flags& flags, const GuidedUnet& u) {
  const Pair order("attention_order", flags.truth("use_new_attention_order").value_or(false) ? "new" : "legacy");
  const int64_t width = flags.integer("num_head_channels").value_or(-1), up = flags.integer("num_heads_upsample").value_or(-1);
  const auto heads = flags.integer("num_heads");
  if (width > 0) return map_of({{"head_channels", width}, order});
  if (heads && *heads < 1) throw ConfigError(fmt::format("{}: expected at least one", flags.given("num_heads")));
  if (heads && up > 0) return map_of({{"heads", *heads}, {"decoder_heads", up}, order});
  if (heads) return map_of({{"heads", *heads}, order});
  if (flags.has("model_channels")) return map_of({{"heads", 1}, order});  // arguments of the constructor: its default
  if (u.encoder) return map_of({{"head_channels", 64}, order});
  flags.refuse_missing("num_heads", "the heads of its attention are not to be read from the weights (num_heads or num_head_channels)");
}

Value noise_of(const Flags& flags) {
  const std::string schedule = flags.text("noise_schedule").value_or("linear");
  const int64_t steps = flags.integer("diffusion_steps").value_or(1000);
  if (schedule != "linear" && schedule != "cosine")
    throw ConfigError(fmt::format("{}: expected linear or cosine", flags.given("noise_schedule")));
  if (steps < 2) throw ConfigError(fmt::format("{}: expected at least 2", flags.given("diffusion_steps")));
  Value noise = plugin_of(schedule, {{"timesteps", steps}});
  if (schedule == "linear") noise.set("rescale", value_of(true));
  return noise;
}

/// Returns the noise level that the network receives: the timestep, or that as if there were 1000 of them.
Value noise_embedding(const Flags& flags) {
  const int64_t steps = flags.integer("diffusion_steps").value_or(1000);
  if (steps == 1000) return value_of("sinusoidal");
  const auto rescales = flags.truth("rescale_timesteps");
  if (!rescales)
    flags.refuse_missing("rescale_timesteps",
                         fmt::format("with {} diffusion_steps the network receives the timestep or that rescaled to 1000 of "
                                     "them (the defaults of guided-diffusion and improved-diffusion differ)",
                                     steps));
  return *rescales ? plugin_of("sinusoidal", {{"scale", 1000.0 / double(steps)}}) : value_of("sinusoidal");
}

void check(const Flags& flags, const GuidedUnet& u) {
  const std::string prefix = u.encoder ? "classifier_" : "";
  for (const std::string& name : {std::string(u.encoder ? "classifier_width" : "num_channels"), std::string("model_channels")})
    flags.agree(name, flags.integer(name), u.channels);
  flags.agree("channel_mult", flags.list("channel_mult"), u.multipliers);
  flags.agree("out_channels", flags.integer("out_channels"), u.out);
  for (const std::string& name : {prefix + "use_scale_shift_norm", std::string("use_scale_shift_norm")})
    flags.agree(name, flags.truth(name), u.scale_shift);
  if (u.levels() > 1)
    for (const std::string& name : {prefix + "resblock_updown", std::string("resblock_updown")})
      flags.agree(name, flags.truth(name), u.resampling == "residual");
  if (u.encoder) {
    for (const char* name : {"classifier_pool", "pool"}) flags.agree(name, flags.text(name), u.pooling);
  } else {
    flags.agree("class_cond", flags.truth("class_cond"), u.classes > 0);
    flags.agree("num_classes", flags.integer("num_classes"), u.classes);
  }
}

/// What goes in and out of a U-Net: images, a second image with them, a variance.
struct Channels {
  int64_t image = 3;
  bool concat = false, variance = false;
};

Channels channels_of(const Flags& flags, const GuidedUnet& u) {
  const auto learn_sigma = flags.truth("learn_sigma");
  Channels c;
  const auto images = flags.integer("in_channels");  // of SuperResModel: without the second image
  if (images && u.in != *images && u.in != 2 * *images) flags.refuse_difference("in_channels");
  const bool of_both = u.in == u.out && u.in == 6 && !(learn_sigma && !*learn_sigma);
  if (images ? u.in == 2 * *images : u.in == 2 * u.out || of_both) {  // SuperResModel, of 3 or 6 channels out
    c = {u.in / 2, true, u.in == u.out};
  } else if (u.out == 2 * u.in || u.out == u.in) {
    c = {u.in, false, u.out != u.in};
  } else {
    throw ConfigError(fmt::format("takes {} and gives {}; guided-diffusion gives as many, or twice as many with learn_sigma",
                                  counted(u.in, "channel"), u.out));
  }
  flags.agree("learn_sigma", learn_sigma, c.variance);
  return c;
}

Value conditioner_of(const Flags& flags, const GuidedUnet& u, const Channels& c, int64_t size) {
  const Value classes = plugin_of("class_label", {{"classes", u.classes}, {"dropout", 0}});
  if (!c.concat) return u.classes > 0 ? classes : value_of("none");
  const auto given = flags.integer("small_size");
  if (!given && size % 4) flags.refuse_missing("small_size", "the size of the images that it enlarges is not to be read from the weights");
  const int64_t small = given.value_or(size / 4);  // both that were published enlarge four times
  if (small < 1 || size % small || size == small)
    throw ConfigError(fmt::format("{}: expected a part of {}, the size of the images that it makes", flags.given("small_size"), size));
  const Value image = plugin_of("concat_image", {{"image", "low_resolution"}, {"factor", size / small}});
  return u.classes > 0 ? composite_of(classes, {image}) : image;
}

/// Returns how its scripts sample: every step, or those that timestep_respacing leaves ("250", "ddim25").
Value sample_of(const Flags& flags, bool variance) {
  const int64_t times = flags.integer("diffusion_steps").value_or(1000);
  std::string respacing = flags.text("timestep_respacing").value_or("");
  const bool ddim = respacing.starts_with("ddim");
  if (ddim) respacing.erase(0, 4);
  int64_t steps = std::min<int64_t>(250, times);
  if (!respacing.empty()) {
    const auto number = parse_number<uint32_t>(respacing);
    if (!number) throw ConfigError(fmt::format("{}: expected a number of steps, or ddim and one", flags.given("timestep_respacing")));
    steps = *number;
    if (steps < 1 || steps > times || (ddim && times % steps))
      throw ConfigError(
          fmt::format("{}: expected {} {}", flags.given("timestep_respacing"), ddim ? "a divisor of" : "a number up to", times));
  }
  const std::string kind = variance ? "learned_range" : flags.truth("sigma_small").value_or(false) ? "small" : "large";
  return map_of({{"sampler", ddim ? value_of("ddim") : plugin_of("ddpm", {{"variance", kind}})},
                 {"spacing", ddim ? "leading" : "linspace"},
                 {"steps", steps},
                 {"guidance", Value::list({value_of("clip")})}});
}

Value network_of(const Flags& flags, const GuidedUnet& u, int64_t size) {
  Value network = u.options(size, heads_of(flags, u), flags.number("dropout").value_or(0));
  network.set("noise_embedding", noise_embedding(flags));
  return network;
}

Imported import_classifier(const Source& source, const Flags& flags, const GuidedUnet& u) {
  const int64_t size = image_size(flags, u, false);
  Imported model;
  model.section = "classifier";
  model.options = section_of(map_of({{"image", image_of(u.in, size, size)},
                                     {"network", network_of(flags, u, size)},
                                     {"classes", u.out},
                                     {"noise", map_of({{"schedule", noise_of(flags)}})}}),
                             source.path.string());
  return model;
}

Imported import_model_section(const Source& source, const Flags& flags, const GuidedUnet& u) {
  const Channels c = channels_of(flags, u);
  const int64_t size = image_size(flags, u, c.concat);
  Imported model;
  model.options = section_of(map_of({{"image", image_of(c.image, size, size)},
                                     {"network", network_of(flags, u, size)},
                                     {"conditioner", conditioner_of(flags, u, c, size)},
                                     {"noise", noise_of(flags)},
                                     {"parameterization", flags.truth("predict_xstart").value_or(false) ? "x0" : "eps"},
                                     {"variance", c.variance ? "learned_range" : "none"}}),
                             source.path.string());
  model.sample = section_of(sample_of(flags, c.variance), source.path.string());
  return model;
}

bool knows(const Source& source) { return is_guided_unet(source.tensors) && control_kind(source.tensors).empty(); }

Imported import_guided(const Source& source, const ImportOptions& options) {
  const Flags flags(source, options, flag_names);
  const bool depth = flags.has("classifier_depth");
  const GuidedUnet u = read_guided_unet(source, flags, depth ? "classifier_depth" : "num_res_blocks");
  check(flags, u);
  Imported model = u.encoder ? import_classifier(source, flags, u) : import_model_section(source, flags, u);
  for (const NamedTensor& t : source.tensors) model.tensors.push_back({"network." + t.name, t.tensor});
  return model;
}

}  // namespace

const Family guided_diffusion{"guided-diffusion or improved-diffusion network", knows, import_guided};

}  // namespace brume
