#include "serve/trainings.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>

#include "brume/config/number.h"
#include "brume/experiments/run_record.h"
#include "brume/files/atomic_file.h"
#include "brume/train/metrics_file.h"
#include "program/process.h"
#include "serve/checking.h"
#include "serve/run_answers.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr const char* own_folder = ".trainings";  ///< of configurations and logs, in the folder of runs

void check_name(const std::string& name) {
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("._=,+-").find(c) != std::string_view::npos;
  };
  if (name.empty() || name.size() > 100 || name.starts_with('.') || !std::all_of(name.begin(), name.end(), allowed))
    throw ConfigError(fmt::format("name: '{}' is no name of a run: 1 to 100 letters, digits and . _ = , + -, no dot first", name));
}

/// Returns the last lines of a log, at most 4 kB.
std::string end_of(const fs::path& log) {
  std::ifstream in(log, std::ios::binary | std::ios::ate);
  if (!in) return "";
  const std::streamoff size = in.tellg(), kept = std::min<std::streamoff>(size, 4096);
  in.seekg(size - kept);
  std::string text(size_t(kept), '\0');
  in.read(text.data(), kept);
  if (kept < size) text.erase(0, std::min(text.find('\n'), text.size() - 1) + 1);
  return text;
}

/// Adds how far a run is, from its files.
void add_progress(const fs::path& run, nlohmann::ordered_json& json) {
  const RunRecord record = is_run(run) ? read_run(run, "") : RunRecord();
  json["step"] = record.step, json["steps"] = record.steps;
  const auto rate = record.figures.find("images_per_second");
  const auto batch = record.configuration.find("train.batch");
  if (rate == record.figures.end() || batch == record.configuration.end() || rate->second.last <= 0) return;
  json["rate"] = rate->second.last;
  json["eta"] = double(record.steps - record.step) * parse_number<double>(batch->second).value_or(0) / rate->second.last;
}

}  // namespace

Trainings::Trainings(fs::path runs, std::vector<std::string> plugins, int threads)
    : runs_(std::move(runs)), plugins_(std::move(plugins)), threads_(threads) {}

Trainings::~Trainings() {
  const auto signal_all = [&](int signal) {
    const std::lock_guard guard(lock_);
    bool any = false;
    for (const auto& [name, t] : all_)
      if (t->running) {
        any = true;
        ::kill(t->process, signal);  // 0 sends nothing
      }
    return any;
  };
  bool any = signal_all(SIGINT);
  for (int i = 0; any && i < 80; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    any = signal_all(0);
  }
  if (any) signal_all(SIGKILL);
  for (const auto& [name, t] : all_) t->watcher.join();
}

fs::path Trainings::file_of(const std::string& name, const char* ending) const { return runs_ / own_folder / (name + ending); }

void Trainings::refuse_second() const {
  for (const auto& [name, t] : all_)
    if (t->running) throw ConfigError(fmt::format("the training '{}' runs; stop it before another is started", name));
}

void Trainings::launch(const std::string& name, std::vector<std::string> arguments) {
  for (const std::string& plugin : plugins_) arguments.insert(arguments.begin(), {"--plugin", plugin});
  if (const auto old = all_.find(name); old != all_.end()) {
    old->second->watcher.join();
    all_.erase(old);
  }
  auto training = std::make_unique<Training>();
  training->number = ++starts_;
  // The thread that starts a process outlives it: a process is killed with the thread that started it.
  std::promise<int> started;
  std::future<int> process = started.get_future();
  training->watcher =
      std::thread([this, t = training.get(), started = std::move(started), arguments, log = file_of(name, ".log").string()]() mutable {
        try {
          const int id = start_process(arguments, log, threads_, true);
          started.set_value(id);
          wait_until_ended(id);
          const std::lock_guard guard(lock_);
          t->code = wait_for(id);
          t->running = false;
        } catch (...) {
          started.set_exception(std::current_exception());
        }
      });
  try {
    training->process = process.get();
  } catch (...) {
    training->watcher.join();
    throw;
  }
  all_[name] = std::move(training);
}

void Trainings::start(const Registry& registry, const std::string& name, const std::string& yaml) {
  check_name(name);
  const CheckedText checked = check_training(registry, yaml);
  if (!checked.problems.empty()) throw ConfigError(checked.problems);
  const std::lock_guard guard(lock_);
  refuse_second();
  if (fs::exists(runs_ / name)) throw ConfigError(fmt::format("name: there is a run '{}' already; choose another name", name));
  fs::create_directories(runs_ / own_folder);
  write_file(file_of(name, ".yaml").string(), yaml);
  std::error_code none;
  fs::remove(file_of(name, ".log"), none);
  launch(name, {"train", file_of(name, ".yaml").string(), "--out", (runs_ / name).string()});
}

void Trainings::resume(const std::string& name) {
  const std::optional<fs::path> run = run_directory(runs_, name);
  const std::lock_guard guard(lock_);
  refuse_second();
  if (!run || !fs::exists(*run / "training.safetensors"))
    throw ConfigError(fmt::format("the run '{}' has no checkpoint to continue from", name));
  fs::create_directories(file_of(name, ".log").parent_path());
  launch(name, {"train", "--resume", (*run / "training.safetensors").string()});
}

void Trainings::stop(const std::string& name) {
  const std::lock_guard guard(lock_);
  const auto at = all_.find(name);
  if (at == all_.end() || !at->second->running) throw ConfigError(fmt::format("no training '{}' runs", name));
  at->second->stopping = true;
  ::kill(at->second->process, SIGINT);
}

std::string Trainings::json() const {
  std::map<int64_t, nlohmann::ordered_json> by_start;
  const std::lock_guard guard(lock_);
  for (const auto& [name, t] : all_) {
    nlohmann::ordered_json& one = by_start[t->number];
    const char* state = t->running ? (t->stopping ? "stopping" : "running") : t->code == 0 ? "done" : t->code == 130 ? "stopped" : "failed";
    one = {{"name", name}, {"state", state}, {"code", t->code}};
    add_progress(runs_ / name, one);
    one["log"] = end_of(file_of(name, ".log"));
  }
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (auto& [number, one] : by_start) list.push_back(std::move(one));
  return nlohmann::ordered_json{{"trainings", list}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace brume::tools
