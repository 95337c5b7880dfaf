#include "io/inpainting.h"

#include <fmt/format.h>

#include "io/export/sections.h"

namespace brume::io {

Words words_of(const brume::Value& conditioner) {
  Words words{conditioner};
  const brume::Value* of = conditioner.find("of");
  if (text_of(conditioner, "type") != "several" || !of || of->items.size() != 2) return words;
  for (size_t i = 0; i < 2; ++i) {
    const brume::Value &text = of->items[i], &image = of->items[1 - i];
    if (text_of(text, "type") == "clip_text" && text_of(image, "image") == "masked" && truth_of(image, "keep"))
      words = {text, fmt::format("conditioner.{}.", i), true};
  }
  return words;
}

std::string inpainting_conditioner(const std::string& words) {
  return fmt::format("{{type: several, of: [{}, {{type: concat_image, image: masked, keep: true}}]}}", words);
}

}  // namespace brume::io
