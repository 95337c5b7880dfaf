#pragma once
// The names of one model's tensors in two programs: a list of pairs, looked up in both directions.
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace brume {

/// Pairs of prefixes that end in a dot, or of whole names. Of the prefixes that a name begins with, the longest counts.
class NameTable {
 public:
  void add(const std::string& ours, const std::string& theirs);
  /// Adds another name of theirs, which is read and never written.
  void add_alias(const std::string& ours, const std::string& theirs);
  /// Returns the name in the other program, or nothing if the table has no prefix of it.
  std::optional<std::string> ours(std::string_view theirs) const { return look_up(ours_, theirs); }
  std::optional<std::string> theirs(std::string_view ours) const { return look_up(theirs_, ours); }

 private:
  using Prefixes = std::map<std::string, std::string, std::less<>>;
  static std::optional<std::string> look_up(const Prefixes& prefixes, std::string_view name);

  Prefixes ours_, theirs_;  ///< by theirs, by ours
};

}  // namespace brume
