#include "brume/request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/config/value.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/request_controls.h"
#include "brume/text/unicode.h"
#include "brume/wildcards.h"

namespace brume {
namespace {

/// Returns the list of guidances; an empty one is made if the section has none.
Value& guidances(Value& root) {
  if (!root.find("sample")) root.set("sample", Value::map());
  Value& sample = *root.find("sample");
  Value* list = sample.find("guidance");
  if (!list || list->is_null()) sample.set("guidance", Value::list());
  if (list && !list->is_null() && !list->is_list()) sample.set("guidance", Value::list({*list}));
  return *sample.find("guidance");
}

/// Returns the guidance of a type as a map of its settings, or null.
Value* guidance(Value& root, const std::string& type) {
  for (Value& g : guidances(root).items) {
    const Value* named = g.is_map() ? g.find("type") : &g;
    if (!named || named->scalar != type) continue;
    if (!g.is_map()) {
      Value map = Value::map();
      map.set("type", Value::text(type));
      g = std::move(map);
    }
    return &g;
  }
  return nullptr;
}

/// Returns the place of a guidance; one that cannot be read counts as the outermost, and its mistakes are reported later.
GuidancePlace place_of(const Registry& registry, const Value& guidance) try {
  return create<Guidance>(registry, guidance)->traits().place;
} catch (const ConfigError&) {
  return GuidancePlace::inpaint;
}

/// Returns the guidance of a type; else a new one, before the first of the same place or of a later one.
Value& guidance_or_new(const Registry& registry, Value& root, const std::string& type, GuidancePlace place) {
  if (Value* have = guidance(root, type)) return *have;
  std::vector<Value>& items = guidances(root).items;
  Value fresh = Value::map();
  fresh.set("type", Value::text(type));
  const auto before = std::find_if(items.begin(), items.end(), [&](const Value& g) { return place_of(registry, g) >= place; });
  return *items.insert(before, std::move(fresh));
}

Value labelled(const std::string& text, const std::string& label, bool quoted = false) {
  Value value = Value::text(text, quoted);
  value.place.file = std::make_shared<const std::string>(label);
  return value;
}

/// Returns a list of texts in YAML; "" for an empty list.
std::string quoted_list(const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) {
    list += list.empty() ? "'" : ", '";
    for (const char c : text) list += c == '\'' ? std::string("''") : std::string(1, c);
    list += "'";
  }
  return list.empty() ? "" : "[" + list + "]";
}

template <class T>
std::string text_of(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "";
}

void set_guidances(const Registry& registry, const ImageRequest& r, Value& root) {
  const auto label = [&](std::string_view field, const std::string& value) { return called(r.names, field) + " " + value; };
  if (r.cfg) {
    const std::string scale = text_of(r.cfg);
    guidance_or_new(registry, root, "cfg", GuidancePlace::estimate).set("scale", labelled(scale, label("cfg", scale)));
  }
  if (!r.classifier.empty()) {
    const std::string file = model_file(r.classifier);
    if (!std::filesystem::is_regular_file(file))
      throw ConfigError(fmt::format("{}: there is no file '{}'", called(r.names, "classifier"), r.classifier));
    guidance_or_new(registry, root, "classifier", GuidancePlace::classifier)
        .set("model", labelled(std::filesystem::absolute(file).string(), label("classifier", r.classifier), true));
  }
  if (r.classifier_scale) {
    Value* have = guidance(root, "classifier");
    if (!have)
      throw ConfigError(fmt::format("{}: there is no classifier to guide by; {} names one", called(r.names, "classifier_scale"),
                                    called(r.names, "classifier")));
    have->set("scale", labelled(text_of(r.classifier_scale), label("classifier_scale", text_of(r.classifier_scale))));
  }
}

/// Returns the number of the class that `word` says by number, `digits` being its number.
int64_t numbered_class(const std::string& option, const std::string& word, const std::string& digits,
                       const std::vector<std::string>& classes) {
  const int64_t count = int64_t(classes.size());
  const std::optional<int64_t> index = parse_number<int64_t>(digits);
  if (!index) throw ConfigError(fmt::format("{}: no class '{}'{}", option, word, hint(word, classes)));
  if (*index < 0 || *index >= count)
    throw ConfigError(
        fmt::format("{}: class {} is out of range: this model has {}, 0 to {}", option, *index, counted(count, "class"), count - 1));
  return *index;
}

/// Returns the numbers of the requested classes. "#3" is a number; all other words are either names or numbers, because classes may be
/// called by numbers that are not their own.
std::vector<int64_t> class_indices(const ImageRequest& r, const std::vector<std::string>& classes) {
  const std::string option = called(r.names, "classes");
  if (!r.classes.empty() && classes.empty()) throw ConfigError(fmt::format("{}: this model is not class-conditional", option));
  const auto find = [&](const std::string& word) { return std::ranges::find(classes, text::composed(word), text::composed); };
  const auto is_number = [&](const std::string& word) { return parse_number<int64_t>(word).has_value(); };
  std::string name, number;  // one of each, that is a name and one that is not
  std::vector<int64_t> indices;
  for (const std::string& word : r.classes) {
    if (const auto named = find(word); named != classes.end()) {
      indices.push_back(named - classes.begin());
      if (!is_number(word) || *parse_number<int64_t>(word) != indices.back()) name = word;
    } else if (word.starts_with("#")) {
      indices.push_back(numbered_class(option, word, word.substr(1), classes));
    } else {
      indices.push_back(numbered_class(option, word, word, classes));
      number = word;
    }
  }
  if (!name.empty() && !number.empty())
    throw ConfigError(
        fmt::format("{0}: '{1}' is the name of a class and '{2}' is none; a list has names or numbers, and '#{2}' is number {2} "
                    "whatever its name is",
                    option, name, number));
  return indices;
}

void check_numbers(const ImageRequest& r) {
  const auto least = [&](std::string_view field, int64_t value, int64_t low) {
    if (value < low) throw ConfigError(fmt::format("{}: {} is below {}", called(r.names, field), value, low));
  };
  least("batch", r.batch, 1);
  for (const auto& [field, value] : {std::pair("images_per_prompt", r.images_per_prompt), std::pair("count", r.count),
                                     std::pair("first", r.first), std::pair("height", r.height), std::pair("width", r.width)})
    least(field, value, 0);
}

void check_prompts(const ImageRequest& r, const Controls& controls) {
  const std::string prompts = called(r.names, "prompts"), negatives = called(r.names, "negatives");
  if (controls.captions) {
    if (r.prompts.empty()) throw ConfigError(fmt::format("this model is asked in words: {} is missing; '' is the empty caption", prompts));
    if (!r.negatives.empty() && !controls.has_null)
      throw ConfigError(fmt::format("{}: this model was trained without the empty caption, so nothing can replace it", negatives));
  } else if (!r.prompts.empty() || !r.negatives.empty()) {
    throw ConfigError(fmt::format("{}: this model is not asked in words{}", r.prompts.empty() ? negatives : prompts,
                                  controls.classes > 0 ? fmt::format("; {} names what it makes", called(r.names, "classes")) : ""));
  }
  if (r.negatives.size() > 1 && r.negatives.size() != r.prompts.size())
    throw ConfigError(
        fmt::format("{}: {} for {}; one for all, or one per prompt", negatives, r.negatives.size(), counted(r.prompts.size(), "prompt")));
}

}  // namespace

std::string called(const FieldNames& names, std::string_view field) {
  const auto it = names.find(field);
  return it == names.end() ? std::string(field) : it->second;
}

int64_t image_steps(int64_t first, int64_t steps, const Step& step) {
  return first * steps + (step.count > 0 ? step.x.size(0) * steps * (step.index + 1) / step.count : 0);
}

void apply_settings(const Registry& registry, const ImageRequest& r, Value& root) {
  const auto set = [&](const char* path, std::string_view field, const std::string& value) {
    if (!value.empty()) apply_override(root, path, value, fmt::format("{} {}", called(r.names, field), value));
  };
  set("sample.sampler", "sampler", r.sampler);
  set("sample.spacing", "spacing", r.spacing);
  set("sample.steps", "steps", text_of(r.steps));
  set("sample.noise_order", "noise_order", r.noise_order);
  set("sample.tile", "tile", text_of(r.tile));
  set("sample.prompts.weights", "prompt_weights", text_of(r.prompt_weights));
  set("sample.prompts.changes", "prompt_changes", text_of(r.prompt_changes || r.regions.empty() ? r.prompt_changes : std::optional(true)));
  set("sample.prompts.long", "long_prompts", r.long_prompts);
  set("sample.prompts.regions", "regions", quoted_list(r.regions));
  if (!r.clip_skip.empty()) {
    const bool by_step = r.clip_skip.size() > 1;
    set("sample.prompts.clip_skip", "clip_skip", by_step ? "null" : fmt::format("{}", r.clip_skip[0]));
    set("sample.prompts.clip_skips", "clip_skip", by_step ? fmt::format("[{}]", fmt::join(r.clip_skip, ", ")) : "[]");
  }
  set("sample.prompts.embeddings", "embeddings", quoted_list(r.embeddings));
  for (const std::string& setting : r.settings) apply_override(root, setting, called(r.names, "settings"));
  set_controls(r, root);
  set_guidances(registry, r, root);  // last: "sample.guidance=[]" says what they are laid over
}

void add_inpainting(const Registry& registry, Value& root) { guidance_or_new(registry, root, "inpaint", GuidancePlace::inpaint); }

std::vector<Annotation> annotations_of(const ImageRequest& r, const Controls& controls, const std::vector<std::string>& classes) {
  check_numbers(r);
  check_prompts(r, controls);
  std::vector<int64_t> labels = class_indices(r, classes);
  if (labels.empty())
    for (size_t c = 0; c < classes.size(); ++c) labels.push_back(int64_t(c));
  const std::string per_prompt = called(r.names, "images_per_prompt"), number = called(r.names, "count");
  if (r.images_per_prompt > 0 && r.prompts.empty())
    throw ConfigError(fmt::format("{}: there is no prompt; {} is the number of images", per_prompt, number));
  if (r.images_per_prompt > 0 && r.count > 0)
    throw ConfigError(fmt::format("{} and {} say both how many images there are; one of them does", per_prompt, number));
  const size_t repeats = size_t(std::max<int64_t>(1, r.images_per_prompt));
  const size_t named = std::max(r.prompts.size() * repeats, r.classes.size());
  std::vector<Annotation> all(size_t(r.count > 0 ? r.count : named > 0 ? int64_t(named) : 16));
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t image = size_t(r.first) + i;
    if (!labels.empty()) all[i].label = labels[image % labels.size()];
    if (r.sizes) all[i].sizes = *r.sizes;
    all[i].negative_sizes = r.negative_sizes;
    if (!r.prompts.empty()) all[i].caption = r.prompts[image / repeats % r.prompts.size()];
    if (!r.negatives.empty()) all[i].negative = r.negatives[r.negatives.size() == 1 ? 0 : image / repeats % r.prompts.size()];
    if (r.wildcards.empty()) continue;
    const auto drawn = [&](const std::string& text, bool negative) {
      return with_wildcards(text, r.wildcards, r.seed, int64_t(image), called(r.names, "wildcards"), negative);
    };
    all[i].caption = drawn(all[i].caption, false), all[i].negative = drawn(all[i].negative, true);
  }
  return all;
}

}  // namespace brume
