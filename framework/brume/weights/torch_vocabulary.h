#pragma once
// What the pickle of a state dict may refer to: tensors, their storages, OrderedDict and a few words of torch. What training programs
// store with a state dict (the names of callbacks, hyper-parameters) is read as objects of which nothing is kept but that they are there.
#include <ATen/core/Tensor.h>

#include <string>

#include "brume/weights/pickle.h"

namespace brume {

/// The places of the storages of a file, while its pickle is read.
class TorchStorages {
 public:
  virtual ~TorchStorages() = default;
  /// Returns a flat tensor over the storage `key`, the same each time; throws ConfigError if it is missing, of another type, or holds
  /// fewer than `count` elements.
  virtual at::Tensor load(const std::string& key, at::ScalarType type, int64_t count) = 0;
};

class TorchVocabulary final : public PickleVocabulary {
 public:
  /// Makes the vocabulary of a file. `file` names the source in errors; both outlive this object. `script`: the pickle is one of
  /// TorchScript (torch.jit.save), whose modules are read as dicts of their attributes.
  TorchVocabulary(TorchStorages& storages, const std::string& file, bool script = false)
      : storages_(storages), file_(file), script_(script) {}

  PickleValue global(const std::string& name) override;
  PickleValue call(const std::string& name, const Sequence& arguments) override;
  PickleValue persistent(const PickleValue& id) override;
  bool keeps_attributes() const override { return script_; }

 private:
  PickleValue rebuild_tensor(const Sequence& arguments) const;
  at::Tensor part_of(const at::Tensor& storage, const Sequence& view) const;
  [[noreturn]] void invalid(const std::string& reason) const;

  TorchStorages& storages_;
  const std::string& file_;
  bool script_;
};

}  // namespace brume
