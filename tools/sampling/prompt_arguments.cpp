#include "sampling/prompt_arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "brume/config/suggest.h"

namespace brume::tools {
namespace {

int64_t class_index(const std::string& word, const std::vector<std::string>& names) {
  if (names.empty()) throw ConfigError("--classes: this model is not class-conditional");
  if (const auto named = std::find(names.begin(), names.end(), word); named != names.end()) return named - names.begin();
  const int64_t classes = int64_t(names.size());
  int64_t index = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), index);
  if (error != std::errc() || end != word.data() + word.size())
    throw ConfigError(fmt::format("--classes: no class '{}'{}", word, hint(word, names)));
  if (index < 0 || index >= classes)
    throw ConfigError(fmt::format("--classes: class {} is out of range: this model has {} classes, 0 to {}", index, classes, classes - 1));
  return index;
}

/// Empty lines are prompts as well, but for those at the end.
std::vector<std::string> lines_of(const std::string& file) {
  std::ifstream in(file);
  if (!in || std::filesystem::is_directory(file)) throw ConfigError(fmt::format("--prompts: there is no file '{}'", file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  if (lines.empty()) throw ConfigError(fmt::format("--prompts: '{}' is empty", file));
  return lines;
}

std::vector<std::string> prompts_of(const PromptArguments& w, const Controls& controls) {
  std::vector<std::string> prompts = w.prompts;
  if (!w.prompts_file.empty())
    for (std::string& line : lines_of(w.prompts_file)) prompts.push_back(std::move(line));
  if (controls.captions) {
    if (prompts.empty()) throw ConfigError("this model is asked in words: --prompt TEXT, or --prompt '' for the empty caption");
    if (!w.negatives.empty() && !controls.has_null)
      throw ConfigError("--negative: this model was trained without the empty caption, so nothing can stand in its place");
  } else if (!prompts.empty() || !w.negatives.empty()) {
    throw ConfigError(fmt::format("{}: this model is not asked in words{}", prompts.empty() ? "--negative" : "--prompt",
                                  controls.classes > 0 ? "; --classes names what it makes" : ""));
  }
  if (w.negatives.size() > 1 && w.negatives.size() != prompts.size())
    throw ConfigError(fmt::format("--negative: {} for {} prompts; one for all, or one a prompt", w.negatives.size(), prompts.size()));
  return prompts;
}

}  // namespace

void PromptArguments::add_to(CLI::App& command) {
  const auto words = [&](const char* name, std::vector<std::string>& to, const char* doc) {
    return command.add_option(name, to, doc)->type_name("TEXT")->allow_extra_args(false);
  };
  command.add_option("--classes", classes, "numbers or names, taken in turn")->delimiter(',');
  words("--prompt", prompts, "what an image is to be, in words; given several times, they are taken in turn");
  command.add_option("--prompts", prompts_file, "a file of prompts, one a line")->type_name("FILE");
  words("--negative", negatives, "what the image is steered away from, by classifier-free guidance; one for all, or one a prompt");
  command.add_option("--images-per-prompt", per_prompt, "so many images of each prompt, one after the other")
      ->check(CLI::Range(int64_t(1), int64_t(1000000)));
  command.add_option("-n,--count", count, "number of images; 16, or one a class or prompt named")
      ->check(CLI::Range(int64_t(1), int64_t(100000000)));
  command.add_option("--first", first, "number of the first image: a long run can be made piece by piece")
      ->check(CLI::Range(int64_t(0), int64_t(1) << 40));
}

std::vector<Annotation> PromptArguments::images(const Controls& controls, const std::vector<std::string>& names) const {
  const std::vector<std::string> asked = prompts_of(*this, controls);
  std::vector<int64_t> labels;
  for (const std::string& word : classes) labels.push_back(class_index(word, names));
  if (labels.empty())
    for (size_t c = 0; c < names.size(); ++c) labels.push_back(int64_t(c));
  if (per_prompt > 0 && asked.empty()) throw ConfigError("--images-per-prompt: there is no prompt; -n is the number of images");
  if (per_prompt > 0 && count > 0)
    throw ConfigError("--images-per-prompt and --count say both how many images there are; one of them does");
  const size_t repeats = size_t(std::max<int64_t>(1, per_prompt)), named = std::max(asked.size() * repeats, classes.size());
  std::vector<Annotation> all(size_t(count > 0 ? count : named > 0 ? int64_t(named) : 16));
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t number = size_t(first) + i;
    if (!labels.empty()) all[i].label = labels[number % labels.size()];
    if (!asked.empty()) all[i].caption = asked[number / repeats % asked.size()];
    if (!negatives.empty()) all[i].negative = negatives[negatives.size() == 1 ? 0 : number / repeats % asked.size()];
  }
  return all;
}

std::vector<std::string> labels_of(const std::vector<Annotation>& images, const std::vector<std::string>& names) {
  std::vector<std::string> labels;
  for (const Annotation& i : images) {
    const std::string name = i.label >= 0 ? names[size_t(i.label)] : "";
    if (!i.caption.empty() || !name.empty()) labels.push_back(i.caption.empty() ? name : i.caption);
  }
  return labels.size() == images.size() ? labels : std::vector<std::string>{};
}

}  // namespace brume::tools
