#pragma once
// The registry: (kind, name) -> how to read its options and make it.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "brume/config/fields.h"
#include "brume/config/value.h"

namespace brume {

/// What a registered plugin is. `read` fills default options through a visitor and says how to make the object from them.
struct Entry {
  using Declare = std::function<void(Fields&)>;
  std::string doc;
  std::string origin;
  std::string notes;                                                       ///< the paper and the formula: the head of its source
  std::string preset_of;                                                   ///< the plugin whose other defaults it is; empty = none
  Declare declare;                                                         ///< on default options
  std::function<Recipe(const std::function<void(const Declare&)>&)> read;  ///< on fresh options, filled by the visitor
};

/// All plugins by kind and name. Filled once at start (built-ins, then libraries), then only read: const use is thread-safe.
class Registry {
 public:
  /// Registers `T` (constructible from `T::Options`, or from options and `I::Context`) under `I::kind`.
  /// A static `T::check(options, context)` is called before construction and by `brume check`.
  template <class I, class T>
  void add(const std::string& name, std::string doc);
  /// Registers `name` as a preset: the plugin `of`, which is a `T`, with the defaults that `set` writes into its `Options&`.
  template <class I, class T, class Set>
  void preset(const std::string& name, std::string of, std::string doc, Set set);
  /// Declares that the plugin `name` was once called `former`, which is still read, with a warning that names both.
  void renamed(std::string_view kind, std::string former, std::string name);
  /// Declares that the kind `kind` was once called `former`.
  void renamed_kind(std::string former, std::string kind);

  const std::vector<std::string> kinds() const;
  /// Returns the sorted names of a kind; empty if nothing of it is registered.
  std::vector<std::string> names(std::string_view kind) const;
  /// Takes former names too. Throws ConfigError naming the nearest kind or name.
  const Entry& entry(std::string_view kind, std::string_view name) const;
  /// Returns the name that a former name of a plugin stands for, or of a kind; `name` itself if it is no former name.
  std::string current(std::string_view kind, std::string_view name) const;
  std::string current_kind(std::string_view kind) const;
  /// Returns the former names of this plugin, sorted.
  std::vector<std::string> former_names(std::string_view kind, std::string_view name) const;

  /// Receives what readers of a configuration say that is no mistake (a former name), each time that it is read; several threads may
  /// call it at once if several read. By default nobody does.
  void on_warning(std::function<void(const Problem&)> callback) { warn_ = std::move(callback); }
  void warn(const Problem& warning) const;
  /// Returns the origins of plugins that are not built in, sorted.
  std::vector<std::string> libraries() const;

  /// Sets the origin of plugins registered from now on ("built-in", or a library's path): used when two claim one name.
  void set_origin(std::string origin) { origin_ = std::move(origin); }
  /// Sets what `describe` says of plugins registered from now on, above their parameters.
  void set_notes(std::string notes) { notes_ = std::move(notes); }

 private:
  template <class I, class T, class Set>
  Entry entry_of(std::string doc, Set set) const;
  void insert(std::string_view kind, std::string name, Entry entry);
  std::map<std::string, std::map<std::string, Entry, std::less<>>, std::less<>> kinds_;
  std::map<std::string, std::map<std::string, std::string, std::less<>>, std::less<>> former_;  ///< kind: former name of a plugin: name
  std::map<std::string, std::string, std::less<>> former_kinds_;
  std::function<void(const Problem&)> warn_;
  std::string origin_ = "built-in", notes_;
};

/// A place of a configuration that a library's plugin fills.
struct PluginUse {
  std::string path;  ///< "model.noise"
  std::string library;
};

/// Reads one plugin ("ddim", or {type: ddim, eta: 1}) into a recipe; throws ConfigError with every mistake found.
/// `resolved`, if given, receives the options with all defaults written out.
Recipe read_plugin(const Registry& registry, std::string_view kind, const Value& value, const std::string& path = "",
                   Value* resolved = nullptr);

/// Reads and makes one plugin of an interface without context.
template <class I>
std::shared_ptr<const I> create(const Registry& registry, const Value& value) {
  const Recipe recipe = read_plugin(registry, I::kind, value, std::string(I::kind));
  try {
    return std::static_pointer_cast<const I>(recipe.make(nullptr));
  } catch (const ConfigError& e) {
    throw e.located(recipe.place, recipe.path);
  }
}
template <class I>
Deferred<I> create_deferred(const Registry& registry, const Value& value) {
  return Deferred<I>(read_plugin(registry, I::kind, value, std::string(I::kind)));
}

/// Fills a whole configuration object (anything with `declare`); throws ConfigError with every mistake found. Returns the
/// resolved tree: every key with the value in force. `uses`, if given, receives the plugins that are not built in.
Value read_fields(const Registry& registry, const Value& root, const Entry::Declare& declare, const std::string& path = "",
                  std::vector<PluginUse>* uses = nullptr);
template <class S>
Value read_config(const Registry& registry, const Value& root, S& into, std::vector<PluginUse>* uses = nullptr) {
  return read_fields(
      registry, root, [&](Fields& f) { into.declare(f); }, "", uses);
}

/// Returns a table of a plugin's parameters: name, type, default, allowed values, meaning.
std::string describe(const Registry& registry, std::string_view kind, std::string_view name);
/// Returns the same in Markdown, for the generated reference.
std::string describe_markdown(const Registry& registry, std::string_view kind, std::string_view name);
/// Returns the JSON Schema of a configuration with the given root, for editors.
std::string json_schema(const Registry& registry, const Entry::Declare& root);

namespace detail {
template <class I>
concept HasContext = requires {
  typename I::Context;
};
}  // namespace detail

template <class I, class T, class Set>
Entry Registry::entry_of(std::string doc, Set set) const {
  static_assert(std::is_base_of_v<I, T> && std::is_final_v<T>, "a plugin is a final class derived from its interface");
  using Options = typename T::Options;
  Entry e;
  e.doc = std::move(doc);
  e.origin = origin_;
  e.notes = notes_;
  e.declare = [set](Fields& f) {
    Options o;
    set(o);
    o.declare(f);
  };
  e.read = [set](const std::function<void(const Entry::Declare&)>& visit) {
    auto options = std::make_shared<Options>();
    set(*options);
    visit([&](Fields& f) { options->declare(f); });
    Recipe recipe;
    if constexpr (requires { T::weightless; }) recipe.weightless = T::weightless;
    if constexpr (requires { T::neutral; }) recipe.neutral = T::neutral;
    if constexpr (detail::HasContext<I>) {
      using Context = typename I::Context;
      recipe.make = [options](const void* context) -> std::shared_ptr<void> {
        return std::shared_ptr<I>(std::make_shared<T>(*options, *static_cast<const Context*>(context)));
      };
      recipe.check = [options]([[maybe_unused]] const void* context) {
        if constexpr (requires(const Context& c) { T::check(*options, c); }) T::check(*options, *static_cast<const Context*>(context));
      };
    } else {
      recipe.make = [options](const void*) -> std::shared_ptr<void> { return std::shared_ptr<I>(std::make_shared<T>(*options)); };
      recipe.check = [](const void*) {};
    }
    return recipe;
  };
  return e;
}

template <class I, class T>
void Registry::add(const std::string& name, std::string doc) {
  insert(I::kind, name, entry_of<I, T>(std::move(doc), [](typename T::Options&) {}));
}

template <class I, class T, class Set>
void Registry::preset(const std::string& name, std::string of, std::string doc, Set set) {
  Entry e = entry_of<I, T>(std::move(doc), std::move(set));
  e.preset_of = std::move(of);
  insert(I::kind, name, std::move(e));
}

}  // namespace brume
