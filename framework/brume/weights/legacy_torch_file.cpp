#include "brume/weights/legacy_torch_file.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <c10/core/Storage.h>
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "brume/config/counted.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/weights/mapped_tensors.h"
#include "brume/weights/pickle.h"
#include "brume/weights/torch_file.h"
#include "brume/weights/torch_vocabulary.h"

namespace brume {
namespace {

constexpr int64_t readable_protocol = 1001;

/// Storages that the pickle speaks of before the file gives their places: tensors are made on storages without memory, which is given
/// to them afterwards.
class LegacyStorages final : public TorchStorages {
 public:
  explicit LegacyStorages(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}

  at::Tensor load(const std::string& key, at::ScalarType type, int64_t count) override {
    if (const auto known = storages_.find(key); known != storages_.end()) {
      const at::Tensor& storage = known->second;
      if (storage.scalar_type() == type && storage.numel() == count) return storage;
      invalid(fmt::format("storage '{}' has {} of {} and {} of {}", shortened(key), counted(storage.numel(), "element"),
                          c10::toString(storage.scalar_type()), count, c10::toString(type)));
    }
    const auto size = static_cast<int64_t>(c10::elementSize(type));
    if (count < 0 || count > static_cast<int64_t>(file_->size()) / size) {
      invalid(fmt::format("storage '{}' should have {} of {}, more than the file can hold", shortened(key), counted(count, "element"),
                          c10::toString(type)));
    }
    const c10::Storage memory(c10::Storage::use_byte_size_t(), static_cast<size_t>(count * size),
                              at::DataPtr(nullptr, at::Device(at::kCPU)), nullptr, false);
    auto storage = at::empty({0}, at::TensorOptions().dtype(type).device(at::kCPU));
    storage.set_(memory, 0, {count}, {1});
    return storages_.emplace(key, storage).first->second;
  }

  /// Gives the storages their memory: `keys` in the order in which it lies from `offset` on.
  void place(const std::vector<std::string>& keys, size_t offset) {
    std::map<std::string, at::Tensor> missing = storages_;
    for (const auto& key : keys) {
      const auto found = missing.find(key);
      if (found == missing.end()) invalid(fmt::format("holds a storage '{}' that its pickle does not speak of", shortened(key)));
      offset = place(key, found->second, offset);
      missing.erase(found);
    }
    if (!missing.empty()) invalid(fmt::format("storage '{}' is missing from the file", shortened(missing.begin()->first)));
  }

 private:
  [[noreturn]] void invalid(const std::string& reason) const { refuse(file_->path(), reason); }

  size_t place(const std::string& key, const at::Tensor& storage, size_t offset) const {
    const size_t there = file_->size() - offset;
    const auto bytes = storage.storage().nbytes();
    int64_t count = 0;
    if (there < sizeof(count) || there - sizeof(count) < bytes) {
      invalid(fmt::format("is truncated: storage '{}' has {} bytes, {} are there", shortened(key), bytes,
                          there < sizeof(count) ? 0 : there - sizeof(count)));
    }
    std::memcpy(&count, file_->data() + offset, sizeof(count));
    if (count != storage.numel()) {
      invalid(fmt::format("storage '{}' should have {} of {}, but has {}", shortened(key), counted(storage.numel(), "element"),
                          c10::toString(storage.scalar_type()), count));
    }
    offset += sizeof(count);
    auto* owner = new at::Tensor(view_file(file_, offset, {count}, storage.scalar_type(), key));
    storage.storage().set_data_ptr_noswap(
        {owner->data_ptr(), owner, [](void* tensor) { delete static_cast<at::Tensor*>(tensor); }, at::Device(at::kCPU)});
    return offset + bytes;
  }

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, at::Tensor> storages_;
};

/// Throws ConfigError if the numbers are not little-endian, as the third pickle says.
void check_system(const PickleValue& system, const std::string& file) {
  const auto* dict = system.as_dict();
  const auto* little = dict == nullptr ? nullptr : dict->find("little_endian");
  if (little == nullptr || little->as_bool() == nullptr) refuse(file, "does not say in which order the bytes of its numbers are");
  if (!*little->as_bool()) refuse(file, "its numbers are big-endian (readable: little)");
}

std::vector<std::string> keys_in(const PickleValue& value, const std::string& file) {
  std::vector<std::string> keys;
  if (value.as_list() == nullptr) refuse(file, fmt::format("holds {} instead of a list of its storages", value.summary()));
  for (const auto& key : *value.as_list()) {
    if (key.as_text() == nullptr) refuse(file, fmt::format("one of its storages is called {}, which is no text", key.summary()));
    keys.push_back(*key.as_text());
  }
  return keys;
}

}  // namespace

bool is_legacy_torch_file(std::string_view bytes) {
  constexpr std::string_view magic{"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 12};
  constexpr size_t protocol_and_frame = 2 + 9;  // before it, as the protocol of the pickle has it
  const auto at = bytes.substr(0, protocol_and_frame + magic.size()).find(magic);
  return bytes.starts_with('\x80') && at != std::string_view::npos;
}

PickleValue load_legacy_torch_file(const std::shared_ptr<const MappedFile>& file) {
  const auto& path = file->path();
  LegacyStorages storages(file);
  TorchVocabulary vocabulary(storages, path);
  auto bytes = file->bytes();
  take_pickle(bytes, vocabulary, path);  // the magic number
  const PickleValue protocol = take_pickle(bytes, vocabulary, path);
  if (protocol.as_int() == nullptr || *protocol.as_int() != readable_protocol) {
    refuse(path, fmt::format("is of the legacy protocol {} (readable: {})", protocol.summary(), readable_protocol));
  }
  check_system(take_pickle(bytes, vocabulary, path), path);
  PickleValue saved = take_pickle(bytes, vocabulary, path);
  const auto keys = keys_in(take_pickle(bytes, vocabulary, path), path);
  storages.place(keys, file->size() - bytes.size());
  return saved;
}

}  // namespace brume
