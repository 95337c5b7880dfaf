#pragma once
// What the commands of the program share.
#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/registry.h"
#include "program/option.h"

namespace brume::tools {

/// The program: its registry, and set by Ctrl-C.
struct Program {
  Registry registry;
  std::vector<std::string> plugins;  ///< --plugin
};

/// Becomes true at the first Ctrl-C; the second ends the process at once.
extern std::atomic<bool> interrupted;
void catch_interrupt();

/// Each adds its command; the returned code of a command is kept in `code`.
void add_train(CLI::App& app, Program& program, int& code);
void add_sample(CLI::App& app, Program& program, int& code);
void add_encode(CLI::App& app, Program& program, int& code);
void add_evaluate(CLI::App& app, Program& program, int& code);
void add_likelihood(CLI::App& app, Program& program, int& code);
void add_invert(CLI::App& app, Program& program, int& code);
void add_conform(CLI::App& app, Program& program, int& code);
void add_list(CLI::App& app, Program& program, int& code);
void add_describe(CLI::App& app, Program& program, int& code);
void add_check(CLI::App& app, Program& program, int& code);
void add_inspect(CLI::App& app, Program& program, int& code);
void add_import(CLI::App& app, Program& program, int& code);
void add_new(CLI::App& app, Program& program, int& code);
void add_bench(CLI::App& app, Program& program, int& code);
void add_schema(CLI::App& app, Program& program, int& code);
void add_plot(CLI::App& app, Program& program, int& code);
void add_tokenizer(CLI::App& app, Program& program, int& code);
void add_export(CLI::App& app, Program& program, int& code);

/// Lets an option be one of these words, and names the nearest to any other.
CLI::Validator one_of(const std::vector<std::string>& words);
/// What a line says that no command or option is, with the nearest that is; "" where it says no such thing. After app.parse() threw.
std::string unknown_words(const CLI::App& app);

/// Prints a warning on stderr, each text once.
void print_warning(const std::string& text);

/// --seed, which is counted from 0.
CLI::Option* add_seed(CLI::App& command, uint64_t& seed);

/// --set, --precision, --device and --threads, which most commands take.
struct Overrides {
  std::vector<std::string> set;
  std::string precision, device;
  std::optional<int64_t> threads;
  static const std::vector<Option<Overrides>>& options();
  void add_to(CLI::App& command);
  void apply(Value& root) const;
};

}  // namespace brume::tools
