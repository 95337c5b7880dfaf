#include "brume/weights/torch_file.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "brume/config/counted.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/files/zip.h"
#include "brume/weights/legacy_torch_file.h"
#include "brume/weights/mapped_tensors.h"
#include "brume/weights/pickle.h"
#include "brume/weights/torch_vocabulary.h"

namespace brume {
namespace {

/// The entries "<prefix>data/<key>" of an archive.
class ZipStorages final : public TorchStorages {
 public:
  ZipStorages(const ZipArchive& archive, std::string prefix) : archive_(archive), prefix_(std::move(prefix)) {}

  at::Tensor load(const std::string& key, at::ScalarType type, int64_t count) override {
    const auto known = storages_.find(key);
    const at::Tensor storage = known != storages_.end() ? known->second : storages_.emplace(key, open(key, type)).first->second;
    if (storage.scalar_type() != type) {
      refuse(path(), fmt::format("storage '{}' is of type {} and of type {}", shortened(key, 40), c10::toString(storage.scalar_type()),
                                 c10::toString(type)));
    }
    if (count > storage.numel()) {
      refuse(path(), fmt::format("storage '{}' should have {} of {}, but has {}", shortened(key, 40), counted(count, "element"),
                                 c10::toString(type), storage.numel()));
    }
    return storage;
  }

 private:
  const std::string& path() const { return archive_.file()->path(); }

  at::Tensor open(const std::string& key, at::ScalarType type) const {
    const auto name = prefix_ + "data/" + key;
    const auto* entry = archive_.find(name);
    if (entry == nullptr) refuse(path(), fmt::format("storage '{}' is missing from the archive", shortened(name, 80)));
    const std::vector<int64_t> shape{static_cast<int64_t>(entry->size / c10::elementSize(type))};
    if (entry->stored()) {
      archive_.check(*entry);
      return view_file(archive_.file(), entry->data, shape, type, name);
    }
    auto content = std::make_shared<std::vector<uint8_t>>(archive_.inflate(*entry));
    return view_buffer(std::move(content), shape, type, path(), name);
  }

  const ZipArchive& archive_;
  std::string prefix_;
  std::unordered_map<std::string, at::Tensor> storages_;  ///< by key: flat tensors over a whole storage
};

/// Returns the folder that all entries of a torch archive lie in, with its slash; it is named after the file when that was saved.
std::string find_prefix(const ZipArchive& archive) {
  for (const auto& entry : archive.entries()) {
    const std::string_view name = entry.name;
    const auto slash = name.find('/');
    if (slash != std::string_view::npos && name.substr(slash + 1) == "data.pkl") return std::string(name.substr(0, slash + 1));
    if (name == "data.pkl") return "";
  }
  const auto holds = archive.entries().empty() ? "nothing" : fmt::format("'{}'", shortened(archive.entries()[0].name, 60));
  refuse(archive.file()->path(), fmt::format("is a zip archive without a data.pkl, so no PyTorch file (it holds {}...)", holds));
}

void check_byte_order(const ZipArchive& archive, const std::string& prefix) {
  const auto& path = archive.file()->path();
  if (const auto* order = archive.find(prefix + "byteorder")) {
    const auto text = order->size < 32 ? archive.read(*order) : "unknown";
    if (text != "little") refuse(path, fmt::format("its numbers are {}-endian (readable: little)", shortened(text, 20)));
  }
}

/// Returns true if the archive is one of torch.jit.save: a program, whose module holds the tensors.
bool is_script(const ZipArchive& archive, const std::string& prefix) {
  return std::any_of(archive.entries().begin(), archive.entries().end(),
                     [&](const ZipEntry& entry) { return entry.name.starts_with(prefix + "code/"); });
}

/// What training programs call the weights they keep among other things, averaged ones first: those are what they sample with.
constexpr std::array<std::string_view, 11> places{"ema",   "model_ema",        "ema_model", "ema_state_dict", "params_ema", "g_ema",
                                                  "model", "model_state_dict", "module",    "params",         "net"};

bool holds_tensors(const PickleDict& dict) {
  return std::any_of(dict.entries().begin(), dict.entries().end(), [](const auto& entry) { return entry.second.as_tensor() != nullptr; });
}

/// Returns the state dict within what was saved; `place` receives its key.
const PickleDict& entries_of(const PickleValue& value, const std::string& file, std::string& place) {
  const auto* dict = value.as_dict();
  if (dict == nullptr) refuse(file, fmt::format("holds {} instead of a state dict", value.summary()));
  const auto dict_at = [dict](std::string_view key) {
    const auto* entry = dict->find(key);
    return entry == nullptr ? nullptr : entry->as_dict();
  };
  place = "state_dict";
  if (const auto* inner = dict_at(place)) return *inner;
  if (!holds_tensors(*dict)) {
    for (const auto key : places) {
      place = key;
      if (const auto* inner = dict_at(key); inner != nullptr && holds_tensors(*inner)) return *inner;
    }
  }
  place.clear();
  return *dict;
}

/// Collects tensors under dotted names.
class Flattening final {
 public:
  explicit Flattening(const std::string& file) : file_(file) {}
  NamedTensors tensors;

  void add(const PickleDict& dict, const std::string& prefix) {
    for (const auto& [key, value] : dict.entries()) {
      const bool is_name = key.as_text() != nullptr || key.as_int() != nullptr;
      if (!is_name || (value.as_tensor() == nullptr && value.as_dict() == nullptr)) continue;
      const auto name = prefix + (key.as_text() != nullptr ? *key.as_text() : key.summary());
      constexpr size_t max_name = 4096;
      if (name.size() > max_name) {
        refuse(file_, fmt::format("the name '{}' has {} bytes (at most {})", shortened(name, 60), name.size(), max_name));
      }
      if (value.as_dict() != nullptr) {
        add(*value.as_dict(), name + ".");
      } else if (names_.insert(name).second) {
        tensors.push_back({name, *value.as_tensor()});
      } else {
        refuse(file_, fmt::format("two tensors are called '{}'", name));
      }
    }
  }

 private:
  const std::string& file_;
  std::unordered_set<std::string> names_;
};

std::string first_keys(const PickleDict& dict) {
  std::string keys;
  constexpr size_t shown = 8;
  for (size_t i = 0; i < std::min(dict.size(), shown); ++i) {
    const auto& [key, value] = dict.entries()[i];
    keys += fmt::format("{}'{}': {}", i == 0 ? "" : ", ", key.summary(40), value.summary(40));
  }
  return keys + (dict.size() > shown ? ", ..." : "");
}

}  // namespace

bool is_torch_file(std::string_view bytes) {
  return bytes.starts_with("PK\x03\x04") || bytes.starts_with("PK\x05\x06") || is_legacy_torch_file(bytes);
}

PickleValue load_torch_file(const std::string& path) { return load_torch_file(MappedFile::open(path)); }

PickleValue load_torch_file(std::shared_ptr<const MappedFile> file) {
  if (is_legacy_torch_file(file->bytes())) return load_legacy_torch_file(file);
  const ZipArchive archive(std::move(file));
  const auto prefix = find_prefix(archive);
  check_byte_order(archive, prefix);
  const auto& pickle = *archive.find(prefix + "data.pkl");
  if (pickle.size > max_pickle_bytes) {
    refuse(archive.file()->path(), fmt::format("its pickle has {} bytes (at most {})", pickle.size, max_pickle_bytes));
  }
  ZipStorages storages(archive, prefix);
  TorchVocabulary vocabulary(storages, archive.file()->path(), is_script(archive, prefix));
  return read_pickle(archive.read(pickle), vocabulary, archive.file()->path());
}

NamedTensors state_dict(const PickleValue& value, const std::string& file, std::string* place) {
  std::string found;
  const auto& entries = entries_of(value, file, found);
  if (place != nullptr) *place = found;
  Flattening flattening(file);
  flattening.add(entries, "");
  if (flattening.tensors.empty()) refuse(file, fmt::format("holds no tensors, but {{{}}}", first_keys(entries)));
  return std::move(flattening.tensors);
}

}  // namespace brume
