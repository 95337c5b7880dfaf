#include "io/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "io/mapped_file.h"
#include "io/pickle.h"
#include "io/refuse.h"
#include "io/torch_vocabulary.h"
#include "io/zip.h"

namespace brume::io {
namespace {

// torch.save without a zip archive begins with the pickled integer 0x1950a86a20f9469cfc6c (torch/serialization.py).
constexpr std::string_view legacy_magic{"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14};

/// All entries of a torch archive lie in one folder, named after the file when it was saved. Returns it with its slash.
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

void check_archive(const ZipArchive& archive, const std::string& prefix) {
  const auto& path = archive.file()->path();
  if (const auto* order = archive.find(prefix + "byteorder")) {
    const auto text = order->size < 32 ? archive.read(*order) : "unknown";
    if (text != "little") refuse(path, fmt::format("its numbers are {}-endian (readable: little)", shortened(text, 20)));
  }
  for (const auto& entry : archive.entries()) {
    if (entry.name.starts_with(prefix + "code/")) {
      refuse(path, "is a TorchScript program (torch.jit.save), not weights: save its state_dict() with torch.save instead");
    }
  }
}

const Dict& entries_of(const Value& value, const std::string& file) {
  if (const auto* dict = value.as_dict()) {
    const auto* inner = dict->find("state_dict");
    return inner != nullptr && inner->as_dict() != nullptr ? *inner->as_dict() : *dict;
  }
  refuse(file, fmt::format("holds {} instead of a state dict", value.summary()));
}

/// Collects tensors under dotted names.
class Flattening final {
 public:
  explicit Flattening(const std::string& file) : file_(file) {}
  NamedTensors tensors;

  void add(const Dict& dict, const std::string& prefix) {
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

std::string first_keys(const Dict& dict) {
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
  return bytes.starts_with("PK\x03\x04") || bytes.starts_with("PK\x05\x06") || bytes.starts_with(legacy_magic);
}

Value load_torch_file(const std::string& path) { return load_torch_file(MappedFile::open(path)); }

Value load_torch_file(std::shared_ptr<const MappedFile> file) {
  if (file->bytes().starts_with(legacy_magic)) {
    refuse(file->path(),
           "is a legacy PyTorch file (torch.save before 1.6, or with _use_new_zipfile_serialization=False), which brume "
           "does not read yet: load it in Python and torch.save it again");
  }
  const ZipArchive archive(std::move(file));
  const auto prefix = find_prefix(archive);
  check_archive(archive, prefix);
  const auto& pickle = *archive.find(prefix + "data.pkl");
  if (pickle.size > max_pickle_bytes) {
    refuse(archive.file()->path(), fmt::format("its pickle has {} bytes (at most {})", pickle.size, max_pickle_bytes));
  }
  TorchVocabulary vocabulary(archive, prefix);
  return read_pickle(archive.read(pickle), vocabulary, archive.file()->path());
}

NamedTensors state_dict(const Value& value, const std::string& file) {
  const auto& entries = entries_of(value, file);
  Flattening flattening(file);
  flattening.add(entries, "");
  if (flattening.tensors.empty()) refuse(file, fmt::format("holds no tensors, but {{{}}}", first_keys(entries)));
  return std::move(flattening.tensors);
}

}  // namespace brume::io
