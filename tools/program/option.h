#pragma once
// One option of a command, declared once: the command line, messages and what an image records are derived from it.
#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "program/command_line.h"

namespace brume::tools {

/// An option that sets a field of `A`.
template <class A>
struct Option {
  std::string names;  ///< "-n,--count"
  std::string field;  ///< of OpenOptions or ImageRequest, as their messages call it; "" = of neither
  std::function<CommandOption(Command command, A&)> declare;  ///< adds it to a command
  std::function<std::vector<std::string>(const A&)> values;   ///< as the command line takes them, one per use; empty = not given
  bool recorded = true;  ///< an image records it: it says what is made, not which file it is written to

  std::string long_name() const { return names.substr(names.find("--")); }
};

inline std::vector<std::string> words(const std::string& text) { return text.empty() ? std::vector<std::string>{} : std::vector{text}; }
inline std::vector<std::string> words(const std::vector<std::string>& texts) { return texts; }
inline std::vector<std::string> words(int64_t number) {
  return number > 0 ? std::vector{std::to_string(number)} : std::vector<std::string>{};
}
inline std::vector<std::string> words(uint64_t number) { return {std::to_string(number)}; }
template <class T>
std::vector<std::string> words(const std::optional<T>& value) {
  return value ? std::vector{fmt::format("{}", *value)} : std::vector<std::string>{};
}

/// What sets an option apart: its type name, its check.
using Refine = std::function<void(CommandOption)>;

/// Makes the option of the field that `at` returns, a generic lambda of `A&`.
template <class A, class At>
Option<A> option(std::string names, std::string field, At at, std::string doc, const Refine& refine = {}, bool recorded = true) {
  const auto declare = [=](Command command, A& a) {
    CommandOption made = command.add_option(names, at(a), doc);
    if (refine) refine(made);
    return made;
  };
  return {names, field, declare, [at](const A& a) { return words(at(a)); }, recorded};
}

/// Returns the option of a member of another struct, as one of `A`.
template <class A, class B>
Option<A> lifted(const Option<B>& inner, B A::*member) {
  return {inner.names, inner.field, [=](Command command, A& a) { return inner.declare(command, a.*member); },
          [=](const A& a) { return inner.values(a.*member); }, inner.recorded};
}

inline Refine type_name(const char* name) {
  return [=](CommandOption o) { o.type_name(name); };
}
/// Returns the refinement of options with a value per use: `--prompt a --prompt b`.
inline Refine one_each(const char* name) {
  return [=](CommandOption o) { o.type_name(name).allow_extra_args(false); };
}
inline Refine range(int64_t lo, int64_t hi) {
  return [=](CommandOption o) { o.check(between(lo, hi)); };
}

}  // namespace brume::tools
