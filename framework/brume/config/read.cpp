// Reading a configuration: the visitor that fills options from a tree of values, collecting every mistake on the way.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <list>
#include <tuple>

#include "brume/config/foreign.h"
#include "brume/config/registry.h"
#include "brume/config/scalars.h"
#include "brume/config/suggest.h"

namespace brume {
namespace {
using namespace detail;

std::string join_path(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

class Reader final : public Fields {
 public:
  Reader(const Registry& registry, const Value& root, std::string path, std::vector<Problem>& problems, std::vector<PluginUse>* uses)
      : registry_(registry), problems_(problems), uses_(uses), first_problem_(problems.size()) {
    push(&root, std::move(path));
  }

  /// Reports unknown keys and returns the resolved map.
  Value finish() {
    Frame frame = pop();
    return std::move(frame.resolved);
  }
  void allow(std::string key) { top().known.push_back(std::move(key)); }

  void field(std::string_view n, bool& v, std::string_view) override { scalar(n, v, Range{}); }
  void field(std::string_view n, int64_t& v, std::string_view, Range r) override { scalar(n, v, r); }
  void field(std::string_view n, double& v, std::string_view, Range r) override { scalar(n, v, r); }
  void field(std::string_view n, std::string& v, std::string_view) override { scalar(n, v, Range{}); }
  void field(std::string_view n, std::filesystem::path& v, std::string_view) override {
    std::string text = v.string();
    scalar(n, text, Range{});
    v = text;
  }
  void field(std::string_view n, std::optional<int64_t>& v, std::string_view, Range r) override { optional(n, v, r); }
  void field(std::string_view n, std::optional<double>& v, std::string_view, Range r) override { optional(n, v, r); }
  void field(std::string_view n, std::vector<int64_t>& v, std::string_view, Range r) override { list(n, v, r); }
  void field(std::string_view n, std::vector<double>& v, std::string_view, Range r) override { list(n, v, r); }
  void field(std::string_view n, std::vector<std::string>& v, std::string_view) override { list(n, v, Range{}); }
  void field(std::string_view n, std::map<std::string, std::string>& v, std::string_view) override { words(n, v); }

  void choice(std::string_view n, std::string& v, std::string_view, std::vector<std::string> words) override {
    const std::string before = v;
    scalar(n, v, Range{});
    if (std::find(words.begin(), words.end(), v) != words.end()) return;
    const Value* at = given(n);
    if (!at) throw std::logic_error(fmt::format("{}: the default '{}' is none of its words", n, v));
    problem(at->place, fmt::format("{}: unknown value '{}'{}", n, v, hint(v, words)));
    v = before;
  }

  void renamed(std::string_view former, std::string_view name) override { top().former.emplace_back(name, former); }

  void require(bool ok, std::string_view key, std::string_view rule, std::string_view mistake) override {
    if (ok || problems_.size() > first_problem_) return;  // a rule says nothing while its fields are wrong
    const Value* at = given(key);
    problem(at ? at->place : top().place, fmt::format("{}: {}", key, mistake.empty() ? rule : mistake));
  }

  void unused(bool now, std::string_view key, std::string_view when) override {
    const auto& changed = top().changed;
    if (!now || std::find(changed.begin(), changed.end(), key) == changed.end()) return;
    if (const Value* at = given(key); at->place.file)  // somebody wrote it
      warn({at->place, top().path, fmt::format("{} has no effect, as {}", key, when)});
  }

 protected:
  void plugin(std::string_view n, std::string_view kind, std::string_view, std::string_view fallback, Set set) override {
    const Value* v = look(n);
    Value standin = Value::text(std::string(fallback));
    if (!v || v->is_null()) {
      if (fallback.empty()) return problem(top().place, fmt::format("missing '{}' ({} {}: {})", n, article(kind), kind, known(kind)));
      standin.place = top().place;
      v = &standin;
    }
    Value full;
    if (const auto recipe = read_one(kind, *v, join_path(top().path, n), full)) attempt(*recipe, set);
    top().resolved.set(std::string(n), std::move(full));
  }

  void plugins(std::string_view n, std::string_view kind, std::string_view, std::function<void()> clear, Set add) override {
    each_item(n, clear, [&](const Value& item, const std::string& path, Value& full) {
      full.items.emplace_back();
      if (const auto recipe = read_one(kind, item, path, full.items.back())) attempt(*recipe, add);
    });
  }

  void section_list(std::string_view n, std::string_view, std::function<void()> clear, std::function<void()> add) override {
    each_item(n, clear, [&](const Value& item, const std::string& path, Value& full) {
      if (!item.is_map()) {
        problems_.push_back({item.place, path, fmt::format("expected a map of settings, got {}", item.kind_text())});
        return;
      }
      push(&item, path);
      add();
      full.items.push_back(pop().resolved);
    });
  }

  bool open(std::string_view n, std::string_view, bool required) override {
    const Value* v = look(n);
    if (!required && (!v || v->is_null())) return false;
    static const Value empty = Value::map();
    if (v && !v->is_map() && !v->is_null()) {
      problem(v->place, fmt::format("{}: expected a map of settings, got {}", n, v->kind_text()));
      return false;
    }
    if (v && v->is_null()) v = nullptr;
    push(v ? v : &empty, join_path(top().path, n));
    if (!v) top().place = stack_[stack_.size() - 2].place;
    return true;
  }
  void close() override {
    Frame frame = pop();
    const std::string name = frame.path.substr(frame.path.rfind('.') == std::string::npos ? 0 : frame.path.rfind('.') + 1);
    top().resolved.set(name, std::move(frame.resolved));
  }

 private:
  /// Reads a list, or one item that stands for a list of one, item by item. `read` adds to the resolved list.
  template <class F>
  void each_item(std::string_view n, const std::function<void()>& clear, const F& read) {
    const Value* v = look(n);
    Value full = Value::list();
    if (v && !v->is_null()) {
      clear();
      const std::vector<Value> items = v->is_list() ? v->items : std::vector<Value>{*v};
      for (size_t i = 0; i < items.size(); ++i) read(items[i], fmt::format("{}.{}", join_path(top().path, n), i), full);
    }
    top().resolved.set(std::string(n), std::move(full));
  }

  struct Frame {
    const Value* node;
    std::string path;
    Place place;
    std::vector<std::string> known;
    Value resolved = Value::map();
    std::vector<std::pair<std::string, std::string>> former{};  ///< a name, and what it was called
    std::vector<std::string> changed{};                         ///< fields that are given another value than their default
  };
  Frame& top() { return stack_.back(); }
  void push(const Value* node, std::string path) { stack_.push_back({node, std::move(path), node->place, {}, Value::map()}); }

  Frame pop() {
    Frame frame = std::move(stack_.back());
    for (const Value::Entry& e : frame.node->entries)
      if (std::find(frame.known.begin(), frame.known.end(), e.key) == frame.known.end() && !is_former(frame, e.key))
        problems_.push_back({e.place, frame.path, fmt::format("unknown key '{}'{}", e.key, hint(e.key, frame.known))});
    stack_.pop_back();
    return frame;
  }

  void warn(const Problem& warning) const {
    if (!warning.place.stored) registry_.warn(warning);
  }
  void problem(const Place& place, std::string message) { problems_.push_back({place, top().path, std::move(message)}); }

  static bool is_former(const Frame& frame, std::string_view key) {
    return std::any_of(frame.former.begin(), frame.former.end(), [&](const auto& f) { return f.second == key; });
  }
  /// Returns the entry of this key, or null.
  const Value::Entry* entry(std::string_view key) {
    const auto& entries = top().node->entries;
    const auto it = std::find_if(entries.begin(), entries.end(), [&](const Value::Entry& e) { return e.key == key; });
    return it == entries.end() ? nullptr : &*it;
  }
  /// Returns what is given for a field by its name, or by a former one; null if nothing is.
  const Value* given(std::string_view n) {
    if (const Value* v = top().node->find(n)) return v;
    for (const auto& [name, former] : top().former)
      if (name == n)
        if (const Value* v = top().node->find(former)) return v;
    return nullptr;
  }

  const Value* look(std::string_view n) {
    top().known.emplace_back(n);
    const Value* value = top().node->find(n);
    for (const auto& [name, former] : top().former)
      if (name == n && entry(former)) value = by_former_name(former, n);
    return value;
  }
  /// Returns the value of a field that is given by a former name, and perhaps by its name as well: in another file, or on the command line,
  /// the later of the two is laid over the other; in one file it is a mistake.
  const Value* by_former_name(std::string_view former, std::string_view n) {
    const Value::Entry &old = *entry(former), *now = entry(n);
    const std::string path = join_path(top().path, former);
    if (now && text_of(old.place.file) == text_of(now->place.file)) {
      problems_.push_back({old.place, "", fmt::format("{} is now {}, which is given as well; leave one out", path, n)});
      return &now->value;
    }
    warn({old.place, "", fmt::format("{} is now {}", path, n)});
    if (!now) return &old.value;
    const bool later = &old > now;  // keys stand in the order in which they were laid over each other
    return &merged_.emplace_back(merge(later ? now->value : old.value, later ? old.value : now->value));
  }
  static std::string_view text_of(const std::shared_ptr<const std::string>& file) { return file ? std::string_view(*file) : ""; }
  static std::string_view article(std::string_view word) { return std::string_view("aeiou").find(word.front()) == word.npos ? "a" : "an"; }
  std::string known(std::string_view kind) const {
    std::string text;
    for (const std::string& name : registry_.names(kind)) text += (text.empty() ? "" : ", ") + name;
    return text.empty() ? "none is registered" : text;
  }

  template <class T>
  bool convert(std::string_view n, const Value& v, T& out, const Range& range, std::string_view wanted) {
    const bool blank = v.scalar.empty() && !std::is_same_v<T, std::string>;
    if (!v.is_scalar() || blank || !parse(v, out)) {
      problem(v.place, fmt::format("{}: expected {}, got {}", n, wanted, v.kind_text()));
      return false;
    }
    if constexpr (std::is_arithmetic_v<T>) {
      const double x = double(out);
      if (!(x >= range.lo && x <= range.hi) || (range.open_lo && x == range.lo)) {
        problem(v.place, fmt::format("{} = {} is outside {}{}, {}]", n, v.scalar, range.open_lo ? "(" : "[", range.lo, range.hi));
        return false;
      }
    }
    return true;
  }

  /// Gives a field its value.
  template <class T, class U>
  void take(std::string_view n, T& value, U read) {
    if (value != read) top().changed.emplace_back(n);
    value = std::move(read);
  }

  template <class T>
  void scalar(std::string_view n, T& value, const Range& range) {
    if (const Value* v = look(n)) {
      T read{};
      if (convert(n, *v, read, range, type_name<T>)) take(n, value, read);
    }
    top().resolved.set(std::string(n), resolved(value));
  }
  template <class T>
  void optional(std::string_view n, std::optional<T>& value, const Range& range) {
    if (const Value* v = look(n)) {
      T read{};
      if (v->is_null())
        take(n, value, std::optional<T>());
      else if (convert(n, *v, read, range, type_name<T>))
        take(n, value, read);
    }
    top().resolved.set(std::string(n), value ? resolved(*value) : Value{});
  }
  template <class T>
  void list(std::string_view n, std::vector<T>& value, const Range& range) {
    if (const Value* v = look(n)) {
      std::vector<T> read;
      bool good = v->is_list();
      if (!good) problem(v->place, fmt::format("{}: expected {}, got {}", n, list_name<T>, v->kind_text()));
      for (const Value& item : v->items) {
        T one{};
        good = convert(n, item, one, range, type_name<T>) && good;
        read.push_back(one);
      }
      if (good) take(n, value, std::move(read));
    }
    Value all = Value::list();
    for (const T& x : value) all.items.push_back(resolved(x));
    top().resolved.set(std::string(n), std::move(all));
  }

  void words(std::string_view n, std::map<std::string, std::string>& value) {
    if (const Value* v = look(n)) {
      std::map<std::string, std::string> read;
      bool good = v->is_map();
      if (!good) problem(v->place, fmt::format("{}: expected a map of strings, got {}", n, v->kind_text()));
      for (const Value::Entry& e : v->entries)
        good = convert(join_path(std::string(n), e.key), e.value, read[e.key], Range{}, type_name<std::string>) && good;
      if (good) take(n, value, std::move(read));
    }
    Value all = Value::map();
    for (const auto& [key, word] : value) all.set(key, resolved(word));
    top().resolved.set(std::string(n), std::move(all));
  }

  void attempt(const Recipe& recipe, const Set& set) {
    try {
      set(recipe);
    } catch (const ConfigError& e) {
      const ConfigError placed = e.located(recipe.place, recipe.path);
      problems_.insert(problems_.end(), placed.problems().begin(), placed.problems().end());
    }
  }

  /// Returns the recipe of a nested plugin, or nothing if a mistake was found in it.
  std::optional<Recipe> read_one(std::string_view kind, const Value& v, const std::string& path, Value& full) {
    const size_t before = problems_.size();
    const Value* type = v.is_map() ? v.find("type") : &v;
    const auto fail = [&](const Place& place, std::string message) {
      problems_.push_back({place, path, std::move(message)});
      return std::nullopt;
    };
    if (!type) return fail(v.place, fmt::format("missing 'type' (one of: {})", known(kind)));
    if (!type->is_scalar())
      return fail(type->place, fmt::format("expected the name of {} {}, got {}", article(kind), kind, type->kind_text()));
    const std::vector<std::string> names = registry_.names(kind);
    const std::string name = registry_.current(kind, type->scalar);
    if (std::find(names.begin(), names.end(), name) == names.end())
      return fail(type->place, fmt::format("unknown {} '{}'{}", kind, type->scalar, hint(type->scalar, names)));
    if (name != type->scalar) warn({type->place, path, fmt::format("{} '{}' is now '{}'", kind, type->scalar, name)});
    static const Value empty = Value::map();
    Value holder = v.is_map() ? v : empty;
    holder.place = v.place;
    const Entry& entry = registry_.entry(kind, name);
    if (uses_ && entry.origin != "built-in") uses_->push_back({path, entry.origin});
    const bool foreign = entry.origin != "built-in";
    Recipe recipe;
    try {
      recipe = entry.read([&](const Entry::Declare& declare) {
        Reader reader(registry_, holder, path, problems_, uses_);
        reader.allow("type");
        reader.top().resolved.set("type", Value::text(name));
        declare(reader);
        full = reader.finish();
      });
    } catch (...) {
      rethrow_as(foreign ? name_of_plugin(kind, name, entry.origin) : "", "declare()");
    }
    if (problems_.size() > before) return std::nullopt;
    if (foreign) name_in_errors(recipe, kind, name, entry.origin);
    recipe.type = name;
    recipe.place = v.place;
    recipe.path = path;
    return recipe;
  }
  friend Recipe brume::read_plugin(const Registry&, std::string_view, const Value&, const std::string&, Value*);

  const Registry& registry_;
  std::vector<Problem>& problems_;
  std::vector<PluginUse>* uses_;
  size_t first_problem_;
  std::vector<Frame> stack_;
  std::list<Value> merged_;  ///< of keys given by both names
};

/// Sorts by file, in the order in which they are first at fault; in the order of its lines within each.
void sort_by_place(std::vector<Problem>& problems) {
  std::vector<std::shared_ptr<const std::string>> files;
  for (const Problem& p : problems)
    if (std::find(files.begin(), files.end(), p.place.file) == files.end()) files.push_back(p.place.file);
  const auto key = [&](const Problem& p) {
    return std::tuple(std::find(files.begin(), files.end(), p.place.file) - files.begin(), p.place.line, p.place.column);
  };
  std::stable_sort(problems.begin(), problems.end(), [&](const Problem& a, const Problem& b) { return key(a) < key(b); });
}

}  // namespace

Recipe read_plugin(const Registry& registry, std::string_view kind, const Value& value, const std::string& path, Value* full) {
  std::vector<Problem> problems;
  const Value none = Value::map();
  Reader reader(registry, none, "", problems, nullptr);
  Value resolved;
  const auto recipe = reader.read_one(kind, value, path, resolved);
  if (!recipe) {
    sort_by_place(problems);
    throw ConfigError(std::move(problems));
  }
  if (full) *full = std::move(resolved);
  return *recipe;
}

Value read_fields(const Registry& registry, const Value& root, const Entry::Declare& declare, const std::string& path,
                  std::vector<PluginUse>* uses) {
  std::vector<Problem> problems;
  if (!root.is_map() && !root.is_null())
    throw ConfigError(std::vector<Problem>{{root.place, path, "expected a map of settings, got " + root.kind_text()}});
  Reader reader(registry, root, path, problems, uses);
  declare(reader);
  Value resolved = reader.finish();
  if (!problems.empty()) {
    sort_by_place(problems);
    throw ConfigError(std::move(problems));
  }
  return resolved;
}

}  // namespace brume
