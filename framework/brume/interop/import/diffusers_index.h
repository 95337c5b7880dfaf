#pragma once
// The components of a diffusers pipeline.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "brume/interop/import/diffusers_config.h"

namespace brume {

/// model_index.json: the class of each component that is there.
class DiffusersIndex {
 public:
  explicit DiffusersIndex(const std::filesystem::path& folder);
  const std::string& file() const { return config_.file(); }
  std::string pipeline() const { return config_.get<std::string>("_class_name", ""); }
  /// Returns a setting of the pipeline itself.
  bool truth(const char* key) const { return config_.get(key, false); }
  /// Returns the class of a component; empty if it is not there.
  std::string component(const std::string& name) const;
  /// Throws ConfigError if the class of a component is none of `wanted`.
  void expect(const std::string& name, const std::vector<std::string>& wanted) const;
  /// Throws ConfigError if there are components that change what is computed and are not read; returns those that change nothing.
  std::vector<std::string> losses() const;

 private:
  DiffusersConfig config_;
  std::map<std::string, std::string> classes_;
};

}  // namespace brume
