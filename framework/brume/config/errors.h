#pragma once
// What brume says when the user's input is wrong. No torch, no YAML library.
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace brume {

/// A position in a configuration: a file, or the command-line option a value came from. Lines and columns count from 1;
/// line 0 means "the whole file".
struct Place {
  std::shared_ptr<const std::string> file;
  int line = 0;
  int column = 0;
  bool stored = false;       ///< in a model's file, which nobody edits: no warning is given of it
  std::string text() const;  ///< "configs/x.yaml:4:3", or "" if unknown
};

/// One mistake: its place, its part of the configuration ("sampler.spacing"), and its text.
struct Problem {
  Place place;
  std::string path;
  std::string message;
  std::string text() const;  ///< "configs/x.yaml:4:3: sampler.spacing: unknown key 'rhoo'; did you mean 'rho'?"
};

/// The user's mistake (a config, a file, an argument): one or more problems, all reported together. Our own mistakes are
/// std::logic_error. `what()` is the problems, one per line.
class ConfigError : public std::runtime_error {
 public:
  explicit ConfigError(std::string message);
  explicit ConfigError(std::vector<Problem> problems);
  const std::vector<Problem>& problems() const { return problems_; }
  /// Returns the same error with `place` and `path` filled in if a problem has none: constructors need not know their place.
  ConfigError located(const Place& place, const std::string& path) const;

 private:
  std::vector<Problem> problems_;
};

/// The user asked to stop (Ctrl-C): not an error of anything, but nothing below may go on.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

}  // namespace brume
