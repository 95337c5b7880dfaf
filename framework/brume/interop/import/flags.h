#pragma once
// Settings that weights do not hold, by the names that the program they come from has for them on its command line or in its
// constructors: given as key=value, or in a JSON or YAML file next to the weights.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "brume/interop/import/import.h"

namespace brume {

class Flags {
 public:
  /// Reads the configuration that the options name, else the file called as the source is with .json, .yaml or .yml at its end; of a file,
  /// what is known there (and in its maps "arch", "network_kwargs" and "model_kwargs") is taken. What both leave open is what a pickled
  /// network keeps of its constructor (weights/network_pickle.h). Throws ConfigError if another key is set.
  /// `known`: every name there is.
  Flags(const Source& source, const ImportOptions& options, const std::vector<std::string>& known);

  bool has(const std::string& name) const { return values_.contains(name); }
  /// Returns the value, if it is given. Throws ConfigError if it is of another type.
  std::optional<std::string> text(const std::string& name) const;
  std::optional<int64_t> integer(const std::string& name) const;
  std::optional<double> number(const std::string& name) const;
  std::optional<bool> truth(const std::string& name) const;                ///< True, true, 1, …
  std::optional<std::vector<double>> list(const std::string& name) const;  ///< "1,2,4", or a list; an empty text is silence

  /// Returns "num_heads=3", or "model.json: num_heads = 3" (the file that says it), for messages.
  std::string given(const std::string& name) const;
  /// Throws ConfigError if a given value is not what the weights have.
  template <class T>
  void agree(const std::string& name, const std::optional<T>& given, const T& found) const {
    if (given && *given != found) refuse_difference(name);
  }
  [[noreturn]] void refuse_difference(const std::string& name) const;
  /// Throws ConfigError: `name` cannot be read from the weights.
  [[noreturn]] void refuse_missing(const std::string& name, const std::string& why) const;

 private:
  void take(const brume::Value& map, const std::vector<std::string>& known, const std::string& file);

  std::string source_;
  std::map<std::string, std::string> settings_;
  std::map<std::string, brume::Value> values_;
  std::map<std::string, std::string> files_;  ///< of the values that are no settings
};

}  // namespace brume
