#include "brume/weights/torch_vocabulary.h"

#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "brume/config/counted.h"
#include "brume/files/refuse.h"

namespace brume {
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

/// dtypes, which are globals of their own, what may be called, and the classes of tensors, which are only spoken of.
constexpr std::array<std::string_view, 24> words{
    "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16", "torch.int64", "torch.int32", "torch.int16", "torch.int8",
    "torch.uint8", "torch.bool", "torch.complex64", "torch.complex128", "torch.device", "torch.Size", "collections.OrderedDict",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2", "torch.Tensor", "torch.nn.parameter.Parameter",
    "torch.nn.modules.container.ParameterDict", "torch.nn.modules.container.ParameterList"};

/// What training programs store with their state dicts. An object of these is an empty dict, whose entries, if it is a dict, are
/// read, and whose attributes are not.
constexpr std::array<std::string_view, 25> bystanders{
    "argparse.Namespace", "collections.defaultdict", "collections.Counter", "builtins.set", "__builtin__.set", "builtins.frozenset",
    "__builtin__.frozenset", "builtins.dict", "__builtin__.dict", "builtins.list", "__builtin__.list", "builtins.int", "__builtin__.int",
    "builtins.complex", "__builtin__.complex", "builtins.object", "__builtin__.object", "copyreg._reconstructor",
    "copy_reg._reconstructor", "_codecs.encode", "numpy.dtype", "numpy.ndarray", "pathlib.PosixPath", "pathlib.Path", "typing.Any"};
/// The same of whole packages.
constexpr std::array<std::string_view, 6> bystander_packages{
    "pytorch_lightning.callbacks.", "lightning.pytorch.callbacks.", "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict", "omegaconf."};
/// NumPy 2 renamed its package.
constexpr std::array<std::string_view, 4> numpy_words{"numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct"};
// clang-format on

const StorageName* find_storage(std::string_view name) {
  const auto* found = std::find_if(storage_names.begin(), storage_names.end(), [name](const auto& s) { return s.name == name; });
  return found == storage_names.end() ? nullptr : found;
}

template <class PickleList>
bool among(const PickleList& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

bool is_bystander(std::string_view name) {
  return among(bystanders, name) || among(numpy_words, name) ||
         std::any_of(bystander_packages.begin(), bystander_packages.end(), [name](auto package) { return name.starts_with(package); });
}

/// Returns true for classes of a TorchScript program, and what makes its lists.
bool of_script(std::string_view name) { return name.starts_with("__torch__.") || name.starts_with("torch.jit._pickle."); }

/// Returns a tuple (or torch.Size) of integers.
std::optional<std::vector<int64_t>> integers(const PickleValue& value) {
  if (value.as_tuple() == nullptr) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const auto& item : *value.as_tuple()) {
    if (item.as_int() == nullptr) return std::nullopt;
    numbers.push_back(*item.as_int());
  }
  return numbers;
}

/// Returns the elements a storage must have for a view of it; nullopt if that overflows or makes no sense.
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

PickleValue ordered_dict(const Sequence& arguments) {
  const auto dict = std::make_shared<PickleDict>();
  if (!arguments.empty() && arguments[0].as_list() != nullptr) {  // Python 2 passed the items as a list of pairs
    for (const auto& item : *arguments[0].as_list()) {
      const auto* pair = item.as_list() != nullptr ? item.as_list() : item.as_tuple();
      if (pair != nullptr && pair->size() == 2 && (*pair)[0].as_text() != nullptr) dict->set((*pair)[0], (*pair)[1]);
    }
  }
  return PickleValue(dict);
}

}  // namespace

void TorchVocabulary::invalid(const std::string& reason) const { refuse(file_, reason); }

PickleValue TorchVocabulary::global(const std::string& name) {
  if (script_ && of_script(name)) return PickleValue(PickleName(name));
  if (find_storage(name) != nullptr || among(words, name) || is_bystander(name)) return PickleValue(PickleName(name));
  invalid(
      fmt::format("refuses to load '{}': only tensors and plain data are read from a PyTorch file, and nothing in it is executed; "
                  "save its state_dict() alone, or convert it to safetensors",
                  shortened(name, 100)));
}

PickleValue TorchVocabulary::call(const std::string& name, const Sequence& arguments) {
  const auto is_tensor = [&arguments](size_t i) { return arguments.size() > i && arguments[i].as_tensor() != nullptr; };
  if (name == "collections.OrderedDict") return ordered_dict(arguments);
  if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2") return rebuild_tensor(arguments);
  if ((name == "torch._utils._rebuild_parameter" || name == "torch._utils._rebuild_parameter_with_state") && is_tensor(0)) {
    return arguments[0];
  }
  // (function, class, its arguments, attributes): a tensor with attributes, which are left.
  if (name == "torch._tensor._rebuild_from_type_v2" && arguments.size() == 4 && arguments[0].as_name() != nullptr &&
      arguments[0].as_name()->text().starts_with("torch._utils.") && arguments[2].as_tuple() != nullptr) {
    return call(arguments[0].as_name()->text(), *arguments[2].as_tuple());
  }
  if (name == "torch.Size" && arguments.size() == 1 && integers(arguments[0])) return arguments[0];
  if (name == "torch.device" && !arguments.empty() && arguments[0].as_text() != nullptr) {
    auto device = shortened(*arguments[0].as_text(), 20);
    if (arguments.size() > 1) device += ":" + arguments[1].summary(20);
    return PickleValue(PickleName(device));
  }
  if (script_ && of_script(name)) return PickleValue::dict();
  if (is_bystander(name) || name.starts_with("torch.nn.modules.container.Parameter")) return PickleValue::dict();
  invalid(fmt::format("its pickle calls '{}' with {}, which makes no sense", name, counted(arguments.size(), "argument")));
}

/// Returns a storage of ("storage", storage class, key, device, number of elements), and in legacy files the part of it that is meant.
PickleValue TorchVocabulary::persistent(const PickleValue& id) {
  const auto* parts = id.as_tuple();
  const bool valid = parts != nullptr && parts->size() >= 5 && (*parts)[0].as_text() != nullptr && *(*parts)[0].as_text() == "storage" &&
                     (*parts)[1].as_name() != nullptr && (*parts)[2].as_text() != nullptr && (*parts)[4].as_int() != nullptr;
  if (!valid) invalid("its pickle refers to something other than a storage");
  const auto* storage = find_storage((*parts)[1].as_name()->text());
  if (storage == nullptr) invalid(fmt::format("'{}' is no kind of storage", (*parts)[1].as_name()->text()));
  const auto whole = storages_.load(*(*parts)[2].as_text(), storage->type, *(*parts)[4].as_int());
  return PickleValue(parts->size() > 5 && (*parts)[5].as_tuple() != nullptr ? part_of(whole, *(*parts)[5].as_tuple()) : whole);
}

/// Returns the part of a storage that (key, offset, number of elements) names.
at::Tensor TorchVocabulary::part_of(const at::Tensor& storage, const Sequence& view) const {
  const bool valid = view.size() == 3 && view[1].as_int() != nullptr && view[2].as_int() != nullptr;
  if (!valid) invalid("its pickle refers to a part of a storage without saying which");
  const auto offset = *view[1].as_int(), count = *view[2].as_int();
  if (offset < 0 || count < 0 || offset > storage.numel() || count > storage.numel() - offset) {
    invalid(fmt::format("{} from {} on reach beyond a storage of {}", counted(count, "element"), offset, storage.numel()));
  }
  auto part = at::empty({0}, storage.options());
  part.set_(storage.storage(), offset, {count}, {1});
  return part;
}

/// Returns the tensor of (storage, offset, sizes, strides, requires_grad, hooks): a view of the storage, which other tensors may share.
PickleValue TorchVocabulary::rebuild_tensor(const Sequence& arguments) const {
  const auto* given = arguments.size() < 4 ? nullptr : arguments[0].as_tensor();
  const bool flat = given != nullptr && given->dim() == 1 && given->stride(0) == 1;  // a storage, not a tensor that was rebuilt of one
  if (!flat || arguments[1].as_int() == nullptr) {
    invalid("its pickle rebuilds a tensor from something other than a storage and an offset");
  }
  const at::Tensor& storage = *given;
  const auto offset = *arguments[1].as_int();
  const auto sizes = integers(arguments[2]), strides = integers(arguments[3]);
  if (!sizes || !strides) invalid("its pickle rebuilds a tensor whose sizes or strides are no integers");
  const auto needed = extent(offset, *sizes, *strides);
  const auto there = storage.numel();
  if (!needed || *needed > there) {
    invalid(fmt::format("a tensor of shape [{}], strides [{}] and offset {} reaches beyond its storage of {}", fmt::join(*sizes, ", "),
                        fmt::join(*strides, ", "), offset, counted(there, "element")));
  }
  auto tensor = at::empty({0}, storage.options());  // not a view for autograd: a tensor of its own on shared memory
  tensor.set_(storage.storage(), storage.storage_offset() + offset, *sizes, *strides);
  return PickleValue(tensor);
}

}  // namespace brume
