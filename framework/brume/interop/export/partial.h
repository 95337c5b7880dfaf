#pragma once
// What an export writes, in a temporary folder until all of it is there: the target appears whole or not at all.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "brume/files/lock.h"
#include "brume/weights/tensors.h"

namespace brume {

class Partial final {
 public:
  /// What will appear: its name within the folder ("" is the folder itself), and its target.
  using Moves = std::vector<std::pair<std::string, std::filesystem::path>>;
  /// Makes the folder in the same directory as the first, and removes those that killed exports of the same name left there. Throws
  /// ConfigError if one of them exists already, or if no folder can be made.
  explicit Partial(Moves moves);
  ~Partial();  ///< removes what did not appear
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;

  void file(const std::string& name, const std::string& content) const;
  void config(const std::string& name, const nlohmann::json& values) const { file(name, values.dump(2) + "\n"); }
  void tensors(const std::string& name, const NamedTensors& all) const;
  /// Throws ConfigError if one cannot be given its name; then none has it.
  void commit();

 private:
  std::string made(const std::string& name) const;

  Moves moves_;
  std::filesystem::path path_;
  Lock lock_;  ///< of the folder, as long as it is written
};

}  // namespace brume
