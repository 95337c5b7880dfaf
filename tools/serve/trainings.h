#pragma once
// Trainings that the server starts, each a process of this program.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "brume/config/registry.h"

namespace brume::tools {

class Trainings {
 public:
  /// Starts no training yet. `runs`: the folder of run directories. `plugins`: libraries that the server was started with. `threads`: of
  /// OpenMP per training; 0 = as the surroundings say.
  Trainings(std::filesystem::path runs, std::vector<std::string> plugins, int threads = 0);
  /// Asks every training to stop, which keeps a checkpoint, and kills those that have not ended 4 s later.
  ~Trainings();
  Trainings(const Trainings&) = delete;
  Trainings& operator=(const Trainings&) = delete;

  /// Starts the training of a configuration as the run `name`. Throws ConfigError with every mistake of the configuration, and if the name
  /// is no name of a folder or taken, or a training runs.
  void start(const Registry& registry, const std::string& name, const std::string& yaml);
  /// Continues a stopped run at its checkpoint. Throws ConfigError if the run has none, or a training runs.
  void resume(const std::string& name);
  /// Asks a training to stop after the step it is at. Throws ConfigError if no training of this name runs.
  void stop(const std::string& name);

  /// Returns {"trainings": [{"name", "state", "code", "step", "steps", "rate", "eta", "log"}]}, in the order of their starts. State:
  /// running, stopping, done, stopped or failed; rate: images per second; eta: seconds; log: the end of what it printed.
  std::string json() const;

 private:
  struct Training {
    int process = 0, code = 0;
    int64_t number = 0;  ///< counts the starts
    bool running = true, stopping = false;
    std::thread watcher;
  };
  void launch(const std::string& name, std::vector<std::string> arguments);
  void refuse_second() const;
  std::filesystem::path file_of(const std::string& name, const char* ending) const;

  const std::filesystem::path runs_;
  const std::vector<std::string> plugins_;
  const int threads_;
  mutable std::mutex lock_;
  std::map<std::string, std::unique_ptr<Training>> all_;  ///< by name
  int64_t starts_ = 0;
};

}  // namespace brume::tools
