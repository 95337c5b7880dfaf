#include "brume/data/caption_edits.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "brume/core/seed.h"

namespace brume {
namespace {

constexpr uint64_t stream = 2;

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
  return begin == text.npos ? "" : text.substr(begin, end - begin + 1);
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at != text.npos;) {
    const size_t next = text.find(separator, at);
    parts.push_back(trimmed(text.substr(at, next == text.npos ? next : next - at)));
    at = next == text.npos ? next : next + separator.size();
  }
  return parts;
}

}  // namespace

void CaptionEdits::declare(Fields& f) {
  f.field("shuffle_tags", shuffle_tags, "puts the tags of a caption in another order each time");
  f.field("keep_tags", keep_tags, "the first so many tags keep their places and are never dropped", at_least(0));
  f.field("drop_tags", drop_tags, "probability with which each tag is left out", within(0, 1));
  f.field("drop_caption", drop, "probability with which the whole caption is empty", within(0, 1));
  f.field("separator", separator, "text between the tags of a caption");
  f.field("prefix", prefix, "text before every caption");
  f.field("suffix", suffix, "text after every caption");
  f.require(!separator.empty(), "separator", "must not be empty");
}

std::string CaptionEdits::apply(const std::string& caption, uint64_t draw) const {
  SplitMix random(mix_seed(draw, stream));
  if (drop > 0 && random.uniform() < drop) return "";
  if (!shuffle_tags && drop_tags == 0) return prefix + caption + suffix;
  std::vector<std::string> tags = split(caption, separator);
  const size_t kept = std::min(size_t(keep_tags), tags.size());
  if (shuffle_tags)
    for (size_t i = tags.size(); i > kept + 1; --i) std::swap(tags[i - 1], tags[kept + random.below(i - kept)]);
  std::string text;
  for (size_t i = 0; i < tags.size(); ++i) {
    if (i >= kept && drop_tags > 0 && random.uniform() < drop_tags) continue;
    text += (text.empty() ? "" : separator + " ") + tags[i];
  }
  return prefix + text + suffix;
}

}  // namespace brume
