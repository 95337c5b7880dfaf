// CLIP's tokenizer: vocab.json, merges.txt, added_tokens.json if there is one, and a text, with a zero byte between them; without such
// bytes, a text for a small vocabulary.
#include <string_view>

#include "brume/text/clip_tokenizer.h"
#include "input.h"

namespace {

/// Takes what stands before the next zero byte.
std::string_view next(std::string_view& rest) {
  const auto part = rest.substr(0, rest.find('\0'));
  rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  return part;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using brume::text::ClipTokenizer;
  return brume::fuzz::try_to(data, size, [] {
    std::string_view rest = brume::fuzz::input;
    if (rest.find('\0') == std::string_view::npos) {
      static const ClipTokenizer small = [] {
        std::string vocabulary = "{";
        int id = 0;
        for (const char* token : {"a", "b", "ab", "a</w>", "b</w>", "ab</w>", "!", "!</w>", "<|startoftext|>", "<|endoftext|>"})
          vocabulary += (id > 0 ? ", \"" : "\"") + std::string(token) + "\": " + std::to_string(id), ++id;
        return ClipTokenizer(vocabulary + "}", "#version: 0.2\na b</w>\na b\n", "small");
      }();
      small.decode(small.encode(rest));
      return;
    }
    const auto vocabulary = next(rest), merges = next(rest), added = rest.find('\0') == rest.npos ? std::string_view() : next(rest);
    const ClipTokenizer tokenizer(vocabulary, merges, "input", {}, added);
    tokenizer.decode(tokenizer.encode(rest));
  });
}
