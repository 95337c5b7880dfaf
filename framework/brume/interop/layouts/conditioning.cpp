#include "brume/interop/layouts/conditioning.h"
#include "brume/config/tree.h"

#include <fmt/format.h>

#include "brume/interop/layouts/sections.h"

namespace brume {

Words words_of(const brume::Value& conditioner) {
  Words whole{conditioner};
  const brume::Value* of = conditioner.find("of");
  if (!of || of->items.size() < 2) return whole;
  Words words;
  for (size_t i = 0; i < of->items.size(); ++i) {
    const brume::Value& part = of->items[i];
    const std::string type = text_of(part, "type");
    if (type == "clip_text" && words.conditioner.entries.empty()) {
      words.conditioner = part;
      words.prefix = fmt::format("conditioner.{}.", i);
    } else if (text_of(part, "image") == "masked" && truth_of(part, "keep") && !words.inpainting) {
      words.inpainting = true;
    } else if (type == "class_label" && integer_of(part, "context_width") == 0 && words.classes.entries.empty()) {
      words.classes = part;
    } else {
      return whole;
    }
  }
  return words.conditioner.entries.empty() ? whole : words;
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
