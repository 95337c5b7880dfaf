// brume runs [DIR], brume runs diff A B.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "brume/experiments/run_index.h"
#include "brume/experiments/run_query.h"
#include "commands/run_tables.h"
#include "program/program.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string directory = "runs", sort, format = "text", a, b;
  std::vector<std::string> where;
  bool reverse = false;
};

void print(const RunTable& table, const std::string& format) {
  fmt::print("{}", format == "csv" ? as_csv(table) : format == "markdown" ? as_markdown(table) : as_text(table));
}

/// Prints why runs are not whole, one line per reason.
void print_notes(const std::vector<RunRecord>& runs) {
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const RunRecord& run : runs)
    if (!run.note.empty()) by_reason[fmt::format("{}: {}", text_of(run.state), run.note)].push_back(run.name);
  constexpr size_t named = 3;
  for (const auto& [reason, names] : by_reason)
    fmt::print(stderr, "{}{}: {}\n", fmt::join(names.begin(), names.begin() + int64_t(std::min(names.size(), named)), ", "),
               names.size() > named ? fmt::format(" and {} more", names.size() - named) : "", reason);
}

void list(const Arguments& args) {
  std::vector<RunRecord> runs = filtered(list_runs(args.directory), args.where);
  if (!args.sort.empty()) sort_by(runs, args.sort, args.reverse);
  if (args.sort.empty() && args.reverse) print_warning("--reverse: has no effect without --sort");
  if (args.format == "json") {
    std::string text;
    for (const RunRecord& run : runs) text += (text.empty() ? "\n" : ",\n") + record_text(run);
    fmt::print("[{}\n]\n", text);
    return;
  }
  if (runs.empty()) fmt::print(stderr, "{}: no runs{}\n", args.directory, args.where.empty() ? "" : " with these figures");
  print(table_of(runs, true), args.format);
  print_notes(runs);
}

RunRecord opened(const std::string& directory) {
  const fs::path at = fs::path(directory).has_filename() ? fs::path(directory) : fs::path(directory).parent_path();
  if (!is_run(at)) throw ConfigError(fmt::format("{}: is no run directory: it has no config.yaml", directory));
  return read_run(at, at.string());
}

}  // namespace

void add_runs(Command app, Program&, int&) {
  const Command command = app.add_subcommand("runs", "lists the runs in a directory: what differs, how far they are, their figures");
  auto args = std::make_shared<Arguments>();
  command.add_option("directory", args->directory, "with run directories in it, at any depth").capture_default_str().type_name("DIR");
  command.add_option("--sort", args->sort, "name, state, step, a figure (its last; best.FIGURE), or a key of the configuration")
      .type_name("NAME");
  command.add_flag("--reverse", args->reverse, "the largest first");
  command.add_option("--where", args->where, "leaves out the runs that do not meet a condition such as 'fid<10' or 'lr=0.001'")
      .type_name("CONDITION")
      .allow_extra_args(false)
      .take_all();
  command.add_option("--format", args->format, "of the table; json has every figure and the whole configuration")
      .capture_default_str()
      .check(one_of({"text", "csv", "json", "markdown"}));
  const Command diff = command.add_subcommand("diff", "shows what differs between two runs: configuration and figures");
  diff.add_option("a", args->a, "a run directory").required().type_name("A");
  diff.add_option("b", args->b, "another").required().type_name("B");
  diff.add_option("--format", args->format, "of the table").capture_default_str().check(one_of({"text", "csv", "markdown"}));
  diff.callback([args] { print(differences_of(opened(args->a), opened(args->b)), args->format); });
  command.callback([args, command] {
    if (!command.has_subcommand()) list(*args);
  });
}

}  // namespace brume::tools
