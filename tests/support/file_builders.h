#pragma once
// What the tests of framework/io share: temporary files, the text of errors, references, and files built byte by byte.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/errors.h"

namespace brume::test::files {

/// A folder that goes with its test.
class TemporaryFolder final {
 public:
  TemporaryFolder() {
    auto name = (std::filesystem::temp_directory_path() / "brume_io_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string file(const std::string& name, std::string_view content) const {
    std::ofstream(file(name), std::ios::binary) << content;
    return file(name);
  }
  size_t count() const {
    const std::filesystem::directory_iterator files(path_);
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }

 private:
  std::string path_;
};

/// ulimit -f for as long as it lives.
class FileSizeLimit final {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
};

inline std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What the ConfigError of `action` says, without the folder of the file.
inline std::string error_of(const std::function<void()>& action, const TemporaryFolder& folder) {
  try {
    action();
  } catch (const ConfigError& error) {
    std::string text = error.what();
    for (size_t at; (at = text.find(folder.path() + "/")) != std::string::npos;) text.erase(at, folder.path().size() + 1);
    return text;
  }
  return "no error";
}

/// A file of the reference data, "" if that is absent.
inline std::string shared_file(const std::string& name) {
  const char* folder = std::getenv("BRUME_SHARED");
  const auto path = std::string(folder != nullptr ? folder : BRUME_SOURCE_DIR "/../shared") + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

/// A safetensors file of any header and data, right or wrong.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return raw(uint64_t{header.size()}).append(header).append(data);
}

inline std::string deflated(std::string_view data) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

struct ZipMember {
  std::string name;
  std::string content;
  bool compress = false;
  size_t padding = 0;  ///< bytes of extra field in the local header, as torch aligns with
  bool zip64 = false;  ///< sizes and offset in the zip64 extra field
};

inline std::string zip_bytes(const std::vector<ZipMember>& members, bool zip64_end = false) {
  std::string zip, directory;
  for (const auto& member : members) {
    const auto data = member.compress ? deflated(member.content) : member.content;
    const auto crc =
        static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(member.content.data()), static_cast<uInt>(member.content.size())));
    const auto header = zip.size();
    const auto small = [&member](uint64_t value) { return raw(member.zip64 ? UINT32_MAX : static_cast<uint32_t>(value)); };
    const auto extra = !member.zip64 ? ""
                                     : raw<uint16_t>(1) + raw<uint16_t>(24) + raw<uint64_t>(member.content.size()) +
                                           raw<uint64_t>(data.size()) + raw<uint64_t>(header);
    const auto common = raw<uint16_t>(member.compress ? 8 : 0) + raw<uint32_t>(0) + raw(crc) + small(data.size()) +
                        small(member.content.size()) + raw(static_cast<uint16_t>(member.name.size()));
    zip += "PK\x03\x04" + raw<uint16_t>(20) + raw<uint16_t>(0) + common + raw(static_cast<uint16_t>(member.padding)) + member.name +
           std::string(member.padding, 'Z') + data;
    directory += "PK\x01\x02" + raw<uint16_t>(20) + raw<uint16_t>(20) + raw<uint16_t>(0) + common +
                 raw(static_cast<uint16_t>(extra.size())) + std::string(10, '\0') + small(header) + member.name + extra;
  }
  const auto start = zip.size();
  const auto count = members.size();
  zip += directory;
  if (zip64_end) {
    const auto end64 = zip.size();
    zip += "PK\x06\x06" + raw<uint64_t>(44) + raw<uint16_t>(45) + raw<uint16_t>(45) + raw<uint32_t>(0) + raw<uint32_t>(0) +
           raw<uint64_t>(count) + raw<uint64_t>(count) + raw<uint64_t>(directory.size()) + raw<uint64_t>(start);
    zip += "PK\x06\x07" + raw<uint32_t>(0) + raw<uint64_t>(end64) + raw<uint32_t>(1);
  }
  const auto end = zip64_end ? std::string(4, '\xff') + std::string(8, '\xff')
                             : raw(static_cast<uint16_t>(count)) + raw(static_cast<uint16_t>(count)) +
                                   raw(static_cast<uint32_t>(directory.size())) + raw(static_cast<uint32_t>(start));
  return zip + "PK\x05\x06" + std::string(4, '\0') + end + std::string(2, '\0');
}

/// Pieces of a pickle (protocol 2 and later).
namespace pickle {
inline std::string text(std::string_view value) { return "X" + raw(static_cast<uint32_t>(value.size())) + std::string(value); }
inline std::string integer(int32_t value) { return "J" + raw(value); }
inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string all = "(";
  for (const auto& item : items) all += item;
  return all + "t";
}
inline std::string integers(const std::vector<int32_t>& values) {
  std::vector<std::string> items;
  for (const auto value : values) items.push_back(integer(value));
  return tuple(items);
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string all = "}(";
  for (const auto& [key, value] : items) all += text(key) + value;
  return all + "u";
}
inline std::string storage(std::string_view kind, std::string_view key, int32_t count) {
  return tuple({text("storage"), global("torch", kind), text(key), text("cpu"), integer(count)}) + "Q";
}
inline std::string tensor(const std::string& storage, int32_t offset, const std::vector<int32_t>& sizes,
                          const std::vector<int32_t>& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({storage, integer(offset), integers(sizes), integers(strides), "\x89", global("collections", "OrderedDict") + ")R"}) + "R";
}
inline std::string whole(const std::string& value) { return "\x80\x02" + value + "."; }
}  // namespace pickle

/// The bytes of a PyTorch file with this pickle and these storages ("0", "1", ...), each aligned to 64 bytes.
inline std::string torch_bytes(const std::string& pickle, const std::vector<std::string>& storages, bool compress = false) {
  std::vector<ZipMember> members{{"archive/data.pkl", pickle, compress}};
  for (size_t i = 0; i < storages.size(); ++i) {
    ZipMember member{"archive/data/" + std::to_string(i), storages[i], compress};
    const auto before = zip_bytes(members);  // the directory follows the members: find its beginning
    uint32_t start = 0;
    std::memcpy(&start, before.data() + before.size() - 6, sizeof(start));
    member.padding = 64 - (start + 30 + member.name.size()) % 64;
    members.push_back(member);
  }
  members.push_back({"archive/version", "3\n"});
  return zip_bytes(members);
}

/// The bytes of a file as torch.save wrote it before PyTorch 1.6: this pickle, then the storages by their keys, each with its number of
/// elements; `little` is what it says of its bytes.
struct LegacyStorage {
  std::string key;
  int64_t count = 0;
  std::string bytes;
};
inline std::string legacy_torch_bytes(const std::string& pickle, const std::vector<LegacyStorage>& storages, bool little = true,
                                      int32_t protocol = 1001) {
  const std::string system = pickle::dict({{"protocol_version", pickle::integer(protocol)}, {"little_endian", little ? "\x88" : "\x89"}});
  std::string all = pickle::whole("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") + pickle::whole(pickle::integer(protocol)) +
                    pickle::whole(system) + pickle;
  std::string keys = "](", data;
  for (const auto& storage : storages) {
    keys += pickle::text(storage.key);
    data += raw(storage.count) + storage.bytes;
  }
  return all + pickle::whole(keys + "e") + data;
}

template <class T>
std::string numbers(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace brume::test::files
