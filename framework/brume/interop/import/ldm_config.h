#pragma once
// The YAML that CompVis' programs keep with a checkpoint: `model: {target: …LatentDiffusion, params: {…}}`. It says what the tensors do
// not: the noise schedule, what the network predicts, how many heads its attention has, the size of the images.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/value.h"

namespace brume {

class LdmConfig {
 public:
  LdmConfig() = default;  ///< no configuration
  explicit LdmConfig(const std::filesystem::path& file);

  bool there() const { return !file_.empty(); }
  /// Returns true if it is one of theirs.
  bool is_ldm() const;
  const std::string& file() const { return file_; }
  /// Returns a value at a path below `model.params`, or null if it is silent.
  const Value* find(std::string_view path) const;
  /// Returns the same as a number, a word or a truth; throws ConfigError if it is something else.
  std::optional<double> number(std::string_view path) const;
  std::optional<int64_t> integer(std::string_view path) const;
  std::optional<std::string> word(std::string_view path) const;
  bool truth(std::string_view path, bool otherwise) const;
  /// Returns the last name of a module's `target` ("UNetModel"); "" if it is silent.
  std::string target(std::string_view path) const;

 private:
  std::string file_;
  Value root_;
};

/// A file's table of betas; empty if the file has none.
struct LdmBetas {
  std::vector<double> values;
  double rounding = 1e-6;  ///< of the type they are stored in, as a share of a number: programs halve the precision of all there is
};
/// Returns the noise schedule of `make_beta_schedule`; without a configuration, the one that the betas of the file have; null if there are
/// no betas.
Value ldm_schedule(const LdmConfig& config, const LdmBetas& betas);

}  // namespace brume
