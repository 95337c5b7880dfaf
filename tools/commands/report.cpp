// brume report DIR: one page about the runs in a directory.
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "brume/experiments/run_index.h"
#include "brume/experiments/run_query.h"
#include "brume/files/atomic_file.h"
#include "commands/report_page.h"
#include "program/outputs.h"
#include "program/program.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string directory, out = "report.html";
  std::vector<std::string> where;
};

void report(const Arguments& a) {
  check_file("--out", a.out);
  const std::vector<RunRecord> runs = filtered(list_runs(a.directory), a.where);
  if (runs.empty()) throw ConfigError(fmt::format("{}: no runs{}", a.directory, a.where.empty() ? "" : " with these figures"));
  const bool itself = is_run(a.directory);
  std::vector<fs::path> directories;
  for (const RunRecord& run : runs) directories.push_back(itself ? fs::path(a.directory) : fs::path(a.directory) / run.name);
  make_parent(a.out);
  write_file(a.out, report_page(fs::absolute(a.directory).lexically_normal().filename().string(), runs, directories));
  fmt::print("{}: {} runs\n", a.out, runs.size());
}

}  // namespace

void add_report(Command app, Program&, int&) {
  const Command command = app.add_subcommand("report", "writes one page about runs: curves, samples, evaluations, what differs");
  auto a = std::make_shared<Arguments>();
  command.add_option("directory", a->directory, "a run directory, or one with run directories in it").required().type_name("DIR");
  command.add_option("-o,--out", a->out, "the page, which needs no other file").capture_default_str().type_name("FILE");
  command.add_option("--where", a->where, "leaves out the runs that do not meet a condition such as 'fid<10' or 'lr=0.001'")
      .type_name("CONDITION")
      .allow_extra_args(false)
      .take_all();
  command.callback([a] { report(*a); });
}

}  // namespace brume::tools
