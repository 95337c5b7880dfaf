// Prompts: weights, breaks, changes from step to step, words between ANDs; and wildcards, the input being two files and a prompt with zero
// bytes between them.
#include <filesystem>

#include "brume/text/prompt.h"
#include "brume/text/prompt_schedule.h"
#include "brume/wildcards.h"
#include "input.h"

namespace {

void read_prompt(std::string_view prompt) {
  using namespace brume::text;
  for (const auto& parts : {weighted_parts(prompt), absolute_parts(prompt)}) split_at_breaks(parts);
  for (const int64_t step : {0, 1, 7, 19}) weighted_parts(prompt_at(prompt, step, 20));
  for (const PromptPiece& piece : prompts_between_ands(prompt)) absolute_parts(piece.text);
  find_word(prompt, prompt.substr(0, 3), 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brume;
  return fuzz::try_to(data, size, [] {
    const std::string_view all = fuzz::input;
    read_prompt(all);
    const size_t first = all.find('\0'), second = first == all.npos ? all.npos : all.find('\0', first + 1);
    if (second == all.npos) return;
    const std::string folder = std::filesystem::path(fuzz::as_file("txt", all.substr(0, first), "a")).parent_path();
    fuzz::as_file("txt", all.substr(first + 1, second - first - 1), "b");
    read_prompt(with_wildcards(all.substr(second + 1), folder, 1, 2, "--wildcards"));
  });
}
