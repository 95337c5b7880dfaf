#pragma once
// The models of the server: found in folders, opened at first use, closed if others need the memory.
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "brume/core/autoencoder.h"
#include "brume/model.h"

namespace brume::tools {

struct ShelfOptions {
  std::vector<std::filesystem::path> models;  ///< files, directories of models, and folders that hold them
  std::filesystem::path runs, loras;          ///< folders; empty = none
  uint64_t memory = 0;                        ///< bytes of weights that stay open; 0 = without a bound
  std::filesystem::path preview_decoder;      ///< file of a small first stage, for previews of models with its latents; empty = none
  OpenOptions open;                           ///< device, precision and threads
};

/// A model that is open, with these LoRAs.
struct OpenModel {
  std::shared_ptr<Registry> registry;  ///< of this model alone
  Model model;
  std::string path;
  uint64_t bytes = 0;                                    ///< of its weights in float32
  std::shared_ptr<const Autoencoder> preview = nullptr;  ///< a small first stage with its latents
};

class ModelShelf {
 public:
  /// Loads the plugin libraries that configurations among the models name, while no other thread reads the registry.
  ModelShelf(Registry& registry, ShelfOptions options);

  /// Returns [{"id", "loaded", "error", "classes", "text", "image", "defaults"}] of the models that are there now.
  nlohmann::ordered_json list() const;
  /// Returns the ids of the models that are there now. `lately`: those that were there within the last second suffice.
  std::vector<std::string> ids(bool lately = false) const;
  /// Returns the names of the files of LoRAs.
  std::vector<std::string> loras() const;

  /// Returns the id that a request means: itself, or the one model if it names none. Throws HttpError 404 or 400.
  std::string id_of(const std::string& asked) const;
  /// What the prompt of a request is for a model.
  enum class Prompt { text, class_name, nothing };
  Prompt prompt_of(const std::string& id) const;
  /// Returns FILE:STRENGTH with the file's path. Throws HttpError 400 if the folder of LoRAs has no such file.
  std::string lora_path(const std::string& asked) const;

  /// Opens a model, or takes it from the shelf. Of a model, the two sets of LoRAs that were used last stay open. Throws HttpError: 503 if
  /// the memory does not suffice, 400 if a file cannot be read.
  std::shared_ptr<const OpenModel> open(const std::string& id, const std::vector<std::string>& loras);

  /// Receives warnings of models on this thread while it lives.
  class Warnings {
   public:
    explicit Warnings(std::vector<std::string>& to);
    ~Warnings();
    Warnings(const Warnings&) = delete;
    Warnings& operator=(const Warnings&) = delete;
  };

 private:
  struct Found {
    std::string id, path;
  };
  struct Facts {
    std::string stamp;
    nlohmann::ordered_json json;
    uint64_t bytes = 0;
  };
  std::vector<Found> found(bool lately = true) const;
  std::vector<Found> searched() const;
  Facts facts(const Found& model) const;
  std::shared_ptr<const OpenModel> taken(const std::string& key);
  std::shared_ptr<const Autoencoder> preview_of(const Model& model) const;
  void make_room(const std::string& id, const std::string& path, const std::string& stamp, uint64_t bytes);

  const Registry& registry_;
  const ShelfOptions options_;
  mutable std::mutex lock_;                     ///< of what follows; a model is opened without it, so that lists are answered meanwhile
  mutable std::recursive_mutex opening_;        ///< of what opens files
  mutable std::map<std::string, Facts> facts_;  ///< by path
  mutable std::vector<Found> found_;
  mutable std::chrono::steady_clock::time_point found_at_{};
  std::list<std::pair<std::string, std::shared_ptr<const OpenModel>>> open_;  ///< by id and LoRAs, the latest used first
};

}  // namespace brume::tools
