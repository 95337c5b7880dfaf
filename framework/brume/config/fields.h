#pragma once
// A parameter is declared once: parsing, defaults, ranges, `describe`, the resolved dump and the editor's schema are visitors
// over the same `declare(Fields&)`. Cheap header: no torch, no YAML library.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "brume/config/recipe.h"

namespace brume {

/// The allowed values of a number, ends included unless `open_lo`.
struct Range {
  double lo = -std::numeric_limits<double>::infinity();
  double hi = std::numeric_limits<double>::infinity();
  bool open_lo = false;
};
inline Range at_least(double lo) { return {.lo = lo}; }
inline Range more_than(double lo) { return {.lo = lo, .open_lo = true}; }
inline Range within(double lo, double hi) { return {.lo = lo, .hi = hi}; }

/// Visitor over the parameters of one object.
///
/// A field that is absent from the configuration keeps the value its member initialiser gave it. A nested plugin without a
/// `fallback` is required; with one, an absent key stands for that plugin with its own defaults.
class Fields {
 public:
  virtual ~Fields() = default;

  virtual void field(std::string_view name, bool& value, std::string_view doc) = 0;
  virtual void field(std::string_view name, int64_t& value, std::string_view doc, Range range = {}) = 0;
  virtual void field(std::string_view name, double& value, std::string_view doc, Range range = {}) = 0;
  virtual void field(std::string_view name, std::string& value, std::string_view doc) = 0;
  virtual void field(std::string_view name, std::filesystem::path& value, std::string_view doc) = 0;
  virtual void field(std::string_view name, std::optional<int64_t>& value, std::string_view doc, Range range = {}) = 0;
  virtual void field(std::string_view name, std::optional<double>& value, std::string_view doc, Range range = {}) = 0;
  virtual void field(std::string_view name, std::vector<int64_t>& value, std::string_view doc, Range range = {}) = 0;
  virtual void field(std::string_view name, std::vector<double>& value, std::string_view doc, Range range = {}) = 0;
  virtual void field(std::string_view name, std::vector<std::string>& value, std::string_view doc) = 0;
  /// Declares a map whose keys the user chooses.
  virtual void field(std::string_view name, std::map<std::string, std::string>& value, std::string_view doc) = 0;

  /// Declares one of a few words.
  virtual void choice(std::string_view name, std::string& value, std::string_view doc, std::vector<std::string> words) = 0;

  /// Declares one of a few words, each standing for a value of an enumeration.
  template <class E>
  void choice(std::string_view name, E& value, std::string_view doc, const std::vector<std::pair<std::string, E>>& words) {
    std::vector<std::string> names;
    std::string word;
    for (const auto& [n, v] : words) {
      names.push_back(n);
      if (v == value) word = n;
    }
    choice(name, word, doc, names);
    for (const auto& [n, v] : words)
      if (n == word) value = v;
  }

  /// Declares a nested plugin of interface `I`, made while the configuration is read (plugins that are cheap values).
  template <class I>
  void field(std::string_view name, std::shared_ptr<const I>& value, std::string_view doc, std::string_view fallback = {}) {
    plugin(name, I::kind, doc, fallback, [&value](const Recipe& r) { value = std::static_pointer_cast<const I>(r.make(nullptr)); });
  }
  /// Declares a nested plugin of interface `I` made later, with the context it needs (plugins that hold weights or data).
  template <class I>
  void field(std::string_view name, Deferred<I>& value, std::string_view doc, std::string_view fallback = {}) {
    plugin(name, I::kind, doc, fallback, [&value](const Recipe& r) { value = Deferred<I>(r); });
  }
  /// Declares a list of nested plugins.
  template <class I>
  void field(std::string_view name, std::vector<std::shared_ptr<const I>>& value, std::string_view doc) {
    plugins(
        name, I::kind, doc, [&value] { value.clear(); },
        [&value](const Recipe& r) { value.push_back(std::static_pointer_cast<const I>(r.make(nullptr))); });
  }

  /// Declares a group of fields under one key; `S` has `void declare(Fields&)`.
  template <class S>
  void section(std::string_view name, S& value, std::string_view doc) {
    if (!open(name, doc, true)) return;
    value.declare(*this);
    close();
  }
  /// Declares a group of fields that may be absent.
  template <class S>
  void section(std::string_view name, std::optional<S>& value, std::string_view doc) {
    if (!open(name, doc, false)) return;
    value.emplace();
    value->declare(*this);
    close();
  }
  /// Declares a list of groups of fields; `S` has `void declare(Fields&)`.
  template <class S>
  void sections(std::string_view name, std::vector<S>& value, std::string_view doc) {
    section_list(
        name, doc, [&value] { value.clear(); }, [this, &value] { value.emplace_back().declare(*this); });
  }

  /// Declares that the field `name` was once called `former`, which is still read, with a warning that names both. Stands before
  /// the declaration of `name`. Giving both names in one file is a mistake.
  virtual void renamed(std::string_view former, std::string_view name) = 0;

  /// Requires `ok`. `rule` states what must hold, for readers of the reference ("must divide width"); `mistake`, if given, says in the
  /// error what does not, with the values ("3 heads do not divide width 8"). The error points at `key` if that is given, else at the map.
  virtual void require(bool ok, std::string_view key, std::string_view rule, std::string_view mistake = {}) = 0;

  /// Declares that the field `key` has no effect if `now` holds, of which `when` says what it is ("eta is 0"): gives a warning if another
  /// value than the default is given for it. Stands after the declaration of `key`.
  virtual void unused(bool now, std::string_view key, std::string_view when);
  void unused(bool now, std::initializer_list<std::string_view> keys, std::string_view when) {
    for (const std::string_view key : keys) unused(now, key, when);
  }

 protected:
  using Set = std::function<void(const Recipe&)>;
  virtual void plugin(std::string_view name, std::string_view kind, std::string_view doc, std::string_view fallback, Set set) = 0;
  virtual void plugins(std::string_view name, std::string_view kind, std::string_view doc, std::function<void()> clear, Set add) = 0;
  /// Calls `clear` if a list is given, and `add` within each of its groups.
  virtual void section_list(std::string_view name, std::string_view doc, std::function<void()> clear, std::function<void()> add) = 0;
  /// Enters a group; false if it is to be left alone (optional and absent).
  virtual bool open(std::string_view name, std::string_view doc, bool required) = 0;
  virtual void close() = 0;
};

inline void Fields::unused(bool, std::string_view, std::string_view) {}

}  // namespace brume
