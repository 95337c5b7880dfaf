#pragma once
// What the commands of the program share.
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/registry.h"
#include "program/command_line.h"
#include "program/option.h"

namespace brume::tools {

/// The program: its registry, and set by Ctrl-C.
struct Program {
  Registry registry;
  std::vector<std::string> plugins;  ///< --plugin
};

/// Becomes true at the first SIGINT (Ctrl-C), SIGTERM or SIGUSR1 (Slurm, before the time is over); a second Ctrl-C ends the process at
/// once.
extern std::atomic<bool> interrupted;
void catch_interrupt();

/// Adds a command, whose exit code is kept in `code`.
void add_train(Command app, Program& program, int& code);
void add_sample(Command app, Program& program, int& code);
void add_encode(Command app, Program& program, int& code);
void add_quantize(Command app, Program& program, int& code);
void add_evaluate(Command app, Program& program, int& code);
void add_statistics(Command app, Program& program, int& code);
void add_likelihood(Command app, Program& program, int& code);
void add_invert(Command app, Program& program, int& code);
void add_conform(Command app, Program& program, int& code);
void add_list(Command app, Program& program, int& code);
void add_describe(Command app, Program& program, int& code);
void add_check(Command app, Program& program, int& code);
void add_inspect(Command app, Program& program, int& code);
void add_import(Command app, Program& program, int& code);
void add_new(Command app, Program& program, int& code);
void add_bench(Command app, Program& program, int& code);
void add_schema(Command app, Program& program, int& code);
void add_plot(Command app, Program& program, int& code);
void add_tokenizer(Command app, Program& program, int& code);
void add_ema(Command app, Program& program, int& code);
void add_sweep(Command app, Program& program, int& code);
void add_report(Command app, Program& program, int& code);
void add_runs(Command app, Program& program, int& code);
void add_export(Command app, Program& program, int& code);
void add_adapter(Command app, Program& program, int& code);
void add_serve(Command app, Program& program, int& code);
void add_launch(Command app, Program& program, int& code);

/// Prints a warning on stderr, each text once.
void print_warning(const std::string& text);

/// Adds --seed, which is counted from 0; -1 draws one and prints it.
CommandOption add_seed(Command command, uint64_t& seed);

/// --set, --precision, --device and --threads, which most commands take.
struct Overrides {
  std::vector<std::string> set;
  std::string precision, device;
  std::optional<int64_t> threads;
  static const std::vector<Option<Overrides>>& options();
  void add_to(Command command);
  void apply(Value& root) const;
};

}  // namespace brume::tools
