#include "brume/interop/lora_strength.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <tuple>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/files/named_file.h"

namespace brume {
namespace {

const std::vector<std::string> known{"text", "text1", "text2", "network", "down", "mid", "up", "in0", "out0"};

bool is_known(const std::string& part) {
  for (const char* numbered : {"in", "out"}) {
    const std::string_view rest = std::string_view(part).substr(std::min(part.size(), std::string_view(numbered).size()));
    if (part.starts_with(numbered) && parse_number<uint32_t>(rest)) return true;
  }
  return std::find(known.begin(), known.end(), part) != known.end();
}

std::map<std::string, double> read_parts(std::string_view text, const std::string& asked) {
  std::map<std::string, double> parts;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view one = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const size_t equals = std::min(one.find('='), one.size());
    const std::string part(one.substr(0, equals));
    const auto strength = parse_number<double>(one.substr(std::min(equals + 1, one.size())));
    if (!is_known(part)) throw ConfigError(fmt::format("lora: '{}' is no part of a model in '{}'{}", part, asked, hint(part, known)));
    if (!strength) throw ConfigError(fmt::format("lora: '{}' is no part and its strength in '{}'; mid=0.5 is", one, asked));
    parts[part] = *strength;
  }
  return parts;
}

}  // namespace

double LoraRequest::of(const std::string& weight) const {
  double value = strength;
  for (const std::string& part : lora_parts(weight))
    if (const auto own = parts.find(part); own != parts.end()) value = own->second;
  return value;
}

LoraRequest read_lora_request(const std::string& asked) {
  LoraRequest request;
  const size_t at = asked.rfind('@');
  const bool whole = at == std::string::npos || std::filesystem::is_regular_file(asked) || asked.find('=', at) == std::string::npos;
  if (!whole) request.parts = read_parts(std::string_view(asked).substr(at + 1), asked);
  std::tie(request.path, request.strength) = file_and_number(whole ? asked : asked.substr(0, at), "lora");
  return request;
}

std::vector<std::string> lora_parts(const std::string& weight) {
  constexpr std::pair<std::string_view, std::pair<const char*, const char*>> blocks[] = {
      {"network.input_blocks.", {"down", "in"}}, {"network.output_blocks.", {"up", "out"}}, {"network.middle_block.", {"mid", ""}}};
  if (weight.starts_with("conditioner.")) {
    const size_t text = weight.find("text_model.");
    const bool second = text != std::string::npos && text > 2 && weight.substr(0, text).ends_with(".1.");
    return {"text", second ? "text2" : "text1"};
  }
  for (const auto& [prefix, parts] : blocks) {
    if (!weight.starts_with(prefix)) continue;
    std::string_view rest = std::string_view(weight).substr(prefix.size());
    const auto number = *parts.second ? take_number<int64_t>(rest) : std::nullopt;
    return number ? std::vector<std::string>{"network", parts.first, parts.second + std::to_string(*number)}
                  : std::vector<std::string>{"network", parts.first};
  }
  return {"network"};
}

}  // namespace brume
