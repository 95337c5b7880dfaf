#pragma once
// Sampling as other programs do it, under their names: "a1111:DPM++ 2M Karras", "comfyui:euler beta", "sdcpp:euler_a",
// "diffusers:DPMSolverMultistepScheduler use_karras_sigmas=true", or the program alone.
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/value.h"

namespace brume {
struct ModelOptions;

/// What one of another program's names is in brume.
struct Likeness {
  Value sample = Value::map();        ///< what of the section `sample:` it decides
  std::vector<std::string> losses{};  ///< what of that program brume does otherwise

  /// Returns the section as one line of YAML: "sampler: dpmpp_2m, spacing: karras, ...".
  std::string text() const;
};

/// The run whose losses are wanted.
struct LikeRun {
  int64_t steps = 0;        ///< 0 = any
  bool on_image = false;    ///< it begins with an image
  bool masked = false;      ///< a mask says what of the image is generated
  bool adds_noise = false;  ///< its sampler does
};

/// Returns the section for `like`, "PROGRAM" or "PROGRAM:NAME". The program alone decides how prompts are read (if `reads_prompts`) and how
/// noise is drawn; a name decides sampler, spacing, start and timestep rounding as well. `flow`: for a model of flow matching, on whose
/// frame some samplers there depend; `sdxl`: for Stable Diffusion XL, which has lists of levels of its own. Throws ConfigError in the name
/// of `option` if it knows neither, with the nearest name.
Likeness likeness(std::string_view like, std::string_view option, bool reads_prompts, bool flow = false, bool sdxl = false,
                  const LikeRun& run = {});
/// Returns it for a model, whose conditioner and noise schedule say the rest.
Likeness likeness(std::string_view like, std::string_view option, const ModelOptions& model, const LikeRun& run = {});

/// Steps of a whole run, and the share of them, the last ones, that is run on an image.
struct ImageSteps {
  int64_t steps;
  double strength;
};
/// Returns what `steps` at a `strength` in (0, 1] on an image are in the program of `like`.
ImageSteps steps_on_image(std::string_view like, int64_t steps, double strength);
/// Returns the steps and the strength which are, by steps_on_image(), what the second, larger pass of that program runs: all of `steps`.
ImageSteps steps_of_second_pass(std::string_view like, int64_t steps, double strength);

/// How many steps another program runs on an image at a strength.
enum class LikeStrength {
  share,     ///< floor(strength steps)
  one_more,  ///< floor(strength steps) + 1
  all,       ///< all of them, the last ones of floor(steps / strength)
};

/// Returns true if the program of `like` gives a refiner a share of the steps, and not of the training times.
bool refines_by_steps(std::string_view like);

/// How another program runs a sampler on a model of flow matching, where s = sigma / (1 + sigma).
enum class LikeFlow {
  same,     ///< as on others
  frame,    ///< with s for sigma: flow_frame
  log_snr,  ///< in the log of the signal-to-noise ratio, which is infinite at s = 1: the first level is s(0.9999)
};

/// A sampler or spacing of another program, and brume's as YAML.
struct LikeName {
  const char* name;             ///< "DPM++ 2M"
  const char* ours;             ///< "{type: dpmpp_2m}"; of a spacing, "" = the sampler's own
  const char* automatic = "";   ///< of a sampler: the program's spacing if none is named; "" = the program's first
  bool drops_lowest = false;    ///< of a sampler: the grid has one level more, and the lowest is left out; of a spacing: brume's can do so
  const char* loss = "";        ///< what brume does otherwise
  const char* start = "";       ///< of a sampler: `sample.start`, if it is not the program's
  LikeFlow in_flow{};           ///< of a sampler, on a model of flow matching
  const char* flow = "";        ///< brume's as YAML on a model of flow matching; "" = the same
  bool own_spacing = false;     ///< of a sampler: it takes its own spacing, whatever is named
  const char* sdxl = "";        ///< of a spacing: brume's as YAML on Stable Diffusion XL; "" = the same
  const char* image_loss = "";  ///< of a sampler: what brume does otherwise if it begins with an image
};

/// How another program samples.
struct LikeProgram {
  const char* name;                ///< "a1111"
  const char* prompts;             ///< section `sample.prompts`, as YAML
  const char* noise;               ///< noise_order and noise_generator, as YAML
  const char* frame;               ///< start and timestep_rounding, as YAML
  std::vector<LikeName> samplers;  ///< none: a class of diffusers
  std::vector<LikeName> spacings;
  LikeStrength strength = LikeStrength::share;
  const char* mask_loss = "";   ///< what brume does otherwise with a mask
  const char* noise_loss = "";  ///< what brume does otherwise with a sampler that adds noise, of no Brownian path
  bool counts_steps = false;    ///< a refiner takes a share of the steps
};
/// Returns the table of programs.
const std::vector<LikeProgram>& like_programs();

}  // namespace brume
