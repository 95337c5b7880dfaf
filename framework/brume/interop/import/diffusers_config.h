#pragma once
// The JSON files of diffusers and transformers (config.json, scheduler_config.json, model_index.json): values with the defaults that the
// class gives them if the file is silent, and what brume cannot be, said by file and key. Python writes Infinity, -Infinity and NaN
// as bare words; they are read as "inf", "-inf" and "nan".
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "brume/config/errors.h"

namespace brume {

/// Parses such a file; throws ConfigError if it does not exist, or is no JSON.
nlohmann::json read_json(const std::filesystem::path& file);
/// Returns the same of a text; `name` is for messages.
nlohmann::json parse_json(const std::string& text, const std::string& name);

/// A JSON object of the file. null counts as silent.
class DiffusersConfig {
 public:
  /// Reads a file. `part` is what the file describes, in messages: "the unet of brume". `type`, if not empty, is the class that
  /// model_index.json names: it counts whatever the file says (_class_name).
  DiffusersConfig(const std::filesystem::path& file, std::string part, const std::string& type = "");
  DiffusersConfig(nlohmann::json values, std::string file, std::string part);

  template <class T>
  T get(const char* key, T fallback) const;
  /// Returns one number for all, or a list of `count`.
  std::vector<int64_t> each(const char* key, size_t count, int64_t fallback) const;
  /// Returns a list of channels, each from 1 to a number that no network has: what would be made of more is nothing but memory.
  std::vector<int64_t> widths(const char* key, const std::vector<int64_t>& fallback) const;
  /// Throws ConfigError unless the value is `wanted`, or absent.
  template <class T>
  void only(const char* key, const T& wanted) const {
    if (get<T>(key, wanted) != wanted) refuse(key, nlohmann::json(wanted).dump());
  }
  /// Throws ConfigError unless the value is null, false, or absent.
  void absent(const char* key) const;
  bool has(const char* key) const { return values_.contains(key) && !values_[key].is_null(); }
  bool null(const char* key) const { return values_.contains(key) && values_[key].is_null(); }
  const nlohmann::json& values() const { return values_; }
  const std::string& file() const { return file_; }
  [[noreturn]] void refuse(const char* key, const std::string& allowed) const;

 private:
  /// Returns true if a value is a number that a program counts with: whole, though it may be written as 8.0, and of no absurd size.
  static bool counts(const nlohmann::json& value);

  nlohmann::json values_;
  std::string file_, part_;
};

/// Returns norm_num_groups, which divides each of these widths.
int64_t groups_of(const DiffusersConfig& c, const std::vector<int64_t>& widths);

template <class T>
T DiffusersConfig::get(const char* key, T fallback) const {
  const auto at = values_.find(key);
  if (at == values_.end() || at->is_null()) return fallback;
  bool sound = true;
  if constexpr (std::is_same_v<T, int64_t>) sound = counts(*at);
  if constexpr (std::is_same_v<T, std::vector<int64_t>>) sound = at->is_array() && std::all_of(at->begin(), at->end(), counts);
  try {
    if (sound) return at->template get<T>();
  } catch (const nlohmann::json::exception&) {
  }
  throw ConfigError(fmt::format("{}: {} is {}, which is not what diffusers writes there", file_, key, at->dump()));
}

}  // namespace brume
