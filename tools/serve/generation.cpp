#include "serve/generation.h"

#include <fmt/format.h>

#include "brume/config/counted.h"
#include "serve/json_fields.h"
#include "serve/pictures.h"

namespace brume::tools {
namespace {

std::string picture(JsonFields& fields, const char* name) {
  const auto text = fields.text(name, size_t(128) << 20);
  return text && !text->empty() ? base64_decoded(*text, name) : "";
}

std::vector<std::string> loras_in(JsonFields& fields) {
  const nlohmann::json* list = fields.find("loras");
  std::vector<std::string> all;
  if (!list) return all;
  if (!list->is_array() || list->size() > 100) throw HttpError(400, "loras: is no list of at most 100 files", "loras");
  for (const nlohmann::json& item : *list) {
    if (!item.is_object()) {
      const nlohmann::json one{{"loras", item}};
      if (const auto text = JsonFields(one).text("loras", 1000)) all.push_back(*text);
      continue;
    }
    JsonFields lora(item);
    const auto file = lora.text("file", 1000);
    if (!file) throw HttpError(400, "loras: an item names no file", "loras");
    const auto scale = lora.real("scale", -100, 100);
    all.push_back(scale ? fmt::format("{}:{}", *file, *scale) : *file);
  }
  return all;
}

/// Returns the guidances as YAML: of `guidance`, or of "sample.guidance=[...]" in `settings`.
std::string guidance_in(JsonFields& fields) {
  std::string yaml;
  if (const nlohmann::json* list = fields.find("guidance")) {
    if (!list->is_array()) throw HttpError(400, "guidance: is no list of guidances", "guidance");
    yaml = list->dump();
  }
  for (const std::string& setting : fields.texts("settings", 10)) {
    const std::string key = "sample.guidance=";
    if (!setting.starts_with(key)) throw HttpError(400, "settings: 'sample.guidance=[...]' is the one setting that is taken", "settings");
    yaml = setting.substr(key.size());
  }
  if (yaml.size() > 10000) throw HttpError(400, "guidance: is longer than 10000 bytes", "guidance");
  return yaml;
}

template <class T>
void add(nlohmann::ordered_json& json, const char* name, const T& value) {
  if (value != T{}) json[name] = value;
}
template <class T>
void add(nlohmann::ordered_json& json, const char* name, const std::optional<T>& value) {
  if (value) json[name] = *value;
}

}  // namespace

void check_limits(const Generation& g, const GenerationLimits& limits) {
  for (const auto& [field, yaml] : {std::pair("sampler", &g.sampler), std::pair("spacing", &g.spacing), std::pair("guidance", &g.guidance)})
    if (yaml->find_first_of("/\\") != yaml->npos)
      throw HttpError(400, fmt::format("{}: names a path; files are named by their names alone, in the folder of the model", field), field);
  if (g.count > limits.images)
    throw HttpError(400, fmt::format("count: {}; at most {} are made by one request", counted(g.count, "image"), limits.images), "count");
  if (g.width > 0 && g.height > limits.pixels / g.width)
    throw HttpError(400, fmt::format("width, height: {} by {} has more than {}", g.width, g.height, counted(limits.pixels, "pixel")),
                    "width");
  if (!g.image.empty()) check_picture(g.image, "image", limits.pixels);
  if (!g.mask.empty()) check_picture(g.mask, "mask", limits.pixels);
  if (!g.mask.empty() && g.image.empty()) throw HttpError(400, "mask: needs an image that it is laid over", "mask");
}

Generation generation_of(const nlohmann::json& body, const GenerationLimits& limits) {
  JsonFields f(body);
  Generation g;
  g.model = f.text("model", 1000).value_or("");
  g.client = f.text("client", 200).value_or("");
  g.prompts = f.texts("prompts");
  if (const auto prompt = f.text("prompt")) g.prompts.push_back(*prompt);
  g.negatives = f.texts("negatives");
  if (const auto negative = f.text("negative"); negative && !negative->empty()) g.negatives.push_back(*negative);
  g.classes = f.texts("classes");
  g.count = f.whole("n", 1, 1000000).value_or(f.whole("count", 1, 1000000).value_or(0));
  if (g.count == 0) g.count = int64_t(std::max<size_t>(1, std::max(g.prompts.size(), g.classes.size())));
  g.seed = f.seed("seed").value_or(0);
  g.steps = f.whole("steps", 1, 10000);
  g.cfg = f.real("cfg", -1000, 1000);
  g.strength = f.real("strength", 0, 1);
  g.width = f.whole("width", 1, 16384).value_or(0);
  g.height = f.whole("height", 1, 16384).value_or(0);
  g.sampler = f.plugin("sampler");
  g.spacing = f.plugin("spacing");
  g.guidance = guidance_in(f);
  g.image = picture(f, "image");
  g.mask = picture(f, "mask");
  g.loras = loras_in(f);
  g.preview = f.whole("preview", 0, 10000).value_or(0);
  g.warnings = f.unknown();
  check_limits(g, limits);
  return g;
}

nlohmann::ordered_json json_of(const Generation& g) {
  nlohmann::ordered_json json{{"model", g.model}};
  add(json, "prompts", g.prompts);
  add(json, "negatives", g.negatives);
  add(json, "classes", g.classes);
  json["count"] = g.count;
  constexpr uint64_t exact = uint64_t(1) << 53;  // above it, programs that read numbers as doubles would change it
  json["seed"] = g.seed > exact ? nlohmann::ordered_json(std::to_string(g.seed)) : nlohmann::ordered_json(g.seed);
  add(json, "steps", g.steps);
  add(json, "cfg", g.cfg);
  add(json, "strength", g.strength);
  add(json, "width", g.width);
  add(json, "height", g.height);
  add(json, "sampler", g.sampler);
  add(json, "spacing", g.spacing);
  if (!g.guidance.empty()) {
    const auto list = nlohmann::ordered_json::parse(g.guidance, nullptr, false);
    json["guidance"] = list.is_discarded() ? nlohmann::ordered_json(g.guidance) : list;
  }
  add(json, "like", g.like);
  if (!g.image.empty()) json["image"] = true;
  if (!g.mask.empty()) json["mask"] = true;
  add(json, "loras", g.loras);
  return json;
}

std::string batch_key(const Generation& g) {
  if (!g.image.empty() || !g.like.empty()) return "";
  nlohmann::ordered_json json = json_of(g);
  for (const char* own : {"prompts", "negatives", "classes", "count", "seed"}) json.erase(own);
  return json.dump();
}

}  // namespace brume::tools
