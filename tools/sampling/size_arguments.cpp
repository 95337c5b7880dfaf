#include "sampling/size_arguments.h"

#include <fmt/format.h>

#include <tuple>
#include <utility>

#include "brume/config/errors.h"
#include "brume/config/number.h"

namespace brume::tools {
namespace {

/// Returns the two numbers of "1024x768" or "0,128". Throws ConfigError if they are no two numbers from `least` on.
std::pair<int64_t, int64_t> pair_of(const std::string& option, const std::string& text, char between, int64_t least, const char* example) {
  constexpr int64_t most = 1 << 20;
  const size_t at = text.find(between);
  const auto number = [&](std::string_view part) { return parse_number<int64_t>(part).value_or(-1); };
  const int64_t a = at == text.npos ? -1 : number(std::string_view(text).substr(0, at));
  const int64_t b = at == text.npos ? -1 : number(std::string_view(text).substr(at + 1));
  if (a < least || b < least || a > most || b > most) throw ConfigError(fmt::format("--{}: '{}' is not like {}", option, text, example));
  return {a, b};
}

}  // namespace

std::vector<Option<SizeArguments>> SizeArguments::options(const std::string& prefix) {
  const std::string of = prefix.empty() ? "" : ", of what the image is steered away from";
  const auto type = [](const char* name) { return type_name(name); };
  return {
      option<SizeArguments>(
          "--" + prefix + "original-size", "", [](auto& a) -> auto& { return a.original; },
          "SDXL: size of the image before it was resized, in pixels; the image's own if not given" + of, type("HEIGHTxWIDTH")),
      option<SizeArguments>(
          "--" + prefix + "crop", "", [](auto& a) -> auto& { return a.crop; }, "SDXL: place of the crop; 0,0 if not given" + of,
          type("TOP,LEFT")),
      option<SizeArguments>(
          "--" + prefix + "target-size", "", [](auto& a) -> auto& { return a.target; },
          "SDXL: size of the crop; the image's own if not given" + of, type("HEIGHTxWIDTH")),
  };
}

std::optional<SizeIds> SizeArguments::read(const std::string& prefix) const {
  if (original.empty() && crop.empty() && target.empty()) return {};
  SizeIds s;
  if (!original.empty())
    std::tie(s.original_height, s.original_width) = pair_of(prefix + "original-size", original, 'x', 1, "1024x768, height and width");
  if (!crop.empty()) std::tie(s.top, s.left) = pair_of(prefix + "crop", crop, ',', 0, "0,128, top and left");
  if (!target.empty())
    std::tie(s.target_height, s.target_width) = pair_of(prefix + "target-size", target, 'x', 1, "1024x768, height and width");
  return s;
}

}  // namespace brume::tools
