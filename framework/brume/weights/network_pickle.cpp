#include "brume/weights/network_pickle.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "brume/config/counted.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/weights/pickle.h"
#include "brume/weights/torch_vocabulary.h"

namespace brume {
namespace {

constexpr std::string_view reconstruct = "torch_utils.persistence._reconstruct_persistent_obj";
constexpr std::string_view load_bytes = "torch.storage._load_from_bytes";

/// The one storage of what torch.save wrote for a storage alone; its numbers follow the pickles.
class OneStorage final : public TorchStorages {
 public:
  OneStorage(const std::string& file, size_t bytes) : file_(file), bytes_(bytes) {}
  at::Tensor load(const std::string& key, at::ScalarType type, int64_t count) override {
    const auto size = int64_t(c10::elementSize(type));
    if (count < 0 || count > int64_t(bytes_) / size)
      refuse(file_,
             fmt::format("a storage should have {} of {}, more than there are bytes", counted(count, "element"), c10::toString(type)));
    if (tensor.defined()) refuse(file_, "a storage is made of two");
    name = key;
    return tensor = at::empty({count}, at::TensorOptions().dtype(type));
  }
  at::Tensor tensor;
  std::string name;

 private:
  const std::string& file_;
  size_t bytes_;
};

/// Reads a storage as torch.save wrote it before PyTorch 1.6 (weights/legacy_torch_file.h).
at::Tensor storage_of(std::string_view bytes, const std::string& file) {
  OneStorage storages(file, bytes.size());
  TorchVocabulary vocabulary(storages, file);
  const auto damaged = [&] { refuse(file, "a storage within its pickle is damaged"); };
  take_pickle(bytes, vocabulary, file);  // the magic number
  const PickleValue protocol = take_pickle(bytes, vocabulary, file);
  if (!protocol.as_int() || *protocol.as_int() != 1001) damaged();
  const PickleValue system = take_pickle(bytes, vocabulary, file);
  const PickleValue* little = system.as_dict() ? system.as_dict()->find("little_endian") : nullptr;
  if (little && little->as_bool() && !*little->as_bool()) refuse(file, "its numbers are big-endian (readable: little)");
  const PickleValue saved = take_pickle(bytes, vocabulary, file), keys = take_pickle(bytes, vocabulary, file);
  if (!storages.tensor.defined() || !saved.as_tensor() || !keys.as_list() || keys.as_list()->size() != 1) damaged();
  int64_t count = 0;
  if (bytes.size() < sizeof(count)) damaged();
  std::memcpy(&count, bytes.data(), sizeof(count));
  bytes.remove_prefix(sizeof(count));
  if (count != storages.tensor.numel() || bytes.size() < storages.tensor.nbytes()) damaged();
  if (count > 0) std::memcpy(storages.tensor.data_ptr(), bytes.data(), storages.tensor.nbytes());
  return *saved.as_tensor();
}

/// There is no storage outside such a pickle.
class NoStorages final : public TorchStorages {
 public:
  explicit NoStorages(const std::string& file) : file_(file) {}
  at::Tensor load(const std::string&, at::ScalarType, int64_t) override { refuse(file_, "its pickle refers to an object outside of it"); }

 private:
  const std::string& file_;
};

class NetworkVocabulary final : public PickleVocabulary {
 public:
  explicit NetworkVocabulary(const std::string& file) : file_(file), storages_(file), torch_(storages_, file) {}
  bool keeps_attributes() const override { return true; }

  PickleValue global(const std::string& name) override {
    const bool own = name == reconstruct || name == load_bytes || is_container(name) || name == "dnnlib.util.EasyDict" ||
                     name == "torch.nn.functional.silu" || name == "torch._C._nn.silu";
    return own ? PickleValue(PickleName(name)) : torch_.global(name);
  }

  PickleValue call(const std::string& name, const Sequence& arguments) override {
    if (name == reconstruct) {
      const PickleDict* meta = arguments.size() == 1 ? arguments[0].as_dict() : nullptr;
      if (!meta) refuse(file_, "a network of its pickle is described by something other than a dict");
      return arguments[0];
    }
    if (name == load_bytes) {
      const std::string* bytes = arguments.size() == 1 ? arguments[0].as_bytes() : nullptr;
      if (!bytes) refuse(file_, "a storage of its pickle is something other than bytes");
      return PickleValue(storage_of(*bytes, file_));
    }
    if (is_container(name) || name == "dnnlib.util.EasyDict") return PickleValue::dict();
    return torch_.call(name, arguments);
  }

  PickleValue persistent(const PickleValue& id) override { return torch_.persistent(id); }

 private:
  static bool is_container(const std::string& name) {
    constexpr std::array<std::string_view, 3> kinds{"ModuleDict", "ModuleList", "Sequential"};
    return std::any_of(kinds.begin(), kinds.end(),
                       [&](std::string_view kind) { return name == fmt::format("torch.nn.modules.container.{}", kind); });
  }

  const std::string& file_;
  NoStorages storages_;
  TorchVocabulary torch_;
};

/// Returns the attributes of a module: those of a network, or of a container.
const PickleDict* attributes_of(const PickleValue& module) {
  const PickleDict* dict = module.as_dict();
  if (!dict) return nullptr;
  const PickleValue* state = dict->find("state");
  return state && state->as_dict() ? state->as_dict() : dict;
}

const PickleDict* dict_at(const PickleDict& dict, std::string_view key) {
  const PickleValue* value = dict.find(key);
  return value ? value->as_dict() : nullptr;
}

std::optional<int64_t> integer_at(const PickleDict& dict, std::string_view key) {
  const PickleValue* value = dict.find(key);
  return value && value->as_int() ? std::optional<int64_t>(*value->as_int()) : std::nullopt;
}

/// Returns the text of a number, of a list of numbers, or of None; nothing for other values.
std::optional<std::string> number_text(const PickleValue& value) {
  if (value.is_none()) return "none";
  if (value.as_int()) return fmt::format("{}", *value.as_int());
  if (value.as_double()) return fmt::format("{}", *value.as_double());
  const Sequence* items = value.as_list() ? value.as_list() : value.as_tuple();
  constexpr size_t most = 64;
  if (!items || items->empty() || items->size() > most) return {};
  std::string text;
  for (const PickleValue& item : *items) {
    if (!item.as_int() && !item.as_double()) return {};
    text += (text.empty() ? "" : ", ") + *number_text(item);
  }
  return text;
}

/// Collects the tensors of modules, and the numbers that they keep.
class Walk {
 public:
  Walk(NamedTensors& tensors, std::map<std::string, std::string>& metadata) : tensors_(tensors), metadata_(metadata) {}

  void module(const PickleDict& attributes, const std::string& prefix) {
    for (const char* kind : {"_parameters", "_buffers"})
      if (const PickleDict* some = dict_at(attributes, kind))
        for (const auto& [key, value] : some->entries())
          if (key.as_text() && value.as_tensor()) tensors_.push_back({prefix + *key.as_text(), *value.as_tensor()});
    numbers(attributes);
    const PickleDict* modules = dict_at(attributes, "_modules");
    if (!modules) return;
    for (const auto& [key, value] : modules->entries())
      if (const PickleDict* inner = key.as_text() ? attributes_of(value) : nullptr) module(*inner, prefix + *key.as_text() + ".");
  }

 private:
  void numbers(const PickleDict& attributes) {
    for (const auto& [key, value] : attributes.entries())
      if (const std::optional<std::string> text = number_text(value); text && key.as_text() && !key.as_text()->starts_with("_"))
        metadata_.try_emplace(*key.as_text(), *text);
    const auto heads = integer_at(attributes, "num_heads"), channels = integer_at(attributes, "out_channels");
    if (heads && channels && *heads > 0) metadata_.try_emplace("channels_per_head", fmt::format("{}", *channels / *heads));
  }

  NamedTensors& tensors_;
  std::map<std::string, std::string>& metadata_;
};

}  // namespace

bool is_pickle(std::string_view bytes) { return bytes.size() >= 2 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5; }

NamedTensors load_network_pickle(const std::shared_ptr<const MappedFile>& file, std::map<std::string, std::string>& metadata) {
  const std::string& path = file->path();
  NetworkVocabulary vocabulary(path);
  const PickleValue root = read_pickle(file->bytes(), vocabulary, path, file->size());
  const PickleDict* dict = root.as_dict();
  if (!dict) refuse(path, fmt::format("holds {} instead of a network", root.summary()));
  const PickleValue* network = nullptr;
  for (const char* key : {"ema", "net"})
    if (!network) network = dict->find(key);
  const PickleDict* attributes = attributes_of(network ? *network : root);
  NamedTensors tensors;
  if (attributes) Walk(tensors, metadata).module(*attributes, "");
  if (tensors.empty()) refuse(path, "is a pickle without a network: no 'ema' with parameters is in it");
  const PickleDict* meta = network ? network->as_dict() : dict;
  if (const PickleValue* name = meta->find("class_name"); name && name->as_text()) metadata[pickled_class] = *name->as_text();
  return tensors;
}

}  // namespace brume
