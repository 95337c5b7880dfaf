#include "serve/infotext.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "brume/config/version.h"
#include "brume/interop/infotext.h"
#include "brume/like.h"

namespace brume::tools {
namespace {

constexpr std::string_view program = "a1111:";

/// Returns a value as it stands between commas: in quotes if it holds what separates values.
std::string value_of(const std::string& text) {
  return text.find_first_of(",:\n") == text.npos ? text
                                                 : nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Returns the sampler and the schedule in "DPM++ 2M Karras".
std::pair<std::string, std::string> names_in(const std::string& like) {
  std::string sampler = like, schedule;
  size_t longest = 0;
  for (const LikeProgram& p : like_programs()) {
    if (program.substr(0, program.size() - 1) != p.name) continue;
    for (const LikeName& n : p.samplers) {
      const std::string name = n.name;
      if (!like.starts_with(name) || name.size() <= longest || (like.size() > name.size() && like[name.size()] != ' ')) continue;
      longest = name.size();
      sampler = name, schedule = like.size() > name.size() ? like.substr(name.size() + 1) : "";
    }
  }
  return {sampler, schedule};
}

}  // namespace

std::string infotext(const Generation& g, const InfotextImage& image) {
  std::string text = image.prompt;
  if (!image.negative.empty()) text += fmt::format("\n{}{}", infotext_negative, image.negative);
  text += fmt::format("\nSteps: {}", image.steps);
  auto [sampler, schedule] = names_in(g.like.substr(std::min(program.size(), g.like.size())));
  if (sampler.empty()) sampler = g.sampler;
  if (!sampler.empty()) text += ", Sampler: " + value_of(sampler);
  if (!schedule.empty()) text += ", Schedule type: " + value_of(schedule);
  if (g.cfg) text += fmt::format(", CFG scale: {}", *g.cfg);
  text += fmt::format(", Seed: {}, Size: {}x{}, Model: {}", g.seed + uint64_t(image.number), image.width, image.height, value_of(g.model));
  if (g.strength) text += fmt::format(", Denoising strength: {}", *g.strength);
  return text + ", Version: brume " + version();
}

}  // namespace brume::tools
