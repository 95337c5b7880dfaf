#include "brume/interop/layouts/conditioning.h"
#include "brume/config/tree.h"

#include <fmt/format.h>

#include "brume/interop/layouts/sections.h"

namespace brume {

namespace {

/// Returns true for the `joint_text` of SDXL: clip_text alone, whose tokens stand side by side.
bool is_xl_words(const brume::Value& part) {
  const brume::Value* of = part.find("of");
  if (text_of(part, "type") != "joint_text" || !of || of->items.empty() || of->items.size() > 2) return false;
  for (const brume::Value& encoder : of->items)
    if (text_of(encoder, "type") != "clip_text" || integer_of(encoder, "clip_skip") != 1 || truth_of(encoder, "final_norm")) return false;
  return list_of(part, "channels").size() == of->items.size() && list_of(part, "tokens").empty() &&
         list_of(part, "pooled") == std::vector{std::to_string(of->items.size() - 1)};
}

}  // namespace

std::vector<TextEncoderPlace> Words::encoders() const {
  if (text_of(conditioner, "type") == "clip_text") return {{conditioner, prefix, ""}};
  if (!xl()) return {};
  std::vector<TextEncoderPlace> all;
  const std::vector<brume::Value>& of = conditioner.find("of")->items;
  for (size_t i = 0; i < of.size(); ++i) all.push_back({of[i], fmt::format("{}{}.", prefix, i), i + 1 == of.size() ? "_2" : ""});
  return all;
}

Words words_of(const brume::Value& conditioner) {
  Words whole{conditioner};
  const brume::Value* of = conditioner.find("of");
  if (!of || of->items.size() < 2) return whole;
  Words words;
  for (size_t i = 0; i < of->items.size(); ++i) {
    const brume::Value& part = of->items[i];
    const std::string type = text_of(part, "type");
    if ((type == "clip_text" || is_xl_words(part)) && words.conditioner.entries.empty()) {
      words.conditioner = part;
      words.prefix = fmt::format("conditioner.{}.", i);
    } else if (text_of(part, "image") == "masked" && truth_of(part, "keep") && !words.inpainting) {
      words.inpainting = true;
    } else if (type == "image_sizes" && words.sizes.entries.empty()) {
      words.sizes = part;
    } else if (type == "guidance_scale" && !words.guidance) {
      words.guidance = true;
    } else if (type == "class_label" && integer_of(part, "context_width") == 0 && words.classes.entries.empty()) {
      words.classes = part;
    } else {
      return whole;
    }
  }
  return words.conditioner.entries.empty() || words.xl() != (text_of(words.conditioner, "type") == "joint_text") ? whole : words;
}

brume::Value composite_of(const brume::Value& words, const std::vector<brume::Value>& others) {
  if (others.empty()) return words;
  std::vector<brume::Value> all{words};
  all.insert(all.end(), others.begin(), others.end());
  return plugin_of("composite", {{"of", all}});
}

std::string words_prefix(const std::vector<brume::Value>& others) { return others.empty() ? "conditioner." : "conditioner.0."; }

brume::Value xl_words(std::vector<brume::Value> encoders, bool zeros) {
  std::vector<int64_t> channels;
  for (brume::Value& encoder : encoders) {
    encoder.set("clip_skip", value_of(1));
    encoder.set("final_norm", value_of(false));
    channels.push_back(int64_t(channels.size()));
  }
  const std::vector<int64_t> pooled{channels.back()};
  return plugin_of("joint_text", {{"of", encoders}, {"channels", channels}, {"pooled", pooled}, {"empty", zeros ? "zeros" : "encoded"}});
}

brume::Value xl_sizes(bool score) {
  brume::Value sizes = plugin_of("image_sizes", {});
  if (score) sizes.set("score", value_of(6));
  return sizes;
}

brume::Value masked_image() { return plugin_of("concat_image", {{"image", "masked"}, {"keep", true}}); }

}  // namespace brume
