// brume sweep FILE: expands and checks every run, trains what is missing, runs the commands after each, ends with the table.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/core/processors.h"
#include "brume/experiments/run_index.h"
#include "brume/experiments/sweep.h"
#include "brume/files/atomic_file.h"
#include "brume/files/lock.h"
#include "brume/files/text_file.h"
#include "brume/train/trainer.h"
#include "commands/run_tables.h"
#include "program/process.h"
#include "program/processes.h"
#include "program/program.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string file, out, only = "missing";
  int64_t jobs = 1;
  bool dry = false;
  Overrides overrides;
};

Value configuration(const Arguments& a) {
  Value root = load_yaml(a.file);
  a.overrides.apply(root);
  return root;
}

std::string replaced(std::string word, const std::string& name, const std::string& by) {
  for (size_t at = 0; (at = word.find(name, at)) != word.npos; at += by.size()) word.replace(at, name.size(), by);
  return word;
}

/// What is to do for one run, in its order: the training, then the commands.
class Job {
 public:
  Job(const Program& program, const Arguments& a, const SweepRun& run, const Sweep& sweep, const fs::path& directory, int64_t steps)
      : name_(run.name), directory_(directory / run.name) {
    for (const std::string& library : program.plugins) plugins_.insert(plugins_.end(), {"--plugin", library});
    if (a.only != "commands" && !trained(steps)) add_training(a, run);
    const std::vector<std::string> done = noted();
    std::map<std::string, int> uses;
    for (const auto& words : sweep.commands) {
      const std::vector<std::string> command = completed(words, ++uses[words.front()]);
      const std::string text = fmt::format("{}", fmt::join(command, " "));
      const bool again = training_ || std::find(done.begin(), done.end(), text) == done.end();
      if (again && (training_ || trained(steps))) steps_.push_back(command);
    }
  }

  const std::string& name() const { return name_; }
  bool ended() const { return next_ == steps_.size(); }
  std::string doing() const { return steps_[next_].front(); }

  int start(bool alone, int threads) {
    std::vector<std::string> words = steps_[next_];
    if (training_ && next_ == 0) {
      fs::create_directories(directory_);
      fs::remove(directory_ / note_name);
      remove_measures();
      if (fs::exists(directory_ / "training.safetensors")) words.insert(words.end(), {"--resume", directory_.string()});
    }
    words.insert(words.begin(), plugins_.begin(), plugins_.end());
    return start_process(words, alone ? "" : (directory_ / "log.txt").string(), threads);
  }
  /// Notes that the step that was started has been done.
  void finish() {
    if (!(training_ && next_ == 0)) {
      std::string text;
      for (const std::string& line : noted()) text += line + "\n";
      write_file((directory_ / note_name).string(), text + fmt::format("{}\n", fmt::join(steps_[next_], " ")));
    }
    ++next_;
  }

 private:
  static constexpr const char* note_name = "commands.txt";  ///< the commands that have been run

  bool trained(int64_t steps) const {
    const fs::path file = directory_ / "training.safetensors";
    try {
      return fs::exists(file) && training_step(file) >= steps;
    } catch (const ConfigError&) {
      return false;  // brume train says what is wrong with the file
    }
  }
  void add_training(const Arguments& a, const SweepRun& run) {
    training_ = true;
    std::vector<std::string> words{"train", a.file, "--of-sweep", "--out", directory_.string()};
    for (const Option<Overrides>& option : Overrides::options())
      for (const std::string& value : option.values(a.overrides)) words.insert(words.end(), {option.long_name(), value});
    for (const std::string& setting : run.settings) words.insert(words.end(), {"--set", setting});
    steps_.push_back(std::move(words));
  }
  /// Puts the run's directory and name into a command; adds --json if it measures and names no file.
  std::vector<std::string> completed(std::vector<std::string> words, int use) const {
    const std::string command = words.front();
    if ((command == "evaluate" || command == "likelihood") && std::find(words.begin(), words.end(), "--json") == words.end())
      words.insert(words.end(),
                   {"--json", use == 1 ? fmt::format("{{run}}/{}.json", command) : fmt::format("{{run}}/{}_{}.json", command, use)});
    for (std::string& word : words) word = replaced(replaced(word, "{run}", directory_.string()), "{name}", name_);
    return words;
  }
  /// Removes what commands have measured of an earlier model of this run.
  void remove_measures() const {
    for (const auto& words : steps_)
      for (size_t i = 0; i + 1 < words.size(); ++i)
        if (words[i] == "--json" && fs::path(words[i + 1]).parent_path() == directory_) fs::remove(words[i + 1]);
  }
  std::vector<std::string> noted() const {
    std::vector<std::string> all;
    if (!fs::exists(directory_ / note_name)) return all;
    const std::string text = read_text((directory_ / note_name).string());
    for (const std::string_view line : lines_of(text)) all.emplace_back(line);
    return all;
  }

  std::string name_;
  fs::path directory_;
  std::vector<std::string> plugins_;
  bool training_ = false;  ///< the first step trains
  std::vector<std::vector<std::string>> steps_;
  size_t next_ = 0;
};

/// Runs the jobs, so many at once. Returns the names of those that failed.
std::vector<std::string> run_jobs(std::vector<Job>& jobs, const Arguments& a, const std::string& checked) {
  const int cores = int(usable_processors());
  const int threads = a.jobs > 1 ? std::max(1, cores / int(a.jobs)) : 0;
  std::map<int, Job*> running;
  std::vector<std::string> failed;
  size_t next = 0;
  const auto start = [&](Job& job) {
    fmt::print(stderr, "[{}/{}] {}: {}\n", &job - jobs.data() + 1, jobs.size(), job.name(), job.doing());
    running[job.start(a.jobs == 1, threads)] = &job;
  };
  for (;;) {
    while (!interrupted && next < jobs.size() && running.size() < size_t(a.jobs)) {
      Job& job = jobs[next++];
      if (job.ended()) continue;
      if (dump_yaml(configuration(a)) != checked)
        throw ConfigError(fmt::format("{}: has changed since its runs were checked; start the sweep again", a.file));
      start(job);
    }
    if (running.empty()) return failed;
    const auto [id, code] = wait_for_any();
    const auto at = running.find(id);
    if (at == running.end()) continue;
    Job& job = *at->second;
    running.erase(at);
    if (code == 0) {
      job.finish();
      if (!job.ended() && !interrupted) start(job);
    } else if (!interrupted) {
      failed.push_back(job.name());
      fmt::print(stderr, "{}: {} ended with {}{}\n", job.name(), job.doing(), code,
                 a.jobs > 1 ? "; log.txt in its directory says why" : "");
    }
  }
}

void print_table(const fs::path& directory, const Sweep& sweep) {
  std::vector<RunRecord> runs = list_runs(directory);
  std::map<std::string, size_t> order;
  for (size_t i = 0; i < sweep.runs.size(); ++i) order[sweep.runs[i].name] = i;
  std::erase_if(runs, [&](const RunRecord& run) { return !order.contains(run.name); });
  std::sort(runs.begin(), runs.end(), [&](const RunRecord& x, const RunRecord& y) { return order[x.name] < order[y.name]; });
  fmt::print("{}", as_text(table_of(runs, false)));
}

int sweep_of(Program& program, const Arguments& a) {
  const Value root = configuration(a);
  const Sweep sweep = expand_sweep(root);
  const std::vector<Value> resolved = check_runs(program.registry, sweep, fs::path(a.file).parent_path());
  if (a.dry) {
    for (const SweepRun& run : sweep.runs) fmt::print("{}\n", run.name);
    return 0;
  }
  const fs::path directory = a.out.empty() ? fs::path("runs") / fs::path(a.file).stem() : fs::path(a.out);
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw ConfigError(fmt::format("--out: {} cannot be made: {}", directory.string(), error.message()));
  const Lock lock(fs::canonical(directory).string());
  if (lock.taken()) throw ConfigError(fmt::format("{}: another sweep runs in this directory", directory.string()));
  std::vector<Job> jobs;
  for (size_t i = 0; i < sweep.runs.size(); ++i) {
    const int64_t steps = parse_number<int64_t>(nearest(resolved[i], "train.steps").scalar).value_or(0);
    jobs.emplace_back(program, a, sweep.runs[i], sweep, directory, steps);
  }
  const auto missing = std::count_if(jobs.begin(), jobs.end(), [](const Job& job) { return !job.ended(); });
  fmt::print(stderr, "{}: {} runs, {} to do\n", directory.string(), jobs.size(), missing);
  catch_interrupt();
  const std::vector<std::string> failed = run_jobs(jobs, a, dump_yaml(root));
  print_table(directory, sweep);
  if (interrupted) return 130;
  if (!failed.empty()) fmt::print(stderr, "{} of {} runs failed: {}\n", failed.size(), jobs.size(), fmt::join(failed, " "));
  return failed.empty() ? 0 : 1;
}

}  // namespace

void add_sweep(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("sweep", "trains the runs that the section `sweep` of a configuration describes");
  auto a = std::make_shared<Arguments>();
  command.add_option("config", a->file, "a YAML file with a section `sweep`").required().type_name("CONFIG");
  command.add_option("-o,--out", a->out, "the directory of the runs; runs/<configuration> if not given").type_name("DIR");
  command.add_option("--jobs", a->jobs, "runs at once, which share the processor's threads").capture_default_str().check(between(1, 256));
  command.add_option("--only", a->only, "missing = what is not done yet; commands = those alone, of trained runs")
      .capture_default_str()
      .check(one_of({"missing", "commands"}));
  command.add_flag("--dry-run", a->dry, "checks all runs and prints their names");
  a->overrides.add_to(command);
  command.callback([&program, &code, a] { expect_one_process("sweep"), code = sweep_of(program, *a); });
}

}  // namespace brume::tools
