#include "sampling/replay.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "brume/config/utf8.h"
#include "brume/config/yaml.h"
#include "brume/image/image.h"
#include "program/program.h"
#include "sampling/foreign_origin.h"

namespace brume::tools {
namespace {

constexpr const char* key = "brume.arguments";

/// Returns the options that an image may record.
std::vector<std::string> recordable() {
  std::vector<std::string> names;
  for (const auto& o : SampleArguments::options())
    if (o.recorded) names.push_back(o.long_name());
  return names;
}

/// Returns an argument as a shell takes it.
std::string quoted(const std::string& argument) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("-_./:=,+@%").find(c) != std::string_view::npos;
  };
  if (!argument.empty() && std::all_of(argument.begin(), argument.end(), plain)) return argument;
  std::string text = "'";
  for (const char c : argument) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

/// Returns a text without what would steer a terminal: the text comes from anywhere.
std::string shown(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

/// Returns the arguments of a picture of another program, and what of it they do not have. `source`: a model that the user names; "" =
/// none.
std::vector<std::string> foreign_arguments(const std::string& file, const ForeignOrigin& origin, const std::string& source) {
  if (source.empty())
    throw ConfigError(fmt::format("--from: {0}: was made by {1}{2}, and names no file of a model; name one: --from {0} MODEL", file,
                                  origin.program, origin.model.empty() ? "" : fmt::format(" from {}", in_quotes(origin.model))));
  std::vector<std::string> arguments{source};
  arguments.insert(arguments.end(), origin.options.begin(), origin.options.end());
  std::string command = "brume sample";
  for (const std::string& word : arguments) command += " " + quoted(word);
  const std::string from = origin.model.empty() ? "" : " from " + origin.model;
  fmt::print(stderr, "{}\n", shown(fmt::format("{}: made by {}{}: {}", file, origin.program, from, command)));
  for (const std::string& what : origin.left_out) print_warning(shown(fmt::format("--from: {}: not taken over: {}", file, what)));
  return arguments;
}

/// `source`, `has_image`: what the user gives besides, for pictures of other programs.
std::vector<std::string> arguments_in(const std::string& file, const std::string& source, bool has_image) {
  if (!std::filesystem::is_regular_file(file)) throw ConfigError(fmt::format("--from: there is no file '{}'", file));
  const auto text = read_png_text(file);
  const auto it = text.find(key);
  if (it == text.end()) {
    if (const auto origin = foreign_origin(text, has_image)) return foreign_arguments(file, *origin, source);
    throw ConfigError(
        fmt::format("--from: {} does not tell how it was made (it has no text '{}', and none of A1111 or ComfyUI)", file, key));
  }
  const auto json = nlohmann::json::parse(it->second, nullptr, false);
  std::vector<std::string> arguments;
  if (json.is_array())
    for (const auto& item : json)
      if (item.is_string()) arguments.push_back(item.get<std::string>());
  if (arguments.empty() || arguments.size() != json.size() || arguments.size() % 2 == 0)
    throw ConfigError(fmt::format("--from: {}: its text '{}' is damaged", file, key));
  return arguments;
}

/// Returns true if an image may record this: an option that says what is made, not which file it is written to or which code is loaded.
/// Images come from anywhere.
bool may_record(const std::string& option, const std::string& value) {
  const std::vector<std::string> names = recordable();
  if (std::find(names.begin(), names.end(), option) == names.end()) return false;
  return option != "--set" || value.substr(0, value.find_first_of(".=")) != "plugins";
}

void refuse_unrecordable(const std::string& file, const std::vector<std::string>& arguments) {
  if (arguments[0].empty() || arguments[0].starts_with("-"))
    throw ConfigError(fmt::format("--from: {}: names '{}' instead of a model", file, arguments[0]));
  for (size_t i = 1; i + 1 < arguments.size(); i += 2)
    if (!may_record(arguments[i], arguments[i + 1]))
      throw ConfigError(fmt::format("--from: {}: records {} '{}', which no image may; the options that it may record are {}", file,
                                    arguments[i], arguments[i + 1], fmt::join(recordable(), ", ")));
}

/// A configuration that loads code does so only if the user names it.
void refuse_plugins(const std::string& file, const std::string& source) {
  const bool yaml = source.ends_with(".yaml") || source.ends_with(".yml");
  if (yaml && std::filesystem::is_regular_file(source) && load_yaml(source).find("plugins"))
    throw ConfigError(
        fmt::format("--from: {0}: was made from {1}, which loads plugins; name it, to say that it may: --from {0} {1}", file, source));
}

/// Returns the long name of the option that an argument gives, "--count" of "-n4".
std::string option_of(const std::string& argument) {
  for (const auto& o : SampleArguments::options())
    if (const size_t comma = o.names.find(','); comma != std::string::npos && argument.starts_with(o.names.substr(0, comma)))
      return o.long_name();
  return argument.substr(0, argument.find('='));
}

/// Returns the source, then options with their values.
std::vector<std::string> recorded(const SampleArguments& a) {
  std::vector<std::string> all{a.source};
  for (const auto& o : SampleArguments::options())
    if (o.recorded)
      for (const std::string& value : o.values(a))
        if (may_record(o.long_name(), value)) all.insert(all.end(), {o.long_name(), value});
  return all;
}

}  // namespace

std::map<std::string, std::string> origin_text(const SampleArguments& a) {
  const std::vector<std::string> arguments = recorded(a);
  std::string command;
  for (const std::string& word : arguments) command += (command.empty() ? "" : " ") + quoted(word);
  return {{"brume", command}, {key, nlohmann::json(arguments).dump()}};
}

std::vector<std::string> replayed(std::vector<std::string> arguments) {
  const auto from =
      std::find_if(arguments.begin(), arguments.end(), [](const std::string& a) { return a == "--from" || a.starts_with("--from="); });
  if (from == arguments.end() || std::find(arguments.begin(), from, "sample") == from) return arguments;
  auto after = from + 1;
  std::string file;
  if (from->starts_with("--from="))
    file = from->substr(7);
  else if (after != arguments.end())
    file = *after++;
  const std::string source = after != arguments.end() && !after->starts_with("-") ? *after++ : "";  // another checkpoint
  const auto given = [&](const std::string& option) {
    return std::any_of(arguments.begin(), arguments.end(),
                       [&](const std::string& a) { return a.starts_with("-") && option_of(a) == option; });
  };
  std::vector<std::string> stored = arguments_in(file, source, given("--image"));
  refuse_unrecordable(file, stored);
  if (source.empty()) refuse_plugins(file, stored[0]);
  if (!source.empty()) stored[0] = source;
  std::vector<std::string> rest(arguments.begin(), from), tail(after, arguments.end());
  rest.push_back(stored[0]);
  for (size_t i = 1; i + 1 < stored.size(); i += 2)
    if (!given(stored[i])) rest.push_back(fmt::format("{}={}", stored[i], stored[i + 1]));
  rest.insert(rest.end(), tail.begin(), tail.end());
  return rest;
}

}  // namespace brume::tools
