#include "serve/infotext.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>
#include <string_view>
#include <vector>

#include "brume/config/version.h"
#include "brume/like.h"

namespace brume::tools {
namespace {

constexpr std::string_view program = "a1111:";
constexpr std::string_view negative_line = "Negative prompt: ";

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

/// Splits "Steps: 20, Size: \"a, b\"" into fields. Returns false if it is no such line.
bool read_fields_of(std::string_view line, nlohmann::ordered_json& fields) {
  while (!line.empty()) {
    const size_t colon = line.find(": ");
    if (colon == line.npos || colon == 0) return false;
    const std::string key(line.substr(0, colon));
    line.remove_prefix(colon + 2);
    size_t end = 0;
    if (line.starts_with('"')) {
      for (end = 1; end < line.size() && line[end] != '"'; ++end) end += line[end] == '\\';
      if (end >= line.size()) return false;
      const auto text = nlohmann::json::parse(line.substr(0, end + 1), nullptr, false);
      if (!text.is_string()) return false;
      fields[key] = text;
      ++end;
    } else {
      end = std::min(line.find(", "), line.size());
      fields[key] = std::string(line.substr(0, end));
    }
    line.remove_prefix(std::min(end + (line.substr(end).starts_with(", ") ? 2 : 0), line.size()));
  }
  return true;
}

}  // namespace

std::string infotext(const Generation& g, const InfotextImage& image) {
  std::string text = image.prompt;
  if (!image.negative.empty()) text += fmt::format("\n{}{}", negative_line, image.negative);
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

nlohmann::ordered_json infotext_fields(const std::string& text) {
  nlohmann::ordered_json fields = nlohmann::ordered_json::object();
  const size_t last = text.rfind('\n');
  const std::string line = text.substr(last == text.npos ? 0 : last + 1);
  if (!line.starts_with("Steps: ") || !read_fields_of(line, fields)) return nlohmann::ordered_json::object();
  std::string prompt = last == text.npos ? "" : text.substr(0, last), negative;
  const size_t at = prompt.starts_with(negative_line) ? 0 : prompt.find("\n" + std::string(negative_line));
  if (at != prompt.npos) {
    negative = prompt.substr(at + (at == 0 && prompt.starts_with(negative_line) ? 0 : 1) + negative_line.size());
    prompt.resize(at);
  }
  nlohmann::ordered_json all{{"Prompt", prompt}, {"Negative prompt", negative}};
  all.update(fields);
  return all;
}

}  // namespace brume::tools
