#include "brume/like.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "brume/config/errors.h"
#include "brume/config/inline_yaml.h"
#include "brume/config/suggest.h"
#include "brume/config/tree.h"
#include "brume/config/yaml.h"
#include "brume/diffusion/options.h"
#include "brume/interop/import/diffusers_scheduler.h"
#include "brume/interop/layouts/sections.h"

namespace brume {
namespace {

/// Returns a name as it is compared: lower case, without what separates words.
std::string plain(std::string_view name) {
  std::string text;
  for (const char c : name)
    if (std::string_view(" _-/").find(c) == std::string_view::npos) text += char(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// Returns the program that `like` begins with, or null.
const LikeProgram* program_of(std::string_view like) {
  const std::string name = plain(like.substr(0, std::min(like.find(':'), like.size())));
  const auto& all = like_programs();
  const auto p = std::find_if(all.begin(), all.end(), [&](const LikeProgram& x) { return plain(x.name) == name; });
  return p == all.end() ? nullptr : &*p;
}

LikeStrength rule_of(std::string_view like) {
  const LikeProgram* program = program_of(like);
  return program ? program->strength : LikeStrength::share;
}

/// Returns the last `run` of `whole` steps: half a step more, so that their floor is `run` however the product is rounded.
ImageSteps last_steps(int64_t run, int64_t whole) { return {whole, run >= whole ? 1 : (double(run) + 0.5) / double(whole)}; }

/// Returns the map of a plugin, which YAML may name alone.
Value plugin(const char* yaml) {
  Value v = parse_yaml(yaml, "");
  return v.is_map() ? v : plugin_of(v.scalar, {});
}

struct Names {
  const LikeName& sampler;
  const LikeName* spacing;  ///< null: the program's own for the sampler
};

const LikeName* named(const std::vector<LikeName>& all, std::string_view name) {
  const auto it = std::find_if(all.begin(), all.end(), [&](const LikeName& n) { return plain(n.name) == plain(name); });
  return it == all.end() ? nullptr : &*it;
}

/// Returns the longest sampler that a name begins with and whose rest is a spacing, or nothing.
std::optional<Names> names_in(const LikeProgram& program, std::string_view name) {
  const std::string text = plain(name);
  std::optional<Names> best;
  size_t length = 0;
  for (const LikeName& s : program.samplers) {
    const std::string sampler = plain(s.name);
    if (!text.starts_with(sampler) || sampler.size() < length) continue;
    const std::string rest = text.substr(sampler.size());
    const LikeName* spacing = rest.empty() ? nullptr : named(program.spacings, rest);
    if (!rest.empty() && !spacing) continue;
    best.emplace(Names{s, spacing});
    length = sampler.size();
  }
  return best;
}

[[noreturn]] void refuse(std::string_view option, const LikeProgram& program, std::string_view name) {
  std::vector<std::string> known, spacings;
  for (const LikeName& n : program.samplers) known.emplace_back(n.name);
  for (const LikeName& n : program.spacings) spacings.emplace_back(n.name);
  for (const LikeName& n : program.samplers)
    for (const std::string& spacing : spacings) known.push_back(fmt::format("{} {}", n.name, spacing));
  throw ConfigError(fmt::format("{}: {} has no sampler '{}'{}; a spacing may follow its name: {}", option, program.name, name,
                                hint(std::string(name), known), fmt::join(spacings, ", ")));
}

void set_names(Likeness& like, const LikeProgram& program, const Names& names, bool flow, bool sdxl, bool on_image) {
  const auto ours = [&](const LikeName& n) { return plugin(flow && *n.flow != '\0' ? n.flow : sdxl && *n.sdxl != '\0' ? n.sdxl : n.ours); };
  const LikeName* const automatic = named(program.spacings, names.sampler.automatic);
  const LikeName& own = automatic ? *automatic : program.spacings.front();
  const bool asked = names.spacing && *names.spacing->ours != '\0', kept = names.sampler.own_spacing;
  if (asked && kept && names.spacing != &own)
    like.losses.push_back(fmt::format("{} has a spacing of its own there, and {} has no effect", names.sampler.name, names.spacing->name));
  const LikeName& spacing = asked && !kept ? *names.spacing : own;
  Value levels = ours(spacing), sampler = ours(names.sampler);
  if (names.sampler.drops_lowest)
    spacing.drops_lowest ? levels.set("inclusive", value_of(false)) : void(levels = plugin_of("trimmed", {{"spacing", levels}}));
  const LikeFlow in_flow = flow ? names.sampler.in_flow : LikeFlow::same;
  if (in_flow == LikeFlow::log_snr) levels = plugin_of("trimmed", {{"spacing", levels}, {"inclusive", true}, {"t_max", 0.9999}});
  if (in_flow == LikeFlow::frame) sampler = plugin_of("flow_frame", {{"sampler", sampler}});
  like.sample.set("sampler", sampler);
  like.sample.set("spacing", levels);
  for (const char* loss : {names.sampler.loss, spacing.loss, on_image ? names.sampler.image_loss : ""})
    if (*loss != '\0') like.losses.emplace_back(loss);
}

/// Sets what a class of diffusers is with "key=value" after its name, values as in JSON.
void set_class(Likeness& like, std::string_view option, std::string_view words, int64_t steps) {
  nlohmann::json config = nlohmann::json::object();
  for (size_t at = 0; at < words.size();) {
    const size_t end = std::min(words.find(' ', at), words.size());
    const std::string word(words.substr(at, end - at));
    at = end + 1;
    const size_t equals = word.find('=');
    if (word.empty()) continue;
    if (equals == word.npos) {
      config["_class_name"] = word;
      continue;
    }
    const auto value = nlohmann::json::parse(word.substr(equals + 1), nullptr, false);
    config[word.substr(0, equals)] = value.is_discarded() ? nlohmann::json(word.substr(equals + 1)) : value;
  }
  const DiffusersScheduler s = read_diffusers_scheduler(DiffusersConfig(config, std::string(option), "the scheduler"), true, steps);
  like.sample.set("sampler", s.sampler.is_map() ? s.sampler : plugin_of(s.sampler.scalar, {}));
  like.sample.set("spacing", s.spacing);
  like.sample.set("start", value_of(s.start));
  like.sample.set("timestep_rounding", value_of(s.timestep_rounding));
  like.losses.insert(like.losses.end(), s.losses.begin(), s.losses.end());
}

}  // namespace

std::string Likeness::text() const {
  if (!sample.is_map()) return "";
  Value shown = sample;
  for (Value::Entry& e : shown.entries)
    if (e.value.entries.size() == 1 && e.value.entries[0].key == "type")
      e.value = Value(e.value.entries[0].value);  // a plugin's name alone
  const std::string braced = inline_yaml(shown);
  return braced.substr(1, braced.size() - 2);
}

Likeness likeness(std::string_view like, std::string_view option, bool reads_prompts, bool flow, bool sdxl, const LikeRun& run) {
  const size_t colon = std::min(like.find(':'), like.size());
  const std::string program(like.substr(0, colon));
  const std::string_view name = colon == like.size() ? std::string_view() : like.substr(colon + 1);
  const LikeProgram* p = program_of(like);
  if (!p) {
    std::vector<std::string> known;
    for (const LikeProgram& x : like_programs()) known.emplace_back(x.name);
    throw ConfigError(
        fmt::format("{}: there is no program '{}'{}; there are {}", option, program, hint(program, known), fmt::join(known, ", ")));
  }
  Likeness result;
  const auto set_all = [&](const char* yaml) {
    for (const Value::Entry& e : parse_yaml(yaml, "").entries) result.sample.set(e.key, e.value);
  };
  if (!name.empty() && p->samplers.empty()) {
    set_class(result, option, name, run.steps);
  } else if (!name.empty()) {
    const auto names = names_in(*p, name);
    if (!names) refuse(option, *p, name);
    set_names(result, *p, *names, flow, sdxl, run.on_image);
    set_all(p->frame);
    if (flow && names->sampler.in_flow == LikeFlow::log_snr) result.sample.set("start", value_of("schedule"));  // at s(0.9999), too
    if (*names->sampler.start != '\0') result.sample.set("start", value_of(names->sampler.start));
  }
  set_all(p->noise);
  if (reads_prompts) result.sample.set("prompts", parse_yaml(p->prompts, ""));
  const auto brownian = [](const std::string& loss) { return loss.find("Brownian") != loss.npos; };
  if (run.adds_noise && *p->noise_loss != '\0' && std::none_of(result.losses.begin(), result.losses.end(), brownian))
    result.losses.emplace_back(p->noise_loss);
  if (run.masked && *p->mask_loss != '\0') result.losses.emplace_back(p->mask_loss);
  set_place(result.sample, {std::make_shared<const std::string>(fmt::format("{} {}", option, like))});
  return result;
}

Likeness likeness(std::string_view like, std::string_view option, const ModelOptions& model, const LikeRun& run) {
  const bool flow = std::abs(model.noise->signal(1) - 0.5) < 1e-9;  // alpha = 1 / (1 + sigma)
  const auto traits = model.conditioner->traits();
  return likeness(like, option, traits.reads_prompts, flow, traits.size_ids > 0 && !flow, run);
}

ImageSteps steps_on_image(std::string_view like, int64_t steps, double strength) {
  if (strength >= 1) return {steps, 1};
  switch (rule_of(like)) {
    case LikeStrength::one_more: return last_steps(int64_t(double(steps) * strength) + 1, steps);
    case LikeStrength::all: return last_steps(steps, int64_t(double(steps) / strength));
    case LikeStrength::share: break;
  }
  return {steps, strength};
}

bool refines_by_steps(std::string_view like) {
  const LikeProgram* program = program_of(like);
  return program && program->counts_steps;
}

ImageSteps steps_of_second_pass(std::string_view like, int64_t steps, double strength) {
  if (strength >= 1 || rule_of(like) != LikeStrength::one_more) return {steps, strength};
  return last_steps(steps - 1, int64_t(double(steps) / strength));
}

}  // namespace brume
