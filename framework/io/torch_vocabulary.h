#pragma once
// What the pickle of a state dict may refer to: tensors, their storages, OrderedDict and a few words of torch.
#include <ATen/core/Tensor.h>

#include <string>
#include <unordered_map>

#include "io/pickle.h"
#include "io/zip.h"

namespace brume::io {

class TorchVocabulary final : public PickleVocabulary {
 public:
  /// Storages are the entries "<prefix>data/<key>" of `archive`, which outlives this object.
  TorchVocabulary(const ZipArchive& archive, std::string prefix) : archive_(archive), prefix_(std::move(prefix)) {}

  Value global(const std::string& name) override;
  Value call(const std::string& name, const Sequence& arguments) override;
  Value persistent(const Value& id) override;

 private:
  Value rebuild_tensor(const Sequence& arguments) const;
  at::Tensor load_storage(const std::string& key, at::ScalarType type);
  [[noreturn]] void invalid(const std::string& reason) const;

  const ZipArchive& archive_;
  std::string prefix_;
  std::unordered_map<std::string, at::Tensor> storages_;  ///< by key: flat tensors over a whole storage
};

}  // namespace brume::io
