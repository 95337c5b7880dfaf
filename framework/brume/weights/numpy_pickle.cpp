#include "brume/weights/numpy_pickle.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "brume/config/counted.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/weights/pickle.h"

namespace brume {
namespace {

constexpr std::string_view callee_key = "__callee__", arguments_key = "__arguments__", state_key = "__state__";

/// NumPy 2 renamed its package numpy.core as numpy._core.
// clang-format off
constexpr std::array<std::string_view, 8> names{
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer", "numpy.ndarray", "numpy.dtype", "collections.OrderedDict", "dnnlib.util.EasyDict"};
// clang-format on

/// Reads what an array is rebuilt from as a dict of the callee, its arguments and its state.
class NumpyVocabulary final : public PickleVocabulary {
 public:
  explicit NumpyVocabulary(const std::string& file) : file_(file) {}
  bool keeps_attributes() const override { return true; }
  PickleValue global(const std::string& name) override {
    if (std::find(names.begin(), names.end(), name) == names.end())
      refuse(file_, fmt::format("refuses to load '{}': only arrays of numpy and plain data are read from a pickle, and nothing in it is "
                                "executed",
                                shortened(name, 100)));
    return PickleValue(PickleName(name));
  }
  PickleValue call(const std::string& name, const Sequence& arguments) override {
    const auto dict = std::make_shared<PickleDict>();
    if (name.ends_with("Dict")) return PickleValue(dict);
    dict->set(PickleValue::text(callee_key), PickleValue::text(name));
    dict->set(PickleValue::text(arguments_key), PickleValue::tuple(arguments));
    return PickleValue(dict);
  }
  PickleValue persistent(const PickleValue&) override { refuse(file_, "its pickle refers to an object outside of it"); }

 private:
  const std::string& file_;
};

/// Returns the tuple under a key of an object; nullptr if there is no such tuple.
const Sequence* tuple_of(const PickleValue& object, std::string_view key) {
  const PickleDict* dict = object.as_dict();
  const PickleValue* value = dict ? dict->find(key) : nullptr;
  return value ? value->as_tuple() : nullptr;
}

const std::string& text_at(const Sequence* values, size_t i) {
  static const std::string none;
  return values && values->size() > i && (*values)[i].as_text() ? *(*values)[i].as_text() : none;
}

/// Returns the type: float32 or float64, little-endian.
at::ScalarType type_of(const PickleValue& dtype, const std::string& where) {
  const std::string &type = text_at(tuple_of(dtype, arguments_key), 0), &order = text_at(tuple_of(dtype, state_key), 1);
  if (order == "<" && type == "f8") return at::kDouble;
  if (order == "<" && type == "f4") return at::kFloat;
  refuse(where, fmt::format("is an array of type '{}{}', and float32 and float64 (little-endian) are read", shortened(order, 4),
                            shortened(type, 20)));
}

}  // namespace

PickleValue load_numpy_pickle(const std::string& path) {
  const auto file = MappedFile::open(path);
  const std::string_view bytes = file->bytes();
  if (bytes.size() < 2 || bytes[0] != '\x80' || bytes[1] < 2 || bytes[1] > 5) refuse(path, "is no pickle of the protocols 2 to 5");
  NumpyVocabulary vocabulary(path);
  return read_pickle(bytes, vocabulary, path);
}

at::Tensor as_array(const PickleValue& value, const std::string& where) {
  const PickleValue* callee = value.as_dict() ? value.as_dict()->find(callee_key) : nullptr;
  const Sequence *arguments = tuple_of(value, arguments_key), *state = tuple_of(value, state_key);
  const bool built = callee && callee->as_text()->ends_with("_reconstruct") && state && state->size() == 5;  // version, shape, …
  const bool buffer = callee && callee->as_text()->ends_with("_frombuffer") && arguments && arguments->size() == 4;
  if (!built && !buffer) refuse(where, fmt::format("is {} instead of an array of numpy", value.as_dict() ? "a dict" : value.summary()));
  const PickleValue &shape = built ? (*state)[1] : (*arguments)[2], &dtype = built ? (*state)[2] : (*arguments)[1],
                    &content = built ? (*state)[4] : (*arguments)[0];
  const bool *fortran = built ? (*state)[3].as_bool() : nullptr, in_columns = built ? fortran && *fortran : text_at(arguments, 3) == "F";
  const std::string* bytes = content.as_bytes();
  if (!bytes || !shape.as_tuple()) refuse(where, "is a damaged array of numpy");
  std::vector<int64_t> sizes;
  const at::ScalarType type = type_of(dtype, where);
  int64_t count = 1;
  for (const PickleValue& n : *shape.as_tuple()) {
    if (!n.as_int() || *n.as_int() < 0 || __builtin_mul_overflow(count, std::max<int64_t>(*n.as_int(), 1), &count))
      refuse(where, "is an array with a damaged shape");
    sizes.push_back(*n.as_int());
  }
  if (in_columns) std::reverse(sizes.begin(), sizes.end());
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) count = 0;
  const size_t each = c10::elementSize(type);
  if (bytes->size() % each != 0 || bytes->size() / each != size_t(count))
    refuse(where, fmt::format("has {} bytes, and its shape makes {} of {} bytes", bytes->size(), counted(count, "value"), each));
  const at::Tensor t = at::empty(sizes, type);
  if (count > 0) std::memcpy(t.data_ptr(), bytes->data(), bytes->size());
  if (!in_columns) return t;
  std::vector<int64_t> order;
  for (size_t i = sizes.size(); i-- > 0;) order.push_back(int64_t(i));
  return t.permute(order).contiguous();
}

namespace {

/// Opcodes of pickletools.py with their arguments.
class PickleWriter {
 public:
  explicit PickleWriter(AtomicFile& file) : file_(file) { file_.write(std::string_view("\x80\x04", 2)); }
  void op(std::string_view opcodes) { file_.write(opcodes); }
  void text(const std::string& value) { sized<uint32_t>('X', value); }
  void integer(int64_t value) {
    file_.write(std::string_view("\x8a\x08", 2));  // LONG1 of 8 bytes
    file_.write(std::string_view(reinterpret_cast<const char*>(&value), sizeof(value)));
  }
  void bytes(std::string_view value) { sized<uint64_t>('\x8e', value); }
  void name(const std::string& module, const std::string& word) { file_.write("c" + module + "\n" + word + "\n"); }
  /// Writes an array as numpy.ndarray.__reduce__ has it: _reconstruct(ndarray, (0,), b"b"), with the state (1, shape, dtype, False, bytes).
  void array(const at::Tensor& t) {
    const at::Tensor dense = t.cpu().to(at::kDouble).contiguous();
    name("numpy.core.multiarray", "_reconstruct");
    name("numpy", "ndarray");
    integer(0), op("\x85");
    op(
        std::string_view("C\x01"
                         "b\x87R(",
                         6));
    integer(1), op("(");
    for (const int64_t n : dense.sizes()) integer(n);
    op("t");
    name("numpy", "dtype");
    text("f8"), op("\x89\x88\x87R("), integer(3), text("<"), op("NNN"), integer(-1), integer(-1), integer(0), op("tb\x89");
    bytes({static_cast<const char*>(dense.data_ptr()), dense.nbytes()});
    op("tb");
  }

 private:
  template <class Size>
  void sized(char opcode, std::string_view value) {
    const Size size = static_cast<Size>(value.size());
    file_.write(std::string(1, opcode) + std::string(reinterpret_cast<const char*>(&size), sizeof(size)));
    file_.write(value);
  }
  AtomicFile& file_;
};

}  // namespace

void write_numpy_pickle(const std::string& path, int64_t count, const std::vector<ArrayDict>& dicts,
                        const std::vector<std::pair<std::string, std::string>>& texts) {
  AtomicFile file(path);
  PickleWriter out(file);
  out.op("}(");
  out.text("num_images"), out.integer(count);
  for (const ArrayDict& dict : dicts) {
    out.text(dict.name), out.op("}(");
    for (const NamedTensor& a : dict.arrays) out.text(a.name), out.array(a.tensor);
    out.op("u");
  }
  for (const auto& [key, value] : texts) out.text(key), out.text(value);
  out.op("u.");
  file.commit();
}

}  // namespace brume
