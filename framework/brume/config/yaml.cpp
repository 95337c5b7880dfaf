#include "brume/config/yaml.h"
#include "brume/config/file_hint.h"
#include "brume/config/number.h"
#include "brume/config/utf8.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "brume/config/counted.h"

namespace brume {
namespace {

using File = std::shared_ptr<const std::string>;

[[noreturn]] void fail(const Place& place, std::string message) {
  throw ConfigError(std::vector<Problem>{{place, "", std::move(message)}});
}

/// Builds the tree from yaml-cpp's events: its own node type forgets duplicate keys.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(File file) : file_(std::move(file)) {}
  Value root;
  std::vector<Problem> problems;

  /// Returns the beginning of the innermost open list or map.
  std::optional<Place> open(Value::Type type) const {
    for (auto frame = stack_.rbegin(); frame != stack_.rend(); ++frame)
      if (frame->value.type == type) return frame->value.place;
    return std::nullopt;
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& m, YAML::anchor_t a) override {
    Value v;
    v.place = at(m);
    add(std::move(v), a);
  }
  void OnAlias(const YAML::Mark& m, YAML::anchor_t a) override {
    constexpr size_t most = 1000000;  // what a few lines of aliases of aliases could become has no bound
    const Anchor& anchor = anchors_[a];
    copied_ += anchor.values;
    if (copied_ > most) fail(at(m), fmt::format("this alias makes more than {} of the file", counted(most, "value")));
    Value v = anchor.value;
    v.place = at(m);
    add(std::move(v), 0, anchor.values);
  }
  void OnScalar(const YAML::Mark& m, const std::string& tag, YAML::anchor_t a, const std::string& text) override {
    Value v = Value::text(text, tag == "!");
    v.place = at(m);
    if (!v.quoted && (text == "null" || text == "~" || text == "Null" || text == "NULL")) v.type = Value::Type::null;
    add(std::move(v), a);
  }
  void OnSequenceStart(const YAML::Mark& m, const std::string&, YAML::anchor_t a, YAML::EmitterStyle::value) override {
    begin(Value::list(), m, a);
  }
  void OnSequenceEnd() override { end(); }
  void OnMapStart(const YAML::Mark& m, const std::string&, YAML::anchor_t a, YAML::EmitterStyle::value) override {
    begin(Value::map(), m, a);
  }
  void OnMapEnd() override { end(); }

 private:
  struct Frame {
    Value value;
    YAML::anchor_t anchor;
    size_t values = 1;  ///< within it, itself counted
    bool have_key = false;
    std::string key{};
    Place key_place{};
    std::unordered_map<std::string, int> lines{};  ///< of its keys
  };
  struct Anchor {
    Value value;
    size_t values = 0;
  };
  Place at(const YAML::Mark& m) const { return {file_, m.line + 1, m.column + 1}; }
  void begin(Value v, const YAML::Mark& m, YAML::anchor_t a) {
    v.place = at(m);
    stack_.push_back({std::move(v), a});
  }
  void end() {
    Frame done = std::move(stack_.back());
    stack_.pop_back();
    add(std::move(done.value), done.anchor, done.values);
  }
  void add(Value v, YAML::anchor_t a, size_t values = 1) {
    if (a) anchors_[a] = {v, values};
    if (stack_.empty()) {
      root = std::move(v);
      return;
    }
    Frame& top = stack_.back();
    top.values += values;
    if (top.value.is_list()) {
      top.value.items.push_back(std::move(v));
    } else if (!top.have_key) {
      top.have_key = true;
      if (v.is_list() || v.is_map()) problems.push_back({v.place, "", "a key must be a plain word"});
      top.key = v.scalar;
      top.key_place = v.place;
    } else {
      top.have_key = false;
      const auto [first, fresh] = top.lines.emplace(top.key, top.key_place.line);
      if (fresh)
        top.value.entries.push_back({top.key, top.key_place, std::move(v)});
      else
        problems.push_back({top.key_place, "", fmt::format("key '{}' is given twice; the first is at line {}", top.key, first->second)});
    }
  }
  File file_;
  std::vector<Frame> stack_;
  std::map<YAML::anchor_t, Anchor> anchors_;
  size_t copied_ = 0;  ///< values, by aliases
};

/// Throws ConfigError for a tab, which yaml-cpp calls an "illegal map value", or takes for part of a word.
void refuse_tabs(std::string_view text, const File& file) {
  int line = 1;
  for (size_t start = 0; start < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view row = text.substr(start, end - start);
    const size_t indent = row.find_first_not_of(" \t");
    const size_t tab = row.find('\t');
    if (tab != std::string_view::npos && indent != std::string_view::npos && tab < indent && row[indent] != '#')
      fail({file, line, int(tab) + 1}, "a tab in the indentation; YAML is indented with spaces");
    start = end + 1;
  }
}

/// Throws ConfigError if the text is not UTF-8, which could not be written again, into a run's config.yaml or a model's file.
void refuse_other_encodings(std::string_view text, const File& file) {
  const std::optional<size_t> at = invalid_utf8(text);
  if (!at) return;
  const std::string_view before = text.substr(0, *at);
  const size_t row = before.rfind('\n') + 1;  // npos + 1 is 0
  fail({file, int(std::count(before.begin(), before.end(), '\n')) + 1, int(*at - row) + 1}, "is not UTF-8");
}

[[noreturn]] void refuse(const YAML::Exception& e, const Builder& builder, const File& file) {
  // yaml-cpp notices a missing bracket at the end of the file, and does not say at which place.
  const bool list = e.msg == YAML::ErrorMsg::END_OF_SEQ_FLOW, map = e.msg == YAML::ErrorMsg::END_OF_MAP_FLOW;
  const auto began = list || map ? builder.open(list ? Value::Type::list : Value::Type::map) : std::nullopt;
  if (began) fail(*began, fmt::format("not YAML: the '{}' here is not closed, or a comma is missing after it", list ? '[' : '{'));
  fail({file, e.mark.line + 1, e.mark.column + 1}, "not YAML: " + e.msg);
}

std::filesystem::path find_part(const std::filesystem::path& from, const Value& name) {
  namespace fs = std::filesystem;
  const fs::path folder = from.parent_path().empty() ? "." : from.parent_path();
  std::vector<fs::path> tried{folder / name.scalar};
  fs::path up = fs::absolute(folder).lexically_normal();
  for (int i = 0; i < 3 && up.has_relative_path(); ++i, up = up.parent_path()) tried.push_back(up / "parts" / name.scalar);
  for (const fs::path& p : tried)
    if (fs::is_regular_file(p)) return p.lexically_normal();
  std::string places;
  for (const fs::path& p : tried) places += (places.empty() ? "" : ", ") + p.lexically_normal().string();
  fail(name.place, fmt::format("include: no file '{}' (looked for {})", name.scalar, places));
}

Value load(const std::filesystem::path& file, std::vector<std::filesystem::path>& open);

void resolve_includes(Value& node, const std::filesystem::path& file, std::vector<std::filesystem::path>& open) {
  for (Value& v : node.items) resolve_includes(v, file, open);
  for (Value::Entry& e : node.entries) resolve_includes(e.value, file, open);
  const Value* include = node.find("include");
  if (!include) return;
  std::vector<Value> names = include->is_list() ? include->items : std::vector<Value>{*include};
  Value base = Value::map();
  for (const Value& name : names) {
    if (!name.is_scalar()) fail(name.place, fmt::format("include: expected the name of a file, got {}", name.kind_text()));
    const std::filesystem::path part = find_part(file, name);
    for (const auto& p : open)
      if (std::filesystem::equivalent(p, part)) fail(name.place, fmt::format("include: '{}' includes itself", part.string()));
    const Value read = load(part, open);
    if (!read.is_map()) fail(name.place, fmt::format("include: '{}' is not a map", part.string()));
    base = merge(std::move(base), read);
  }
  node.erase("include");
  node = merge(std::move(base), node);
}

Value load(const std::filesystem::path& file, std::vector<std::filesystem::path>& open) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (!in || std::filesystem::is_directory(file) || !(text << in.rdbuf())) {
    if (in && std::filesystem::is_regular_file(file) && std::filesystem::file_size(file) == 0) return Value::map();
    throw ConfigError(
        fmt::format("{}: cannot be read (in {}){}", file.string(), std::filesystem::current_path().string(), file_hint(file)));
  }
  Value root = parse_yaml(text.str(), file.string());
  open.push_back(file);
  resolve_includes(root, file, open);
  open.pop_back();
  return root;
}

bool plain_is_safe(const Value& v) {
  const std::string& s = v.scalar;
  if (s.empty() || s.front() == ' ' || s.back() == ' ') return false;
  const bool control = std::any_of(s.begin(), s.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (control || s.find_first_of(":#{}[],&*!|>'\"%@`\\") != std::string::npos || s.front() == '-' || s.front() == '?') {
    return !v.quoted && parse_signed_number<double>(s);  // negative numbers and exponents are fine as they are
  }
  if (!v.quoted) return true;
  static const char* const words[] = {"true", "false", "null", "~", "yes", "no", "on", "off", "Null", "NULL"};
  for (const char* w : words)
    if (s == w) return false;
  return !parse_signed_number<double>(s);  // a string that looks like a number keeps its quotes
}

std::string scalar_text(const Value& v) {
  if (v.is_null()) return "null";
  if (plain_is_safe(v)) return v.scalar;
  std::string text = "\"";
  for (const char c : v.scalar) {
    if (c == '"' || c == '\\')
      text += '\\', text += c;
    else if (c == '\n')
      text += "\\n";
    else if (c == '\t')
      text += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20)
      text += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    else
      text += c;
  }
  return text + "\"";
}

/// Returns true for a list that is best written in one line: of plain values, or of lists.
bool flat(const Value& v) {
  for (const Value& i : v.items)
    if (i.is_list()) return true;
  for (const Value& i : v.items)
    if (i.is_map()) return false;
  return true;
}

/// Returns {a: 1, b: [2, 3]}.
std::string flow(const Value& v) {
  std::string text;
  for (const Value& item : v.items) text += (text.empty() ? "" : ", ") + flow(item);
  for (const Value::Entry& e : v.entries) text += (text.empty() ? "" : ", ") + scalar_text(Value::text(e.key, true)) + ": " + flow(e.value);
  return v.is_list() ? "[" + text + "]" : v.is_map() ? "{" + text + "}" : scalar_text(v);
}

void dump(const Value& v, int indent, std::string& out) {
  const std::string pad(size_t(indent), ' ');
  for (const Value::Entry& e : v.entries) {
    out += pad + scalar_text(Value::text(e.key, true)) + ":";
    if (e.value.is_map() && !e.value.entries.empty()) {
      out += "\n";
      dump(e.value, indent + 2, out);
    } else if (e.value.is_map()) {
      out += " {}\n";
    } else if (e.value.is_list() && flat(e.value)) {
      out += " " + flow(e.value) + "\n";
    } else if (e.value.is_list()) {
      out += "\n";
      for (const Value& item : e.value.items) {
        std::string body;
        if (item.is_map() && !item.entries.empty())
          dump(item, indent + 4, body);
        else
          body = std::string(size_t(indent) + 4, ' ') + (item.is_map() ? "{}" : scalar_text(item)) + "\n";
        body[size_t(indent) + 2] = '-';
        out += body;
      }
    } else {
      out += " " + scalar_text(e.value) + "\n";
    }
  }
}

void mark_stored(Value& value) {
  value.place.stored = true;
  for (Value& item : value.items) mark_stored(item);
  for (Value::Entry& entry : value.entries) {
    entry.place.stored = true;
    mark_stored(entry.value);
  }
}

}  // namespace

Value parse_yaml(std::string_view text, const std::string& name) {
  const File file = std::make_shared<const std::string>(name);
  refuse_other_encodings(text, file);
  refuse_tabs(text, file);
  std::istringstream in{std::string(text)};
  Builder builder(file);
  try {
    YAML::Parser parser(in);
    if (!parser.HandleNextDocument(builder)) {
      Value empty = Value::map();
      empty.place = {file, 1, 1};
      return empty;
    }
    Builder rest(file);
    if (parser.HandleNextDocument(rest)) fail(rest.root.place, "a second YAML document; one file is one configuration");
  } catch (const YAML::Exception& e) {
    refuse(e, builder, file);
  }
  if (!builder.problems.empty()) throw ConfigError(builder.problems);
  return std::move(builder.root);
}

Value parse_stored_yaml(std::string_view text, const std::string& name) {
  Value root = parse_yaml(text, name);
  mark_stored(root);
  return root;
}

Value load_yaml(const std::filesystem::path& file) {
  std::vector<std::filesystem::path> open;
  return load(file, open);
}

std::string dump_yaml(const Value& value) {
  std::string out;
  dump(value, 0, out);
  return out;
}

}  // namespace brume
