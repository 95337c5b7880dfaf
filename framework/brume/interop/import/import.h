#pragma once
// Models of other programs as brume's own: what `brume import` writes to a file, and what every command that takes a model reads from
// the foreign file directly. A family says which sources it knows and turns one into the contents of a brume model file; nothing behind
// this header learns the origin of a model.
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/value.h"
#include "brume/core/files.h"
#include "brume/core/network.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/tensors.h"

namespace brume {

/// What cannot be read from a source and must be given: as `key=value`, or a configuration next to the weights.
struct ImportOptions {
  std::map<std::string, std::string> settings;  ///< of the family, by its own names ("num_heads" = "4")
  std::filesystem::path config;                 ///< a YAML or JSON file next to the weights; empty: the family looks for its own
};

/// A file or a directory that is no brume model, open.
struct Source {
  std::filesystem::path path;
  NamedTensors tensors;  ///< of a file: views of the mapped file, in the types they are stored in; none of a directory
  std::map<std::string, std::string> metadata;  ///< of a file
  bool directory() const { return std::filesystem::is_directory(path); }
};

/// A source in brume's words. Tensors keep the type they are stored in and are views of the source wherever a name is all that changes.
struct Imported {
  std::string section = "model";    ///< which section `options` is: model, classifier or autoencoder
  Value options;                    ///< that section, as a configuration has it; what is silent has brume's defaults
  Value sample;                     ///< the section `sample`; null if the source says nothing of sampling
  NamedTensors tensors;             ///< under brume's names
  Files files;                      ///< tokenizers and the like, by the path that `options` names
  std::vector<std::string> losses;  ///< for people: what of the source has no place in brume ("the safety checker"), one line each
};

/// One kind of source.
struct Family {
  std::string_view name;  ///< for people: "diffusers pipeline"
  bool (*knows)(const Source& source);
  Imported (*import)(const Source& source, const ImportOptions& options);  ///< throws ConfigError
};

/// Returns the section `image`.
Value image_of(int64_t channels, int64_t height, int64_t width);
/// Returns a tree that an importer made. Its places name `source`, and no line.
Value section_of(Value tree, const std::string& source);

/// Returns all families, in the order in which they are asked.
const std::vector<Family>& families();
/// Returns the first family that knows the source, or null.
const Family* family_of(const Source& source);
/// Opens what is to be imported; throws ConfigError if it is neither a directory nor a weights file.
Source open_source(const std::filesystem::path& path);
/// Imports what is open. Throws ConfigError that says what was found, and which families there are, if none knows it.
Imported import_model(const Source& source, const ImportOptions& options = {});
Imported import_model(const std::filesystem::path& path, const ImportOptions& options = {});

/// What a brume model file holds: tensors, those of files among them, and metadata.
struct Contents {
  NamedTensors tensors;
  ModelMetadata metadata;
};
/// Returns what a brume file of the imported model holds.
Contents contents_of(const Imported& model);
/// Returns what a brume model file holds, or would hold after the import of this one. Refuses options that a brume model has no use for.
Contents open_model(const std::filesystem::path& path, const ImportOptions& options = {});
/// Returns the files of a brume model file, or of one that can be imported.
Files load_files(const std::string& path);
/// Copies the weights of a brume model file, or of one that can be imported, as load_weights does.
void load_model(const std::string& path, const std::vector<Weight>& weights);

}  // namespace brume
