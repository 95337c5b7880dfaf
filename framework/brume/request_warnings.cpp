#include "brume/request_warnings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <optional>
#include <set>

#include "brume/config/number.h"
#include "brume/config/utf8.h"
#include "brume/core/codes.h"
#include "brume/diffusion/pipeline.h"
#include "brume/interop/textual_inversion.h"
#include "brume/text/prompt.h"
#include "brume/text/unicode.h"
#include "brume/wildcards.h"

namespace brume {
namespace {

bool steers_away(const SampleOptions& options) {
  return std::any_of(options.guidance.begin(), options.guidance.end(), [](const auto& g) { return g->traits().uses_null; });
}

bool wants_negative(const SampleOptions& options) {
  return std::any_of(options.guidance.begin(), options.guidance.end(), [](const auto& g) { return g->traits().uses_empty; });
}

/// Returns each text that the images' conditions are made of, once.
std::vector<std::string> texts_of(const std::vector<Annotation>& images, bool negatives) {
  std::vector<std::string> all;
  std::set<std::string_view> known;
  const auto add = [&](const std::string& text) {
    if (!text.empty() && known.insert(text).second) all.push_back(text);
  };
  for (const Annotation& a : images) {
    add(a.caption);
    if (negatives) add(a.negative);
  }
  return all;
}

/// Returns the text of a prompt as its words are found in it: composed, and without the brackets of weights.
std::string words_of(const std::string& prompt, bool weights) {
  std::string text;
  for (const text::PromptPart& p : weights ? text::weighted_parts(prompt) : std::vector<text::PromptPart>{{prompt}}) text += p.text;
  return text::composed(text);
}

/// Returns true if a word in capitals stands between others.
bool joins(std::string_view prompt, std::string_view word) {
  const size_t at = text::find_word(prompt, word);
  const auto blank = [&](size_t i) { return i < prompt.size() && std::isspace(static_cast<unsigned char>(prompt[i])); };
  return at != std::string_view::npos && at > 0 && blank(at - 1) &&
         (blank(at + word.size()) || prompt.substr(at + word.size()).starts_with(":"));
}

/// Returns the first "[…]" that has `inside` in it; "" if none has.
std::string bracket_with(std::string_view prompt, const std::function<bool(std::string_view)>& inside) {
  for (size_t open = prompt.find('['); open != std::string_view::npos; open = prompt.find('[', open + 1)) {
    const size_t close = prompt.find(']', open);
    if (close == std::string_view::npos) return "";
    const std::string_view text = prompt.substr(open + 1, close - open - 1);
    if ((open == 0 || prompt[open - 1] != '\\') && inside(text)) return std::string(prompt.substr(open, close - open + 1));
  }
  return "";
}

/// Returns true for "a|b"; "a:b:0.5", "a::0.5" and "a:0.5".
bool alternates(std::string_view text) { return text.find('|') != std::string_view::npos; }
bool changes_at_a_step(std::string_view text) {
  const size_t colon = text.rfind(':');
  return colon != std::string_view::npos && parse_number<double>(text.substr(colon + 1)).has_value();
}

/// Returns the first "(word:1.3)"; "" if no word has a weight.
std::string weight_in(std::string_view prompt) {
  for (size_t open = prompt.find('('); open != std::string_view::npos; open = prompt.find('(', open + 1)) {
    const size_t close = prompt.find(')', open);
    if (close == std::string_view::npos) return "";
    const std::string_view text = prompt.substr(open, close - open);
    const size_t colon = text.rfind(':');
    if ((open == 0 || prompt[open - 1] != '\\') && colon != std::string_view::npos && parse_number<double>(text.substr(colon + 1)))
      return std::string(prompt.substr(open, close - open + 1));
  }
  return "";
}

/// What a prompt writes as compel reads it (a library that weighs words for diffusers), and its weight; 0 = it has none.
struct CompelWords {
  std::string text;
  double weight = 0;
};

/// Returns the first "word++", "(words)1.3" or "(words)-"; also ").and(" and the like, without a weight.
std::optional<CompelWords> compel_words(std::string_view prompt) {
  for (const char* joins : {").and(", ").blend(", ").swap("})
    if (prompt.find(joins) != std::string_view::npos) return CompelWords{joins + 1};
  const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  const auto ends = [&](size_t i) { return i == prompt.size() || std::string_view(" ,.)\n").find(prompt[i]) != std::string_view::npos; };
  for (size_t i = 1; i < prompt.size(); ++i) {
    const bool bracket = prompt[i - 1] == ')' && (i < 2 || prompt[i - 2] != '\\');
    const bool sign = prompt[i] == '+' || prompt[i] == '-', digit = in_word(prompt[i]) || prompt[i] == '.';
    if (bracket ? !sign && !digit : !sign || !in_word(prompt[i - 1])) continue;
    const size_t signs = sign ? std::min(prompt.find_first_not_of(prompt[i], i), prompt.size()) - i : 0;
    const size_t begin = bracket ? prompt.rfind('(', i) : prompt.find_last_of(" ,(", i - 1) + 1;
    if (begin == std::string_view::npos) continue;
    if (signs >= (bracket ? 1 : 2) && ends(i + signs))
      return CompelWords{std::string(prompt.substr(begin, i + signs - begin)), std::pow(prompt[i] == '+' ? 1.1 : 0.9, double(signs))};
    const size_t end = std::min(prompt.find_first_not_of("0123456789.", i), prompt.size());
    if (const auto weight = bracket ? parse_number<double>(prompt.substr(i, end - i)) : std::nullopt)
      return CompelWords{std::string(prompt.substr(begin, end - begin)), *weight};
  }
  return {};
}

/// Returns what one prompt writes as other programs read it.
std::vector<std::string> foreign_words(const ImageRequest& r, const SampleOptions& options, bool reads_prompts, const std::string& prompt) {
  std::vector<std::string> found;
  const auto say = [&](const std::string& what, const std::string& instead) {
    found.push_back(fmt::format("{} {}: {} is read as words; {}", called(r.names, "prompts"), in_quotes(prompt), what, instead));
  };
  for (const char* net : {"<lora:", "<lyco:", "<hypernet:"})
    if (const size_t at = prompt.find(net); at != std::string::npos)
      say(fmt::format("'{}'",
                      prompt.substr(at, prompt.find('>', at) == std::string::npos ? std::string::npos : prompt.find('>', at) + 1 - at)),
          fmt::format("{} FILE:STRENGTH adds a LoRA", called(r.names, "loras")));
  if (const std::string name = r.wildcards.empty() ? wildcard_in(prompt) : ""; !name.empty())
    say(fmt::format("'{}'", name), fmt::format("{} FOLDER draws a line of a file for it", called(r.names, "wildcards")));
  if (!options.prompts.changes) {
    const std::string reads = fmt::format("{} reads it otherwise", called(r.names, "prompt_changes"));
    if (joins(prompt, "AND")) say("'AND'", reads);
    if (const std::string text = bracket_with(prompt, alternates); !text.empty())
      say(fmt::format("'{}'", text), reads);
    else if (const std::string at_step = bracket_with(prompt, changes_at_a_step); !at_step.empty())
      say(fmt::format("'{}'", at_step), reads);
  }
  if (!reads_prompts) return found;
  if (const std::string text = options.prompts.weights ? "" : weight_in(prompt); !text.empty())
    say(fmt::format("'{}'", text), fmt::format("{} reads it as a weight", called(r.names, "prompt_weights")));
  if (const auto compel = compel_words(prompt); compel && compel->weight > 0)
    say(fmt::format("'{}'", compel->text),
        fmt::format("compel's weight is (word:{:.4g}) here, which {} reads", compel->weight, called(r.names, "prompt_weights")));
  else if (compel)
    say(fmt::format("'{}'", compel->text), "of compel's ways to join prompts, BREAK is and(), and no other is there");
  if (!options.prompts.chunks && text::find_word(prompt, "BREAK") != std::string::npos)
    say("'BREAK'", fmt::format("{} chunks begins a chunk there", called(r.names, "long_prompts")));
  return found;
}

/// Options that no prompt makes use of.
std::vector<std::string> unread_by_prompts(const ImageRequest& r) {
  std::vector<std::string> all;
  const auto drawn = [](const std::string& prompt) { return !wildcard_in(prompt).empty(); };
  if (!r.wildcards.empty() && std::ranges::none_of(r.prompts, drawn) && std::ranges::none_of(r.negatives, drawn))
    all.push_back(fmt::format("{}: has no effect, as no prompt holds a __NAME__", called(r.names, "wildcards")));
  if (r.regions.size() == 1)
    all.push_back(fmt::format("{}: has no effect, as no prompt has parts joined by AND", called(r.names, "regions")));
  return all;
}

/// Settings of the initial noise that a run of masked codes does not read.
std::vector<std::string> unread_noise(const ImageRequest& r, const SampleOptions& options) {
  std::vector<std::string> all;
  const OfCodes* codes = of_codes(*options.sampler);
  if (!codes || codes->kernel() != CodeKernel::absorbing) return all;
  for (const auto& [set, field] :
       {std::pair(r.variation_seed.has_value(), "variation_seed"), std::pair(r.initial_noise.defined(), "initial_noise")})
    if (set) all.push_back(fmt::format("{}: has no effect, as a run of masked codes begins with masks", called(r.names, field)));
  return all;
}

}  // namespace

std::vector<std::string> warnings_of(const ImageRequest& r, const SampleOptions& options, const Pipeline& model,
                                     const std::vector<Annotation>& images) {
  std::vector<std::string> all;
  const bool away = steers_away(options), reads_prompts = model.options().conditioner->traits().reads_prompts;
  const bool negative = std::any_of(r.negatives.begin(), r.negatives.end(), [](const std::string& text) { return !text.empty(); });
  if (negative && !away)
    all.push_back(fmt::format("{}: is of no effect, as no guidance steers away from it; {} 5 does", called(r.names, "negatives"),
                              called(r.names, "cfg")));
  if (r.cfg && model.options().conditioner->traits().guidance)
    all.push_back(fmt::format("{}: guides in addition to what the network imitates; guidance: [{{type: distilled, scale: {}}}] sets that",
                              called(r.names, "cfg"), *r.cfg));
  if (!negative && wants_negative(options))
    all.push_back(fmt::format("a guidance steers away from a negative prompt, and none is given ({}); it does what cfg does",
                              called(r.names, "negatives")));
  const std::vector<std::string> texts = texts_of(images, away);
  std::vector<std::string> words;
  for (const std::string& text : texts) words.push_back(words_of(text, options.prompts.weights));
  for (std::string& w : warnings_of_words(options.prompts.embeddings, words, called(r.names, "embeddings"))) all.push_back(std::move(w));
  for (const std::string& text : texts)
    for (std::string& w : foreign_words(r, options, reads_prompts, text))
      if (all.size() < 10) all.push_back(std::move(w));
  if (r.tile.value_or(0) > 0 && model.options().autoencoder.weightless())
    all.push_back(fmt::format("{}: has no effect, as the model makes pixels and has no latents to decode", called(r.names, "tile")));
  if ((r.sizes || r.negative_sizes) && model.options().conditioner->traits().size_ids == 0)
    all.push_back(fmt::format("{}: have no effect, as the model is not conditioned on sizes", called(r.names, "sizes")));
  const bool adds_noise = options.sampler->traits().order == 0;
  if (r.seed != 0 && r.initial_noise.defined() && !r.image.defined() && !adds_noise)
    all.push_back(fmt::format("{}: has no effect, as {} gives the initial noise and the sampler adds none", called(r.names, "seed"),
                              called(r.names, "initial_noise")));
  for (std::string& w : unread_noise(r, options)) all.push_back(std::move(w));
  for (std::string& w : unread_by_prompts(r)) all.push_back(std::move(w));
  for (const auto& [field, named] : {std::pair("prompts", r.prompts.size()), std::pair("classes", r.classes.size())})
    if (r.first == 0 && r.count > 0 && size_t(r.count) < named)
      all.push_back(fmt::format("{}: the last {} of {} have no effect, as {} is {}", called(r.names, field), named - size_t(r.count), named,
                                called(r.names, "count"), r.count));
  return all;
}

}  // namespace brume
