#pragma once
// What TensorBoard shows of a training: RUN/events.out.tfevents.brume.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "brume/config/value.h"
#include "brume/train/optimization.h"

namespace brume {

/// The name of the event file in a run directory.
inline constexpr const char* event_file_name = "events.out.tfevents.brume";

/// Writes the events of one training. An error is a ConfigError that names the file.
class TensorBoardLog {
 public:
  /// Goes on with the event file of a run directory: the events of later steps than `step` are removed. A new file begins with the text of
  /// the configuration and, as hyperparameters, its scalars under model, train and compute.
  TensorBoardLog(const std::filesystem::path& directory, const Value& resolved, int64_t step);
  void scalars(int64_t step, const Metrics& figures);
  /// Adds a PNG file under the tag `samples`.
  void image(int64_t step, const std::filesystem::path& png);

 private:
  void write(int64_t step, const std::string& field, int number);
  std::filesystem::path file_;
};

/// Returns the scalars of a configuration by their paths ("train.optimizer.lr"), those of lists with their numbers.
std::map<std::string, Value> scalars_of(const Value& root);

}  // namespace brume
