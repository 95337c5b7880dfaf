// Checks that the options of a library's plugin can be read: each name once, and none called `type`, which names the plugin.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "brume/config/foreign.h"
#include "brume/config/plugin_loader.h"

namespace brume {
namespace {

/// Collects the mistakes in a declaration of options.
class OptionNames final : public Fields {
 public:
  std::vector<std::string> mistakes;

  void field(std::string_view n, bool&, std::string_view) override { add(n); }
  void field(std::string_view n, int64_t&, std::string_view, Range) override { add(n); }
  void field(std::string_view n, double&, std::string_view, Range) override { add(n); }
  void field(std::string_view n, std::string&, std::string_view) override { add(n); }
  void field(std::string_view n, std::filesystem::path&, std::string_view) override { add(n); }
  void field(std::string_view n, std::optional<int64_t>&, std::string_view, Range) override { add(n); }
  void field(std::string_view n, std::optional<double>&, std::string_view, Range) override { add(n); }
  void field(std::string_view n, std::vector<int64_t>&, std::string_view, Range) override { add(n); }
  void field(std::string_view n, std::vector<double>&, std::string_view, Range) override { add(n); }
  void field(std::string_view n, std::vector<std::string>&, std::string_view) override { add(n); }
  void field(std::string_view n, std::map<std::string, std::string>&, std::string_view) override { add(n); }
  void choice(std::string_view n, std::string& v, std::string_view, std::vector<std::string> words) override {
    add(n);
    if (std::find(words.begin(), words.end(), v) == words.end())
      mistakes.push_back(fmt::format("the default '{}' of its option '{}' is not one of its words", v, n));
  }
  void renamed(std::string_view, std::string_view) override {}
  void require(bool, std::string_view, std::string_view, std::string_view) override {}

 protected:
  void plugin(std::string_view n, std::string_view, std::string_view, std::string_view, Set) override { add(n); }
  void plugins(std::string_view n, std::string_view, std::string_view, std::function<void()>, Set) override { add(n); }
  void section_list(std::string_view n, std::string_view, std::function<void()>, std::function<void()> declare) override {
    add(n);
    frames_.emplace_back();
    declare();
    frames_.pop_back();
  }
  bool open(std::string_view n, std::string_view, bool) override {
    add(n);
    frames_.emplace_back();
    return true;
  }
  void close() override { frames_.pop_back(); }

 private:
  void add(std::string_view n) {
    if (frames_.size() == 1 && n == "type") mistakes.push_back("one of its options is called 'type', which names the plugin");
    if (n.empty() || n.find('.') != n.npos) mistakes.push_back(fmt::format("one of its options is called '{}'", n));
    if (!frames_.back().insert(std::string(n)).second) mistakes.push_back(fmt::format("two of its options are called '{}'", n));
  }
  std::vector<std::set<std::string>> frames_{1};
};

}  // namespace

void check_options(const Registry& registry, const std::string& library) {
  std::vector<Problem> problems;
  for (const std::string& kind : registry.kinds())
    for (const std::string& type : registry.names(kind)) {
      const Entry& entry = registry.entry(kind, type);
      if (entry.origin != library) continue;
      const std::string name = name_of_plugin(kind, type, library);
      OptionNames names;
      try {
        entry.declare(names);
      } catch (...) {
        rethrow_as(name, "declare()");
      }
      for (const std::string& mistake : names.mistakes) problems.push_back({{}, "", fmt::format("{}: {}", name, mistake)});
    }
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

}  // namespace brume
