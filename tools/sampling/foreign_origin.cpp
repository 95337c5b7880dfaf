#include "sampling/foreign_origin.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/interop/comfy_graph.h"
#include "brume/interop/infotext.h"
#include "brume/like.h"

namespace brume::tools {
namespace {

constexpr const char* from_image = "the image that it was made from, which it does not hold: --image FILE gives it";

void add(ForeignOrigin& o, const std::string& option, const std::string& value) { o.options.insert(o.options.end(), {option, value}); }

/// Adds --like, with as much of the names as is known.
void add_like(ForeignOrigin& o, const std::string& program, const std::string& sampler, const std::string& schedule) {
  const auto known = [&](const std::string& name) {
    try {
      likeness(program + ":" + name, "--like", false);
      return true;
    } catch (const ConfigError&) {
      return false;
    }
  };
  std::string name = sampler;
  if (!schedule.empty() && schedule != "Automatic") name += " " + schedule;
  if (!name.empty() && !known(name)) {
    const bool alone = known(sampler);
    o.left_out.push_back(alone ? fmt::format("the schedule '{}'", schedule) : fmt::format("the sampler '{}'", name));
    name = alone ? sampler : "";
  }
  add(o, "--like", name.empty() ? program : program + ":" + name);
}

/// Takes the LoRAs <lora:NAME:STRENGTH> out of a prompt.
std::string without_loras(std::string prompt, ForeignOrigin& o) {
  for (const std::string mark : {"<lora:", "<lyco:", "<hypernet:"})
    for (size_t at = prompt.find(mark); at != prompt.npos; at = prompt.find(mark, at)) {
      const size_t end = prompt.find('>', at);
      if (end == prompt.npos) break;
      o.left_out.push_back(
          fmt::format("{}{}", prompt.substr(at, end + 1 - at), mark == "<hypernet:" ? "" : ": --lora FILE:STRENGTH adds it"));
      prompt.erase(at, end + 1 - at);
    }
  return prompt;
}

/// The fields of A1111's text; those that are taken are remembered.
class Fields1111 {
 public:
  explicit Fields1111(const std::string& text) : fields_(infotext_fields(text)) {}
  bool empty() const { return fields_.empty(); }
  std::string text(const char* key) {
    taken_.insert(key);
    const auto found = fields_.find(key);
    return found != fields_.end() && found->is_string() ? found->get<std::string>() : "";
  }
  /// Returns the text of a number, "" if it is absent; what is none is left for leave_rest().
  template <class T = double>
  std::string number(const char* key) {
    const std::string value = text(key);
    if (parse_number<T>(value)) return value;
    if (!value.empty()) taken_.erase(key);
    return "";
  }
  /// Returns width and height of "512x768", empty if it is absent; what is none is left for leave_rest().
  std::pair<std::string, std::string> sides(const char* key) {
    const std::string value = text(key);
    const size_t x = std::min(value.find('x'), value.size());
    std::string width = value.substr(0, x), height = value.substr(std::min(x + 1, value.size()));
    if (parse_number<int64_t>(width) && parse_number<int64_t>(height)) return {std::move(width), std::move(height)};
    if (!value.empty()) taken_.erase(key);
    return {};
  }
  void leave_rest(ForeignOrigin& o) const {
    for (const auto& [key, value] : fields_.items())
      if (!taken_.contains(key))
        o.left_out.push_back(fmt::format("{}: {}", key, value.is_string() ? value.get<std::string>() : value.dump()));
  }

 private:
  nlohmann::ordered_json fields_;
  std::set<std::string> taken_;
};

void add_hires(ForeignOrigin& o, Fields1111& f, const std::string& strength) {
  const std::string factor = f.number("Hires upscale"), upscaler = f.text("Hires upscaler");
  add(o, "--hires", factor);
  if (!strength.empty()) add(o, "--hires-strength", strength);
  const bool latent = upscaler.starts_with("Latent");
  if (latent) add(o, "--hires-of", "latents");
  if (!upscaler.empty() && upscaler != "Latent" && upscaler != "None")
    o.left_out.push_back(fmt::format("the upscaler '{}': {} are enlarged", upscaler, latent ? "latents" : "pixels"));
}

ForeignOrigin of_a1111(Fields1111 f, bool has_image) {
  ForeignOrigin o{"A1111", f.text("Model"), {}, {}};
  const std::string sampler = f.text("Sampler"), strength = f.number("Denoising strength");
  add_like(o, "a1111", sampler, f.text("Schedule type"));
  add(o, "--prompt", without_loras(f.text("Prompt"), o));
  if (const std::string negative = f.text("Negative prompt"); !negative.empty()) add(o, "--negative", without_loras(negative, o));
  const auto add_number = [&](const char* option, const std::string& value) {
    if (!value.empty()) add(o, option, value);
  };
  add_number("--steps", f.number<int64_t>("Steps"));
  add_number("--cfg", f.number("CFG scale"));
  add_number("--seed", f.number<uint64_t>("Seed"));
  add_number("--variation-seed", f.number<uint64_t>("Variation seed"));
  add_number("--variation", f.number("Variation seed strength"));
  if (const auto [width, height] = f.sides("Size"); !width.empty()) add(o, "--width", width), add(o, "--height", height);
  if (const auto skip = parse_number<int64_t>(f.text("Clip skip")); skip && *skip > 0) add(o, "--clip-skip", std::to_string(*skip - 1));
  const std::string rng = f.text("RNG");
  if (rng == "CPU") add(o, "--set", "sample.noise_generator=cpu");
  if (!f.number("Hires upscale").empty()) {
    add_hires(o, f, strength);
  } else if (!strength.empty()) {
    if (has_image) add(o, "--strength", strength);
    if (!has_image) o.left_out.emplace_back(from_image);
  }
  for (const char* silent : {"Model hash", "Version"}) f.text(silent);
  f.leave_rest(o);
  return o;
}

ForeignOrigin of_comfyui(const ComfyRun& run, bool has_image) {
  ForeignOrigin o{"ComfyUI", run.model, {}, run.left_out};
  add_like(o, "comfyui", run.sampler, run.scheduler);
  add(o, "--prompt", run.prompt);
  if (!run.negative.empty()) add(o, "--negative", run.negative);
  if (run.seed) add(o, "--seed", std::to_string(*run.seed));
  if (run.cfg) add(o, "--cfg", fmt::format("{}", *run.cfg));
  if (run.width) add(o, "--width", std::to_string(*run.width));
  if (run.height) add(o, "--height", std::to_string(*run.height));
  if (run.clip_skip > 0) add(o, "--clip-skip", std::to_string(run.clip_skip));
  const double share = std::clamp(run.denoise.value_or(1), 0.01, 1.0);
  const bool partly = run.from_image && share < 1;
  if (run.steps) add(o, "--steps", std::to_string(*run.steps - (has_image ? run.first_step : 0)));
  if (run.from_image && !has_image) o.left_out.emplace_back(from_image);
  if (partly && has_image) add(o, "--strength", fmt::format("{}", share));
  if (run.first_step > 0 && has_image)  // half a step more, so that its floor is the number of steps however the quotient is rounded
    add(o, "--strength", fmt::format("{:.6g}", double(*run.steps - run.first_step) / (double(*run.steps) + 0.5)));
  if (run.refined)
    o.left_out.push_back(fmt::format("the refiner {}: --refiner FILE --refine-from {:.6g} adds it", run.refined->model, run.refined->from));
  if (share < 1 && !run.from_image) o.left_out.push_back(fmt::format("the denoise {} of a run without an image", share));
  if (run.again) {
    add(o, "--hires", fmt::format("{}", run.again->factor));
    add(o, "--hires-strength", fmt::format("{}", run.again->denoise));
    add(o, "--hires-of", "latents");
  }
  if (run.batch > 1) {
    add(o, "--count", std::to_string(run.batch));
    o.left_out.push_back(fmt::format("which of the {} of its batch it is: all are made", counted(run.batch, "image")));
  }
  for (const std::string& lora : run.loras) o.left_out.push_back(fmt::format("the LoRA {}: --lora FILE:STRENGTH adds it", lora));
  return o;
}

}  // namespace

std::optional<ForeignOrigin> foreign_origin(const std::map<std::string, std::string>& text, bool has_image) {
  if (const auto parameters = text.find("parameters"); parameters != text.end())
    if (Fields1111 fields(parameters->second); !fields.empty()) return of_a1111(std::move(fields), has_image);
  if (const auto graph = text.find("prompt"); graph != text.end())
    if (const auto run = comfy_run(graph->second)) return of_comfyui(*run, has_image);
  return {};
}

}  // namespace brume::tools
