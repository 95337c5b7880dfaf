#include "program/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "brume/config/errors.h"
#include "brume/config/suggest.h"

namespace brume::tools {

Check::Check(CLI::Validator validator) : validator_(std::make_shared<const CLI::Validator>(std::move(validator))) {}

Check whole_between(int64_t low, int64_t high) { return Check(CLI::Range(low, high)); }
Check real_between(double low, double high) { return Check(CLI::Range(low, high)); }
Check positive_number() { return Check(CLI::PositiveNumber); }

Check one_of(const std::vector<std::string>& words) {
  const auto check = [words](const std::string& text) -> std::string {
    return std::find(words.begin(), words.end(), text) != words.end() ? "" : fmt::format("unknown value '{}'{}", text, hint(text, words));
  };
  return Check(CLI::Validator(check, "{" + CLI::detail::join(words) + "}"));
}

CommandOption CommandOption::required() const { return CommandOption(option_->required()); }
CommandOption CommandOption::type_name(const std::string& name) const { return CommandOption(option_->type_name(name)); }
CommandOption CommandOption::capture_default_str() const { return CommandOption(option_->capture_default_str()); }
CommandOption CommandOption::check(const Check& check) const { return CommandOption(option_->check(check.validator())); }
CommandOption CommandOption::check(std::function<std::string(const std::string&)> error) const {
  return CommandOption(option_->check(std::move(error)));
}
CommandOption CommandOption::transform(std::function<std::string(std::string)> change) const {
  return CommandOption(option_->transform(change));
}
CommandOption CommandOption::excludes(const CommandOption& other) const { return CommandOption(option_->excludes(other.option_)); }
CommandOption CommandOption::excludes(const std::string& other) const { return CommandOption(option_->excludes(other)); }
CommandOption CommandOption::needs(const CommandOption& other) const { return CommandOption(option_->needs(other.option_)); }
CommandOption CommandOption::expected(int least, int most) const { return CommandOption(option_->expected(least, most)); }
CommandOption CommandOption::delimiter(char separator) const { return CommandOption(option_->delimiter(separator)); }
CommandOption CommandOption::allow_extra_args(bool allowed) const { return CommandOption(option_->allow_extra_args(allowed)); }
CommandOption CommandOption::take_all() const { return CommandOption(option_->take_all()); }
CommandOption CommandOption::hidden() const { return CommandOption(option_->group("")); }
size_t CommandOption::count() const { return option_->count(); }

Command Command::add_subcommand(const std::string& name, const std::string& doc) const { return Command(app_->add_subcommand(name, doc)); }

template <class T>
CommandOption Command::add_option(const std::string& names, T& value, const std::string& doc) const {
  return CommandOption(app_->add_option(names, value, doc));
}
template CommandOption Command::add_option(const std::string&, std::string&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, int64_t&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, uint64_t&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, double&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::optional<std::string>&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::optional<int64_t>&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::optional<uint64_t>&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::optional<double>&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::vector<std::string>&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::vector<int64_t>&, const std::string&) const;
template CommandOption Command::add_option(const std::string&, std::vector<double>&, const std::string&) const;

CommandOption Command::add_flag(const std::string& names, bool& value, const std::string& doc) const {
  return CommandOption(app_->add_flag(names, value, doc));
}
CommandOption Command::add_flag_function(const std::string& names, std::function<void(int64_t)> use, const std::string& doc) const {
  return CommandOption(app_->add_flag_function(names, std::move(use), doc));
}
void Command::callback(std::function<void()> run) const { app_->callback(std::move(run)); }
void Command::require_subcommand(int count) const { app_->require_subcommand(count); }
bool Command::has_subcommand() const { return !app_->get_subcommands().empty(); }

std::string Command::name() const { return app_->get_name(); }
std::string Command::description() const { return app_->get_description(); }

std::vector<Command> Command::subcommands() const {
  std::vector<Command> all;
  for (CLI::App* below : app_->get_subcommands([](CLI::App*) { return true; })) all.emplace_back(below);
  return all;
}

namespace {

std::string value_of(const CLI::Option& option) {
  if (option.get_type_size() == 0) return "";
  const std::string type = option.get_type_name();  // "INT:INT in [1 - 64]": the type, then its check
  const size_t check = type.find(':');
  const bool says_type = check != std::string::npos && type.compare(check + 1, check, type, 0, check) == 0;
  return (says_type ? type.substr(check + 1) : type) + (option.get_expected_max() == CLI::detail::expected_max_vector_size ? " ..." : "");
}

}  // namespace

std::vector<OptionHelp> Command::options() const {
  std::vector<OptionHelp> all;
  for (const bool positional : {true, false})
    for (const CLI::Option* o : app_->get_options())
      if (o->get_positional() == positional && o != app_->get_help_ptr() && !o->get_group().empty())  // "" = hidden
        all.push_back({o->get_name(positional, !positional), value_of(*o), o->get_default_str(), o->get_description(), o->get_required(),
                       positional});
  return all;
}

CommandLine::CommandLine(const std::string& name, const std::string& doc, const std::string& version)
    : app_(std::make_unique<CLI::App>(doc, name)) {
  app_->require_subcommand(1);
  app_->set_version_flag("--version", version);
  app_->fallthrough();
}
CommandLine::~CommandLine() = default;

Command CommandLine::root() const { return Command(app_.get()); }
void CommandLine::before_commands(std::function<void()> prepare) { app_->parse_complete_callback(std::move(prepare)); }

namespace {

std::vector<std::string> options_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* at = &command; at; at = at->get_parent())
    for (const CLI::Option* option : at->get_options())
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::vector<std::string> commands_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* below : command.get_subcommands([](const CLI::App*) { return true; })) names.push_back(below->get_name());
  return names;
}

/// Returns the error of a word that is no command and no option, with the nearest one; "" if the line has no such word.
std::string unknown_words(const CLI::App& app) {
  const CLI::App* command = &app;
  std::string path = app.get_name();
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front(), path += " " + command->get_name();
  const std::vector<std::string> words = app.remaining(true), commands = commands_of(*command);
  const auto option = std::find_if(words.begin(), words.end(), [](const std::string& w) { return w.starts_with("--"); });
  if (!commands.empty() && !words.empty() && !words.front().starts_with("-"))
    return fmt::format("unknown command '{}'{}", words.front(), hint(words.front(), commands));
  if (option == words.end()) return "";
  const std::string name = option->substr(0, option->find('=')), near = closest(name, options_of(*command));
  return fmt::format("{}: unknown option '{}'; {}", path, name,
                     near.empty() ? fmt::format("{} --help lists those there are", path) : fmt::format("did you mean '{}'?", near));
}

/// Returns the command below `command` that a word names, or null.
const CLI::App* command_below(const CLI::App& command, const std::string& word) {
  const auto all = command.get_subcommands([&](const CLI::App* below) { return below->check_name(word); });
  return all.empty() ? nullptr : all.front();
}

/// Returns the option of a command, or of those above it, that a name names; null if there is no such option.
const CLI::Option* option_named(const CLI::App* command, const std::string& name) {
  for (; command; command = command->get_parent())
    if (const CLI::Option* option = command->get_option_no_throw(name)) return option;
  return nullptr;
}

bool is_number(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  return type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT");
}

/// Throws ConfigError if an option cannot have an empty value: a flag, a number, one file.
void check_empty_value(const CLI::Option& option, const std::string& word) {
  if (option.get_items_expected_max() == 0)
    throw ConfigError(fmt::format("{} has an empty value; true and false are allowed, and no value means true", word));
  if (is_number(option)) throw ConfigError(fmt::format("{} has an empty value; a number is expected", word));
  if (const std::string type = option.get_type_name(); option.get_items_expected_max() == 1 && !type.starts_with("TEXT"))
    throw ConfigError(fmt::format("{} has an empty value; {} is expected", word, type));
}

/// Returns the arguments with each `--option=` as two, the option and an empty value, which CLI11 would take from the next argument; and
/// with `-o=value` as two, of which CLI11 would take "=value". Throws ConfigError if the option cannot have an empty value.
std::vector<std::string> with_values_apart(const CLI::App& app, const std::vector<std::string>& arguments) {
  std::vector<std::string> all;
  const CLI::App* command = &app;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--") {
      all.insert(all.end(), arguments.begin() + std::ptrdiff_t(i), arguments.end());
      break;
    }
    if (const CLI::App* below = command_below(*command, word)) command = below;
    const size_t equals = word.find('=');
    const bool is_short = equals == 2 && word[0] == '-' && word[1] != '-';
    const bool empty = equals == word.size() - 1 && (is_short || word.starts_with("--"));
    const CLI::Option* option = empty || is_short ? option_named(command, word.substr(0, equals)) : nullptr;
    if (!option) {
      all.push_back(word);
      continue;
    }
    if (empty) check_empty_value(*option, word);
    all.insert(all.end(), {word.substr(0, equals), word.substr(equals + 1)});
  }
  return all;
}

}  // namespace

std::optional<int> CommandLine::run(std::vector<std::string> arguments) {
  try {
    arguments = with_values_apart(*app_, arguments);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
    app_->parse(std::move(arguments));
  } catch (const CLI::ParseError& e) {
    const bool mistake = e.get_exit_code() != 0;  // else it is --help or --version
    if (const std::string unknown = mistake ? unknown_words(*app_) : ""; !unknown.empty()) throw ConfigError(unknown);
    return app_->exit(e) == 0 ? 0 : 2;
  }
  return {};
}

}  // namespace brume::tools
