#include "io/torch_vocabulary.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "io/mapped_file.h"
#include "io/refuse.h"
#include "io/tensor_memory.h"

namespace brume::io {
namespace {

struct StorageName {
  std::string_view name;
  at::ScalarType type;
};

// clang-format off
constexpr std::array storage_names{
    StorageName{"torch.DoubleStorage", at::kDouble},     StorageName{"torch.FloatStorage", at::kFloat},
    StorageName{"torch.HalfStorage", at::kHalf},         StorageName{"torch.BFloat16Storage", at::kBFloat16},
    StorageName{"torch.LongStorage", at::kLong},         StorageName{"torch.IntStorage", at::kInt},
    StorageName{"torch.ShortStorage", at::kShort},       StorageName{"torch.CharStorage", at::kChar},
    StorageName{"torch.ByteStorage", at::kByte},         StorageName{"torch.BoolStorage", at::kBool},
    StorageName{"torch.ComplexFloatStorage", at::kComplexFloat},
    StorageName{"torch.ComplexDoubleStorage", at::kComplexDouble},
};

/// dtypes, which are globals of their own, and what may be called.
constexpr std::array<std::string_view, 18> words{
    "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16", "torch.int64", "torch.int32", "torch.int16", "torch.int8",
    "torch.uint8", "torch.bool", "torch.complex64", "torch.complex128", "torch.device", "torch.Size", "collections.OrderedDict",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"};
// clang-format on

const StorageName* find_storage(std::string_view name) {
  const auto* found = std::find_if(storage_names.begin(), storage_names.end(), [name](const auto& s) { return s.name == name; });
  return found == storage_names.end() ? nullptr : found;
}

/// A tuple (or torch.Size) of integers.
std::optional<std::vector<int64_t>> integers(const Value& value) {
  if (value.as_tuple() == nullptr) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const auto& item : *value.as_tuple()) {
    if (item.as_int() == nullptr) return std::nullopt;
    numbers.push_back(*item.as_int());
  }
  return numbers;
}

/// The elements a storage must have for a view of it; nullopt where that overflows or makes no sense.
std::optional<int64_t> extent(int64_t offset, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides) {
  if (offset < 0 || sizes.size() != strides.size()) return std::nullopt;
  int64_t last = offset, count = 1;
  bool empty = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    int64_t span = 0;
    if (sizes[i] < 0 || strides[i] < 0 || __builtin_mul_overflow(count, std::max<int64_t>(sizes[i], 1), &count) ||
        __builtin_mul_overflow(std::max<int64_t>(sizes[i], 1) - 1, strides[i], &span) || __builtin_add_overflow(last, span, &last)) {
      return std::nullopt;
    }
    empty = empty || sizes[i] == 0;
  }
  if (empty) return offset;
  if (last == INT64_MAX) return std::nullopt;
  return last + 1;
}

Value ordered_dict(const Sequence& arguments) {
  const auto dict = std::make_shared<Dict>();
  if (!arguments.empty() && arguments[0].as_list() != nullptr) {  // Python 2 passed the items as a list of pairs
    for (const auto& item : *arguments[0].as_list()) {
      const auto* pair = item.as_list() != nullptr ? item.as_list() : item.as_tuple();
      if (pair != nullptr && pair->size() == 2 && (*pair)[0].as_text() != nullptr) dict->set((*pair)[0], (*pair)[1]);
    }
  }
  return Value(dict);
}

}  // namespace

void TorchVocabulary::invalid(const std::string& reason) const { refuse(archive_.file()->path(), reason); }

Value TorchVocabulary::global(const std::string& name) {
  if (find_storage(name) != nullptr || std::find(words.begin(), words.end(), name) != words.end()) return Value(Word{name});
  invalid(
      fmt::format("refuses to load '{}': only tensors and plain data are read from a PyTorch file, and nothing in it is executed; "
                  "save its state_dict() alone, or convert it to safetensors",
                  shortened(name, 100)));
}

Value TorchVocabulary::call(const std::string& name, const Sequence& arguments) {
  if (name == "collections.OrderedDict") return ordered_dict(arguments);
  if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2") return rebuild_tensor(arguments);
  if (name == "torch._utils._rebuild_parameter" && !arguments.empty() && arguments[0].as_tensor() != nullptr) return arguments[0];
  if (name == "torch.Size" && arguments.size() == 1 && integers(arguments[0])) return arguments[0];
  if (name == "torch.device" && !arguments.empty() && arguments[0].as_text() != nullptr) {
    auto device = shortened(*arguments[0].as_text(), 20);
    if (arguments.size() > 1) device += ":" + arguments[1].summary(20);
    return Value(Word{device});
  }
  invalid(fmt::format("its pickle calls '{}' with {} arguments, which makes no sense", name, arguments.size()));
}

/// ("storage", storage class, key, device, number of elements)
Value TorchVocabulary::persistent(const Value& id) {
  const auto* parts = id.as_tuple();
  const bool valid = parts != nullptr && parts->size() >= 5 && (*parts)[0].as_text() != nullptr && *(*parts)[0].as_text() == "storage" &&
                     (*parts)[1].as_word() != nullptr && (*parts)[2].as_text() != nullptr && (*parts)[4].as_int() != nullptr;
  if (!valid) invalid("its pickle refers to something other than a storage");
  const auto* storage = find_storage((*parts)[1].as_word()->text);
  if (storage == nullptr) invalid(fmt::format("'{}' is no kind of storage", (*parts)[1].as_word()->text));
  const auto& key = *(*parts)[2].as_text();
  const auto tensor = load_storage(key, storage->type);
  if (const auto count = *(*parts)[4].as_int(); count > tensor.numel()) {
    invalid(fmt::format("storage '{}' should have {} elements of {}, but has {}", shortened(key, 40), count, c10::toString(storage->type),
                        tensor.numel()));
  }
  return Value(tensor);
}

at::Tensor TorchVocabulary::load_storage(const std::string& key, at::ScalarType type) {
  if (const auto known = storages_.find(key); known != storages_.end()) {
    if (known->second.scalar_type() == type) return known->second;
    invalid(fmt::format("storage '{}' is of type {} and of type {}", shortened(key, 40), c10::toString(known->second.scalar_type()),
                        c10::toString(type)));
  }
  const auto name = prefix_ + "data/" + key;
  const auto* entry = archive_.find(name);
  if (entry == nullptr) invalid(fmt::format("storage '{}' is missing from the archive", shortened(name, 80)));
  const std::vector<int64_t> shape{static_cast<int64_t>(entry->size / c10::elementSize(type))};
  at::Tensor storage;
  if (entry->stored()) {
    storage = view_file(archive_.file(), entry->data, shape, type, name);
  } else {
    auto content = std::make_shared<std::vector<uint8_t>>(archive_.inflate(*entry));
    storage = view_buffer(std::move(content), shape, type, archive_.file()->path(), name);
  }
  return storages_.emplace(key, storage).first->second;
}

/// (storage, offset, sizes, strides, requires_grad, hooks): a view of the storage, which other tensors may share.
Value TorchVocabulary::rebuild_tensor(const Sequence& arguments) const {
  if (arguments.size() < 4 || arguments[0].as_tensor() == nullptr || arguments[1].as_int() == nullptr) {
    invalid("its pickle rebuilds a tensor from something other than a storage and an offset");
  }
  const auto& storage = *arguments[0].as_tensor();
  const auto offset = *arguments[1].as_int();
  const auto sizes = integers(arguments[2]), strides = integers(arguments[3]);
  if (!sizes || !strides) invalid("its pickle rebuilds a tensor whose sizes or strides are no integers");
  const auto needed = extent(offset, *sizes, *strides);
  const auto there = static_cast<int64_t>(storage.storage().nbytes() / storage.element_size());
  if (!needed || *needed > there) {
    invalid(fmt::format("a tensor of shape [{}], strides [{}] and offset {} reaches beyond its storage of {} elements",
                        fmt::join(*sizes, ", "), fmt::join(*strides, ", "), offset, there));
  }
  auto tensor = at::empty({0}, storage.options());
  tensor.set_(storage.storage(), offset, *sizes, *strides);  // not a view for autograd: a tensor of its own on shared memory
  return Value(tensor);
}

}  // namespace brume::io
