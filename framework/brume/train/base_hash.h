#pragma once
// The model that something is trained on, by the SHA-256 of its file, as the state of a training remembers it.
#include <string>

#include "brume/diffusion/checkpoint.h"

namespace brume {

class BaseHash {
 public:
  /// Hashes the base. `file`: its file; `name`: of what remembers it in a training's state.
  BaseHash(std::string file, std::string name, const StoredModel& base);
  const std::string& text() const { return hash_; }
  /// Returns what is saved and restored.
  Weight state() const { return {name_, resumed_, false}; }
  /// Throws ConfigError if the training was begun on another base; called after the hash was restored. `what`: "the adapters of this
  /// training are".
  void check(const std::string& what) const;

 private:
  std::string file_, name_, hash_;
  Tensor resumed_;  ///< of the base that the training began with
};

}  // namespace brume
