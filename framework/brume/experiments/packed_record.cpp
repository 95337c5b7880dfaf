#include "brume/experiments/packed_record.h"

#include <cstring>
#include <type_traits>

#include "brume/config/errors.h"

namespace brume {
namespace {

/// Calls io with every part of a record, in the order of the bytes.
template <class Io>
void visit(Io& io, RunRecord& r) {
  io(r.name), io(r.state), io(r.note), io(r.configuration), io(r.step), io(r.steps), io(r.figures), io(r.evaluations);
}
template <class Io>
void visit(Io& io, RunFigure& f) {
  io(f.last), io(f.best);
}
template <class Io>
void visit(Io& io, Evaluation& e) {
  io(e.file), io(e.set), io(e.steps), io(e.scale), io(e.sampler), io(e.figures);
}

template <class T>
constexpr bool plain = std::is_arithmetic_v<T> || std::is_enum_v<T>;

class Packer {
 public:
  std::string bytes;

  template <class T>
  void operator()(T& part) {
    if constexpr (plain<T>)
      bytes.append(reinterpret_cast<const char*>(&part), sizeof part);
    else
      visit(*this, part);
  }
  void operator()(std::string& text) {
    length(text.size());
    bytes += text;
  }
  template <class T>
  void operator()(std::optional<T>& part) {
    length(part.has_value());
    if (part) (*this)(*part);
  }
  template <class T>
  void operator()(std::vector<T>& list) {
    length(list.size());
    for (T& part : list) (*this)(part);
  }
  template <class T>
  void operator()(std::map<std::string, T>& map) {
    length(map.size());
    for (auto& [key, value] : map) {
      std::string name = key;
      (*this)(name);
      (*this)(value);
    }
  }

 private:
  void length(uint64_t n) { (*this)(n); }
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : rest_(bytes) {}
  bool done() const { return rest_.empty(); }

  template <class T>
  void operator()(T& part) {
    if constexpr (plain<T>)
      std::memcpy(&part, take(sizeof part).data(), sizeof part);
    else
      visit(*this, part);
  }
  void operator()(std::string& text) { text = take(length()); }
  template <class T>
  void operator()(std::optional<T>& part) {
    if (length() > 0) (*this)(part.emplace());
  }
  template <class T>
  void operator()(std::vector<T>& list) {
    for (uint64_t n = length(); n > 0; --n) (*this)(list.emplace_back());
  }
  template <class T>
  void operator()(std::map<std::string, T>& map) {
    for (uint64_t n = length(); n > 0; --n) {
      std::string key;
      (*this)(key);
      (*this)(map.emplace_hint(map.end(), std::move(key), T())->second);  // they are sorted
    }
  }

 private:
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) throw ConfigError("the bytes are no record of a run");
    const std::string_view part = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return part;
  }
  uint64_t length() {
    uint64_t n = 0;
    (*this)(n);
    return n;
  }

  std::string_view rest_;
};

}  // namespace

std::string packed_record(const RunRecord& record) {
  Packer packer;
  RunRecord copy = record;
  visit(packer, copy);
  return std::move(packer.bytes);
}

RunRecord unpacked_record(std::string_view bytes) {
  Unpacker unpacker(bytes);
  RunRecord record;
  visit(unpacker, record);
  if (!unpacker.done()) throw ConfigError("the bytes are no record of a run");
  return record;
}

}  // namespace brume
