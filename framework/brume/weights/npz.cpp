#include "brume/weights/npz.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "brume/config/errors.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/files/zip.h"

namespace brume {
namespace {

constexpr std::string_view magic = "\x93NUMPY";

struct Type {
  std::string_view descr;
  at::ScalarType dtype;
};
constexpr Type types[] = {{"|b1", at::kBool}, {"|u1", at::kByte}, {"|i1", at::kChar},  {"<i2", at::kShort}, {"<i4", at::kInt},
                          {"<i8", at::kLong}, {"<f2", at::kHalf}, {"<f4", at::kFloat}, {"<f8", at::kDouble}};

/// The header of an .npy member: a Python dict with three keys.
struct Header {
  at::ScalarType dtype = at::kFloat;
  bool fortran = false;
  std::vector<int64_t> shape;
  size_t begin = 0;  ///< of the values
};

/// Reads the literal dict of a header; what is not as numpy writes it is refused.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}
  Header read() const {
    Header h;
    const std::string_view descr = value("descr");
    if (!descr.starts_with('\'')) refuse(where_, "has a type that is no number: " + shortened(descr));
    const std::string_view name = descr.substr(1, descr.find('\'', 1) - 1);
    const auto* found = std::find_if(std::begin(types), std::end(types), [&](const Type& t) { return t.descr == name; });
    if (found == std::end(types)) refuse(where_, fmt::format("has values of type '{}', which is not read", shortened(name)));
    h.dtype = found->dtype;
    h.fortran = value("fortran_order").starts_with("True");
    h.shape = sizes(value("shape"));
    return h;
  }

 private:
  std::string_view value(std::string_view key) const {
    const std::string quoted = fmt::format("'{}':", key);
    const size_t at = text_.find(quoted);
    if (at == std::string_view::npos) refuse(where_, fmt::format("has a damaged header: '{}' is missing", key));
    std::string_view rest = text_.substr(at + quoted.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    return rest;
  }
  std::vector<int64_t> sizes(std::string_view tuple) const {
    const size_t end = tuple.find(')');
    if (!tuple.starts_with('(') || end == std::string_view::npos) refuse(where_, "has a damaged header: 'shape' is no tuple");
    std::vector<int64_t> all;
    int64_t elements = 1;
    for (size_t i = 1; i < end;) {
      if (tuple[i] == ' ' || tuple[i] == ',' || tuple[i] == 'L') {
        ++i;
        continue;
      }
      int64_t n = 0;
      const size_t first = i;
      for (; i < end && tuple[i] >= '0' && tuple[i] <= '9' && i - first < 18; ++i) n = n * 10 + (tuple[i] - '0');
      if (i == first) refuse(where_, "has a damaged header: 'shape' is " + shortened(tuple.substr(0, end + 1)));
      if (n > 0 && elements > (int64_t{1} << 58) / n) refuse(where_, "has a shape that no file can hold");
      elements *= std::max<int64_t>(n, 1);
      all.push_back(n);
    }
    return all;
  }
  std::string_view text_;
  std::string where_;
};

Header read_header(std::string_view bytes, const std::string& where) {
  if (bytes.size() < 12 || !bytes.starts_with(magic)) refuse(where, "is no array of numpy");
  const auto byte = [&](size_t i) { return size_t{static_cast<unsigned char>(bytes[i])}; };
  const bool wide = byte(6) >= 2;
  const size_t start = wide ? 12 : 10, length = byte(8) | byte(9) << 8 | (wide ? byte(10) << 16 | byte(11) << 24 : 0);
  if (length > bytes.size() - start) refuse(where, "is truncated");
  Header h = HeaderReader(bytes.substr(start, length), where).read();
  h.begin = start + length;
  size_t wanted = c10::elementSize(h.dtype);
  for (const int64_t n : h.shape) wanted *= size_t(n);
  if (wanted != bytes.size() - h.begin)
    refuse(where, fmt::format("holds {} bytes, and its shape [{}] needs {}", bytes.size() - h.begin, fmt::join(h.shape, ", "), wanted));
  return h;
}

/// Returns the values of a header as a tensor of its shape; a copy unless they are aligned in memory that `owner` keeps.
at::Tensor tensor_of(const Header& h, const void* values, const std::shared_ptr<const MappedFile>& owner) {
  std::vector<int64_t> shape = h.shape;
  if (h.fortran) std::reverse(shape.begin(), shape.end());
  const auto options = at::TensorOptions().dtype(h.dtype);
  at::Tensor t;
  if (owner && reinterpret_cast<uintptr_t>(values) % c10::elementSize(h.dtype) == 0) {
    t = at::from_blob(
        const_cast<void*>(values), shape, [owner](void*) {}, options);
  } else {
    t = at::empty(shape, options);
    if (t.nbytes() > 0) std::memcpy(t.data_ptr(), values, t.nbytes());
  }
  if (!h.fortran) return t;
  std::vector<int64_t> order;
  for (size_t i = shape.size(); i-- > 0;) order.push_back(int64_t(i));
  return t.permute(order).contiguous();
}

std::string npy_of(const at::Tensor& t) {
  const auto* type = std::find_if(std::begin(types), std::end(types), [&](const Type& k) { return k.dtype == t.scalar_type(); });
  if (type == std::end(types)) throw std::logic_error("an array of this type is not written to an .npz file");
  std::string dict = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", type->descr, fmt::join(t.sizes(), ", "),
                                 t.dim() == 1 ? "," : "");
  dict.append((64 - (10 + dict.size() + 1) % 64) % 64, ' ') += '\n';
  std::string bytes(magic);
  bytes += {'\x01', '\x00', static_cast<char>(dict.size() & 0xff), static_cast<char>(dict.size() >> 8)};
  bytes += dict;
  const at::Tensor dense = t.cpu().contiguous();
  return bytes.append(static_cast<const char*>(dense.data_ptr()), dense.nbytes());
}

/// Writes a zip archive of stored members.
class ZipWriter {
 public:
  explicit ZipWriter(AtomicFile& file) : file_(file) {}
  void add(const std::string& name, const std::string& content) {
    if (content.size() >= UINT32_MAX || file_.written() >= UINT32_MAX - content.size() - 1000)
      throw ConfigError(fmt::format("{} is too large for an .npz file: 4 GB is the most", name));
    const auto crc = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size()));
    const auto size = static_cast<uint32_t>(content.size()), offset = static_cast<uint32_t>(file_.written());
    const std::string common = number<uint16_t>(0) + number<uint32_t>(0x00210000) + number(crc) + number(size) + number(size) +
                               number(static_cast<uint16_t>(name.size()));  // stored, on 1 January 1980
    file_.write("PK\x03\x04" + number<uint16_t>(20) + number<uint16_t>(0) + common + number<uint16_t>(0) + name);
    file_.write(content);
    directory_ += "PK\x01\x02" + number<uint16_t>(20) + number<uint16_t>(20) + number<uint16_t>(0) + common + std::string(12, '\0') +
                  number(offset) + name;
    ++count_;
  }
  void finish() {
    const auto start = static_cast<uint32_t>(file_.written());
    file_.write(directory_ + "PK\x05\x06" + std::string(4, '\0') + number(count_) + number(count_) +
                number(static_cast<uint32_t>(directory_.size())) + number(start) + std::string(2, '\0'));
  }

 private:
  template <class T>
  static std::string number(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof(value)};
  }
  AtomicFile& file_;
  std::string directory_;
  uint16_t count_ = 0;
};

}  // namespace

NpzFile::NpzFile(const std::string& path) : path_(path), archive_(std::make_unique<const ZipArchive>(MappedFile::open(path))) {
  if (names().empty()) refuse(path_, "holds no arrays of numpy (NAME.npy)");
}
NpzFile::~NpzFile() = default;

std::vector<std::string> NpzFile::names() const {
  std::vector<std::string> all;
  for (const ZipEntry& e : archive_->entries())
    if (e.name.ends_with(".npy")) all.push_back(e.name.substr(0, e.name.size() - 4));
  return all;
}

bool NpzFile::contains(std::string_view name) const { return archive_->find(std::string(name) + ".npy") != nullptr; }

at::Tensor NpzFile::array(std::string_view name) const {
  const ZipEntry* entry = archive_->find(std::string(name) + ".npy");
  if (!entry) refuse(path_, fmt::format("has no array '{}', only {}", name, fmt::join(names(), ", ")));
  const std::string where = fmt::format("{}: {}", path_, name);
  if (entry->stored()) {
    archive_->check(*entry);
    const std::string_view bytes = archive_->file()->bytes(entry->data, entry->size);
    const Header h = read_header(bytes, where);
    return tensor_of(h, bytes.data() + h.begin, archive_->file());
  }
  const std::vector<uint8_t> bytes = archive_->inflate(*entry);
  const Header h = read_header({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, where);
  return tensor_of(h, bytes.data() + h.begin, nullptr);
}

void write_npz(const std::string& path, const NamedTensors& arrays) {
  AtomicFile file(path);
  ZipWriter zip(file);
  for (const NamedTensor& a : arrays) zip.add(a.name + ".npy", npy_of(a.tensor));
  zip.finish();
  file.commit();
}

}  // namespace brume
