#pragma once
// The metadata that brume's files carry with their tensors: "brume.format", "brume.version", "brume.plugins", the keys of `metadata_key`,
// and a section of the configuration as YAML under "brume.model", "brume.classifier", "brume.autoencoder", "brume.sample", "brume.int8"
// (what was measured when its weights became integers) or "brume.config" (the whole configuration of a training).
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/config/value.h"

namespace brume {

/// Version of the layout of brume's files. It rises if older programs cannot read a newer file.
inline constexpr int model_format = 1;

namespace metadata_key {

inline constexpr const char* step = "brume.step";  ///< updates of the weights
/// Of an adapter, an embedding or a control: the hash of the model that it was trained on.
inline constexpr const char* base_hash = "brume.base_sha256";
inline constexpr const char* control_image = "brume.control_image";  ///< of a control: the kind of image it was trained with
inline constexpr const char* nearest_words = "brume.nearest_words";  ///< of an embedding: the words of the vocabulary nearest to it
inline constexpr const char* processes = "brume.processes";          ///< of a training file: their number, if there were several
/// Of a training file: what it has of the next line of metrics.jsonl, [sums, steps, skipped, unread].
inline constexpr const char* gathered = "brume.gathered";

}  // namespace metadata_key

class ModelMetadata {
 public:
  using Entries = std::map<std::string, std::string>;  ///< key and text, as a safetensors file holds them

  ModelMetadata() = default;
  explicit ModelMetadata(Entries entries) : entries_(std::move(entries)) {}
  /// Returns the metadata of a new model file, without its sections. `step`: updates that the model was trained for.
  static ModelMetadata of_model(int64_t step);
  /// Returns the metadata of a training file, which a training is resumed from.
  static ModelMetadata of_training(int64_t step, const Value& config);

  /// Returns the names of all sections: "model", "classifier", "autoencoder", "sample", "int8" and "config".
  static const std::vector<std::string>& sections();
  /// Returns true if the key holds a section.
  static bool is_section(std::string_view key);

  /// Returns true if a file of brume has these entries.
  bool is_brume() const;
  /// Returns true if a training file has these entries.
  bool is_training() const { return has("config"); }
  bool has(std::string_view section) const { return text(section) != nullptr; }
  /// Returns the section that says what the file holds: "model", "classifier" or "autoencoder"; "" if it has none of them.
  std::string kind() const;

  /// Throws ConfigError if no brume wrote the file `path`, or one with a newer layout.
  void check_format(const std::string& path) const;
  /// Returns the number of updates. Throws ConfigError naming `path` if it is missing or no count.
  int64_t step(const std::string& path) const { return count("step", path); }
  /// Returns the libraries of plugins that the model uses.
  std::vector<std::string> plugins() const;
  void set_plugins(const std::vector<std::string>& plugins);

  /// Returns the YAML of a section, or null.
  const std::string* text(std::string_view section) const;
  /// Returns a section, or a null value if there is no such section. `path` is the place of its values.
  Value section(std::string_view name, const std::string& path) const;
  /// Returns a section. Throws ConfigError naming `path` if it is missing.
  Value required(std::string_view name, const std::string& path) const;
  /// Writes a section; leaves out a null one.
  void set(std::string_view name, const Value& section);

  const Entries& entries() const { return entries_; }

 private:
  const std::string& entry(std::string_view name, const std::string& path) const;
  int64_t count(std::string_view name, const std::string& path) const;

  Entries entries_;
};

}  // namespace brume
