#include "brume/request_controls.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/value.h"
#include "brume/interop/control_file.h"

namespace brume {
namespace {
namespace fs = std::filesystem;

[[noreturn]] void refuse_numbers(const std::string& option, const std::string& text) {
  throw ConfigError(
      fmt::format("{}: '{}' is not like canny.safetensors:0.8@0-0.6: a file, its strength, and the share of the steps in which it counts",
                  option, text));
}

/// Returns the one value of all controls, or that of control `i`; "" if there are none.
std::string nth(const std::vector<std::string>& values, size_t i, size_t controls, const std::string& option) {
  if (values.size() > 1 && values.size() != controls)
    throw ConfigError(fmt::format("{}: {} for {}; one for all, or one per control", option, values.size(), counted(controls, "control")));
  return values.empty() ? "" : values.size() == 1 ? values.front() : values[i];
}

}  // namespace

RequestedControl requested_control(const std::string& text, const std::string& option) {
  RequestedControl control{text};
  if (fs::exists(text)) return control;
  const size_t slash = text.rfind('/'), start = slash == text.npos ? 0 : slash;
  if (const size_t at = text.rfind('@'); at != text.npos && at > start) {
    const std::string span = text.substr(at + 1);
    const size_t dash = span.find('-');
    const auto from = parse_number<double>(span.substr(0, dash));
    const auto to = dash == span.npos ? std::nullopt : parse_number<double>(span.substr(dash + 1));
    if (!from || !to || !(0 <= *from && *from <= *to && *to <= 1)) refuse_numbers(option, text);
    control.from = *from, control.to = *to;
    control.file = text.substr(0, at);
  }
  if (const size_t colon = control.file.rfind(':'); !fs::exists(control.file) && colon != text.npos && colon > start) {
    const auto scale = parse_number<double>(control.file.substr(colon + 1));
    if (!scale) refuse_numbers(option, text);
    control.scale = *scale;
    control.file.resize(colon);
  }
  if (!fs::exists(control.file)) throw ConfigError(fmt::format("{}: there is no file '{}'", option, control.file));
  return control;
}

void set_controls(const ImageRequest& r, Value& root) {
  const auto name = [&](std::string_view field) { return called(r.names, field); };
  if (r.controls.empty()) {
    for (const auto& [field, given] :
         {std::pair("control_images", !r.control_images.empty()), std::pair("control_masks", !r.control_masks.empty()),
          std::pair("image_encoder", !r.image_encoder.empty())})
      if (given) throw ConfigError(fmt::format("{}: there is no control; {} names one", name(field), name("controls")));
    return;
  }
  if (r.control_images.empty())
    throw ConfigError(fmt::format("{}: there is no image that steers; {} names one", name("controls"), name("control_images")));
  Value list = Value::list();
  bool sees = false;  // a control has the image encoder
  for (size_t i = 0; i < r.controls.size(); ++i) {
    const RequestedControl requested = requested_control(r.controls[i], name("controls"));
    const ControlTensors file = control_tensors(requested.file);
    const ControlFamily* family = control_family(file.tensors);
    if (!family) refuse_control(file, "ControlNet, T2I-Adapter or IP-Adapter");
    Value control = Value::map();
    const auto set = [&](const char* key, const std::string& text) {
      if (!text.empty()) control.set(key, Value::text(text, true));
    };
    control.set("type", Value::text(family->type));
    set("file", requested.file);
    set("image", nth(r.control_images, i, r.controls.size(), name("control_images")));
    if (family->image_prompt && !r.image_encoder.empty()) {
      sees = true;
      Value encoder = Value::map();
      encoder.set("type", Value::text("clip_image"));
      encoder.set("path", Value::text(r.image_encoder, true));
      control.set("encoder", std::move(encoder));
    }
    set("mask", nth(r.control_masks, i, r.controls.size(), name("control_masks")));
    control.set("scale", Value::text(fmt::format("{}", requested.scale)));
    control.set("from", Value::text(fmt::format("{}", requested.from)));
    control.set("to", Value::text(fmt::format("{}", requested.to)));
    list.items.push_back(std::move(control));
  }
  if (!sees && !r.image_encoder.empty()) throw ConfigError(fmt::format("{}: no control is an IP-Adapter", name("image_encoder")));
  if (!root.find("sample")) root.set("sample", Value::map());
  root.find("sample")->set("control", std::move(list));
}

}  // namespace brume
