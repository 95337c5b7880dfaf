#pragma once
// Commands and their options. command_line.cpp alone includes CLI11, whose headers take long to compile.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace CLI {
class App;
class Option;
class Validator;
}  // namespace CLI

namespace brume::tools {

/// A test of the values of an option, which `--help` shows as the values that are allowed.
class Check {
 public:
  explicit Check(CLI::Validator validator);
  const CLI::Validator& validator() const { return *validator_; }

 private:
  std::shared_ptr<const CLI::Validator> validator_;
};

/// Allows whole numbers from `low` to `high`.
Check whole_between(int64_t low, int64_t high);
/// Allows numbers from `low` to `high`.
Check real_between(double low, double high);
/// Allows numbers above 0.
Check positive_number();
/// Allows these words. Its error names the nearest word.
Check one_of(const std::vector<std::string>& words);

template <class L, class H>
Check between(L low, H high) {
  if constexpr (std::is_integral_v<L>)
    return whole_between(low, high);
  else
    return real_between(low, high);
}

/// An option of a command. Copies are the same option.
class CommandOption {
 public:
  explicit CommandOption(CLI::Option* option) : option_(option) {}
  CommandOption required() const;
  CommandOption type_name(const std::string& name) const;
  /// Shows the present value of the variable as the default.
  CommandOption capture_default_str() const;
  CommandOption check(const Check& check) const;
  /// Tests a value with a function that returns an error text, or "".
  CommandOption check(std::function<std::string(const std::string& value)> error) const;
  /// Replaces a value before it is tested.
  CommandOption transform(std::function<std::string(std::string value)> change) const;
  CommandOption excludes(const CommandOption& other) const;
  CommandOption excludes(const std::string& other) const;
  CommandOption needs(const CommandOption& other) const;
  /// Sets how many values it takes.
  CommandOption expected(int least, int most) const;
  /// Splits a value at this character.
  CommandOption delimiter(char separator) const;
  /// Decides if a use takes several values, `--prompt a b`.
  CommandOption allow_extra_args(bool allowed) const;
  /// Keeps the values of all uses.
  CommandOption take_all() const;
  /// Leaves it out of `--help`.
  CommandOption hidden() const;
  /// Returns how often the command line has it.
  size_t count() const;

 private:
  CLI::Option* option_;
};

/// What `--help` says of an option.
struct OptionHelp {
  std::string name;   ///< "-n,--count"
  std::string value;  ///< "INT in [1 - 64]", "FILE ..."; "" of a flag
  std::string standard, meaning;
  bool required = false, positional = false;
};

/// A command. Copies are the same command.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  Command add_subcommand(const std::string& name, const std::string& doc) const;
  /// Adds an option that sets `value`, of one of the types in command_line.cpp. `names`: "-n,--count", or "config" of a positional one.
  template <class T>
  CommandOption add_option(const std::string& names, T& value, const std::string& doc = "") const;
  CommandOption add_flag(const std::string& names, bool& value, const std::string& doc) const;
  CommandOption add_flag_function(const std::string& names, std::function<void(int64_t count)> use, const std::string& doc) const;
  /// Runs `run` if the command line names this command.
  void callback(std::function<void()> run) const;
  /// Needs this many subcommands.
  void require_subcommand(int count) const;
  /// Returns true if the command line names a command below this one.
  bool has_subcommand() const;

  std::string name() const;
  std::string description() const;
  std::vector<Command> subcommands() const;
  /// Returns its options without --help, positional ones first.
  std::vector<OptionHelp> options() const;

 private:
  CLI::App* app_;
};

/// The command line of a program.
class CommandLine {
 public:
  CommandLine(const std::string& name, const std::string& doc, const std::string& version);
  ~CommandLine();
  Command root() const;
  /// Calls `prepare` after the options of the program are read and before a command runs.
  void before_commands(std::function<void()> prepare);
  /// Reads the arguments (without the program's name) and runs the command. `--option=` gives an empty value. Returns the exit code if no
  /// command ran: 0 after --help and
  /// --version, 2 after an error, which is printed. Throws ConfigError for an unknown command or option, with the nearest one.
  std::optional<int> run(std::vector<std::string> arguments);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace brume::tools
