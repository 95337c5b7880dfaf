// The parameters of a plugin, and the keys of a section, as a table, from the same declaration that reads them.
#include "brume/config/describe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "brume/config/suggest.h"

namespace brume {
namespace {

struct Row {
  std::string name, type, fallback, allowed, doc;
};

std::string interval(const Range& r) {
  const bool lo = !std::isinf(r.lo), hi = !std::isinf(r.hi);
  if (lo && hi) return fmt::format("{}{}, {}]", r.open_lo ? "(" : "[", r.lo, r.hi);
  if (lo) return fmt::format("{} {}", r.open_lo ? ">" : ">=", r.lo);
  return hi ? fmt::format("<= {}", r.hi) : "";
}

class Describer final : public Fields {
 public:
  std::vector<Row> rows;
  std::vector<std::string> rules;
  std::vector<Section> sections;

  void field(std::string_view n, bool& v, std::string_view d) override { add(n, "bool", v ? "true" : "false", "", d); }
  void field(std::string_view n, int64_t& v, std::string_view d, Range r) override { add(n, "int", fmt::to_string(v), interval(r), d); }
  void field(std::string_view n, double& v, std::string_view d, Range r) override { add(n, "float", fmt::format("{}", v), interval(r), d); }
  void field(std::string_view n, std::string& v, std::string_view d) override { add(n, "string", v.empty() ? "\"\"" : v, "", d); }
  void field(std::string_view n, std::filesystem::path& v, std::string_view d) override { add(n, "path", v.string(), "", d); }
  void field(std::string_view n, std::optional<int64_t>& v, std::string_view d, Range r) override {
    add(n, "int or null", v ? fmt::to_string(*v) : "null", interval(r), d);
  }
  void field(std::string_view n, std::optional<double>& v, std::string_view d, Range r) override {
    add(n, "float or null", v ? fmt::format("{}", *v) : "null", interval(r), d);
  }
  void field(std::string_view n, std::vector<int64_t>& v, std::string_view d, Range r) override {
    add(n, "int list", fmt::format("[{}]", fmt::join(v, ", ")), interval(r), d);
  }
  void field(std::string_view n, std::vector<double>& v, std::string_view d, Range r) override {
    add(n, "float list", fmt::format("[{}]", fmt::join(v, ", ")), interval(r), d);
  }
  void field(std::string_view n, std::vector<std::string>& v, std::string_view d) override {
    add(n, "string list", fmt::format("[{}]", fmt::join(v, ", ")), "", d);
  }
  void field(std::string_view n, std::map<std::string, std::string>&, std::string_view d) override { add(n, "string map", "{}", "", d); }
  void choice(std::string_view n, std::string& v, std::string_view d, std::vector<std::string> words) override {
    add(n, "choice", v, fmt::format("{}", fmt::join(words, " | ")), d);
  }
  void renamed(std::string_view, std::string_view) override {}
  void require(bool, std::string_view key, std::string_view rule, std::string_view) override {
    rules.push_back(fmt::format("{}: {}", path(key), rule));
  }
  void unused(bool, std::string_view key, std::string_view when) override {
    rules.push_back(fmt::format("{}: has no effect if {}", path(key), when));
  }

 protected:
  void plugin(std::string_view n, std::string_view kind, std::string_view d, std::string_view fallback, Set) override {
    add(n, std::string(kind), fallback.empty() ? "(required)" : std::string(fallback), "", d);
  }
  void plugins(std::string_view n, std::string_view kind, std::string_view d, std::function<void()>, Set) override {
    add(n, fmt::format("{} list", kind), "[]", "", d);
  }
  void section_list(std::string_view n, std::string_view d, std::function<void()>, std::function<void()> declare) override {
    add(n, "section list", "[]", "", d);
    prefix_.push_back(std::string(n) + "[]");
    declare();
    prefix_.pop_back();
  }
  bool open(std::string_view n, std::string_view d, bool required) override {
    add(n, "section", required ? "" : "absent", "", d);
    sections.push_back({path(n), std::string(d)});
    prefix_.push_back(std::string(n));
    return true;
  }
  void close() override { prefix_.pop_back(); }

 private:
  std::string path(std::string_view name) const {
    std::string text;
    for (const std::string& p : prefix_) text += p + ".";
    return text + std::string(name);
  }
  void add(std::string_view n, std::string type, std::string fallback, std::string allowed, std::string_view doc) {
    rows.push_back({path(n), std::move(type), std::move(fallback), std::move(allowed), std::string(doc)});
  }
  std::vector<std::string> prefix_;
};

/// Returns the lines two further to the right, and an empty line after them.
std::string indented(const std::string& text) {
  if (text.empty()) return text;
  std::string result;
  for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    if (end > begin) result += "  " + text.substr(begin, end - begin);
    result += '\n';
  }
  return result + '\n';
}

/// Returns what stands below a section, by names that count from there.
Describer within_section(const Entry::Declare& root, const std::string& section) {
  Describer all, some;
  root(all);
  const std::string prefix = section + ".";
  for (Row& row : all.rows)
    if (row.name.starts_with(prefix)) row.name.erase(0, prefix.size()), some.rows.push_back(std::move(row));
  for (const std::string& rule : all.rules)
    if (rule.starts_with(prefix)) some.rules.push_back(rule.substr(prefix.size()));
  return some;
}

/// Returns "preset of ddim: eta = 1", or nothing.
std::string preset_text(const Registry& registry, std::string_view kind, const Entry& entry) {
  if (entry.preset_of.empty()) return {};
  Describer own, base;
  entry.declare(own);
  registry.entry(kind, entry.preset_of).declare(base);
  std::vector<std::string> changed;
  for (size_t i = 0; i < own.rows.size(); ++i)
    if (own.rows[i].fallback != base.rows[i].fallback) changed.push_back(fmt::format("{} = {}", own.rows[i].name, own.rows[i].fallback));
  return fmt::format("preset of {}: {}", entry.preset_of, fmt::join(changed, ", "));
}

std::string table(const Describer& d) {
  std::vector<Row> rows = d.rows;
  rows.insert(rows.begin(), {"name", "type", "default", "allowed", "meaning"});
  size_t w[4] = {0, 0, 0, 0};
  for (const Row& r : rows) {
    w[0] = std::max(w[0], r.name.size()), w[1] = std::max(w[1], r.type.size());
    w[2] = std::max(w[2], r.fallback.size()), w[3] = std::max(w[3], r.allowed.size());
  }
  if (rows.size() == 1) return "  no parameters\n";
  std::string text;
  for (const Row& r : rows)
    text += fmt::format("  {:<{}}  {:<{}}  {:<{}}  {:<{}}  {}\n", r.name, w[0], r.type, w[1], r.fallback, w[2], r.allowed, w[3], r.doc);
  for (const std::string& rule : d.rules) text += fmt::format("  rule: {}\n", rule);
  return text;
}

std::string markdown_table(const Describer& d, const char* what) {
  std::string text = fmt::format("| {} | type | default | allowed | meaning |\n|---|---|---|---|---|\n", what);
  const auto cell = [](std::string s) {
    for (size_t i = 0; (i = s.find('|', i)) != std::string::npos; i += 2) s.insert(i, 1, '\\');
    return s;
  };
  for (const Row& r : d.rows)
    text += fmt::format("| `{}` | {} | {} | {} | {} |\n", r.name, r.type, r.fallback.empty() ? "" : "`" + r.fallback + "`", cell(r.allowed),
                        cell(r.doc));
  for (const std::string& rule : d.rules) text += fmt::format("\nRule: {}\n", rule);
  return text + "\n";
}

}  // namespace

std::string describe(const Registry& registry, std::string_view kind, std::string_view name) {
  const Entry& entry = registry.entry(kind, name);
  Describer d;
  entry.declare(d);
  const std::string preset = preset_text(registry, kind, entry);
  return fmt::format("{} {} ({})\n  {}\n{}\n{}{}", registry.current_kind(kind), registry.current(kind, name), entry.origin, entry.doc,
                     preset.empty() ? "" : "  " + preset + "\n", indented(entry.notes), table(d));
}

std::string describe_markdown(const Registry& registry, std::string_view kind, std::string_view name) {
  const Entry& entry = registry.entry(kind, name);
  Describer d;
  entry.declare(d);
  std::string text = fmt::format("### {}\n\n{}\n\n", registry.current(kind, name), entry.doc);
  if (const std::string preset = preset_text(registry, kind, entry); !preset.empty()) text += fmt::format("{}.\n\n", preset);
  if (!entry.notes.empty()) text += fmt::format("```text\n{}```\n\n", entry.notes);
  return text + (d.rows.empty() ? "No parameters.\n\n" : markdown_table(d, "parameter"));
}

std::vector<Section> sections(const Entry::Declare& root) {
  Describer all;
  root(all);
  return all.sections;
}

Section section_named(const Entry::Declare& root, const std::string& name) {
  std::vector<Section> ending;
  std::vector<std::string> names;
  for (Section& section : sections(root)) {
    if (section.path == name) return section;
    names.push_back(section.path);
    if (section.path.ends_with("." + name)) ending.push_back(std::move(section));
  }
  if (ending.size() == 1) return ending[0];
  if (ending.empty()) throw ConfigError(fmt::format("unknown section '{}'{}", name, hint(name, names)));
  std::vector<std::string> several;
  several.reserve(ending.size());
  for (const Section& section : ending) several.push_back(section.path);
  throw ConfigError(fmt::format("'{}' is the name of several sections; which of {}?", name, fmt::join(several, ", ")));
}

std::string describe(const Entry::Declare& root, const Section& section) {
  return fmt::format("section {}\n  {}\n\n{}", section.path, section.doc, table(within_section(root, section.path)));
}

std::string describe_markdown(const Entry::Declare& root, const Section& section) {
  return fmt::format("### {}\n\n{}\n\n{}", section.path, section.doc, markdown_table(within_section(root, section.path), "key"));
}

std::string reference_markdown(const Registry& registry, const Entry::Declare& root, std::string_view note) {
  std::string text = fmt::format("# Reference\n\n{}\n\n## Sections of a configuration\n\n", note);
  text +=
      "A configuration has one of `model`, `classifier` and `autoencoder`, and the other sections. `plugins` is a list of "
      "libraries\n"
      "to load. `include: FILE` (or a list), in any map, adds the keys of a file; the keys of the map itself override them.\n\n";
  for (const Section& section : sections(root))
    if (section.path.find('.') == std::string::npos) text += describe_markdown(root, section);
  for (const std::string& kind : registry.kinds()) {
    text += fmt::format("## {}\n\n", kind);
    for (const std::string& name : registry.names(kind)) text += describe_markdown(registry, kind, name);
  }
  return text;
}

}  // namespace brume
