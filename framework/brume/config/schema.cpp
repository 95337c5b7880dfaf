// JSON Schema (draft 7) from the same declarations, so that an editor completes and checks a YAML file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "brume/config/registry.h"

namespace brume {
namespace {

using Json = nlohmann::ordered_json;

Json reference(std::string_view kind) { return {{"$ref", fmt::format("#/definitions/{}", kind)}}; }

void bound(Json& node, const Range& r) {
  if (!std::isinf(r.lo)) node[r.open_lo ? "exclusiveMinimum" : "minimum"] = r.lo;
  if (!std::isinf(r.hi)) node["maximum"] = r.hi;
}

class Schema final : public Fields {
 public:
  Schema() { stack_.push_back(object()); }
  Json take() { return std::move(stack_.front()); }

  void field(std::string_view n, bool& v, std::string_view d) override { add(n, {{"type", "boolean"}, {"default", v}}, d); }
  void field(std::string_view n, int64_t& v, std::string_view d, Range r) override { number(n, "integer", v, d, r); }
  void field(std::string_view n, double& v, std::string_view d, Range r) override { number(n, "number", v, d, r); }
  void field(std::string_view n, std::string& v, std::string_view d) override { add(n, {{"type", "string"}, {"default", v}}, d); }
  void field(std::string_view n, std::filesystem::path&, std::string_view d) override { add(n, {{"type", "string"}}, d); }
  void field(std::string_view n, std::optional<int64_t>&, std::string_view d, Range r) override { nullable(n, "integer", d, r); }
  void field(std::string_view n, std::optional<double>&, std::string_view d, Range r) override { nullable(n, "number", d, r); }
  void field(std::string_view n, std::vector<int64_t>& v, std::string_view d, Range r) override { list(n, "integer", v, d, r); }
  void field(std::string_view n, std::vector<double>& v, std::string_view d, Range r) override { list(n, "number", v, d, r); }
  void field(std::string_view n, std::vector<std::string>& v, std::string_view d) override { list(n, "string", v, d, Range{}); }
  void field(std::string_view n, std::map<std::string, std::string>&, std::string_view d) override {
    add(n, {{"type", "object"}, {"additionalProperties", {{"type", Json::array({"string", "number", "boolean"})}}}}, d);
  }
  void choice(std::string_view n, std::string& v, std::string_view d, std::vector<std::string> words) override {
    add(n, {{"enum", words}, {"default", v}}, d);
  }
  void renamed(std::string_view former, std::string_view name) override {
    former_.push_back({stack_.size(), std::string(former), std::string(name)});
  }
  void require(bool, std::string_view, std::string_view, std::string_view) override {}

 protected:
  void plugin(std::string_view n, std::string_view kind, std::string_view d, std::string_view fallback, Set) override {
    Json node{{"allOf", Json::array({reference(kind)})}};
    if (!fallback.empty())
      node["default"] = std::string(fallback);
    else if (!was_renamed(n))  // a former name is as good
      stack_.back()["required"].push_back(std::string(n));
    add(n, std::move(node), d);
  }
  void plugins(std::string_view n, std::string_view kind, std::string_view d, std::function<void()>, Set) override {
    const Json several{{"type", "array"}, {"items", reference(kind)}};
    add(n, {{"anyOf", Json::array({several, reference(kind)})}}, d);  // one may stand for a list of one
  }
  void section_list(std::string_view n, std::string_view d, std::function<void()>, std::function<void()> declare) override {
    stack_.push_back(object());
    declare();
    Json item = std::move(stack_.back());
    stack_.pop_back();
    add(n, {{"type", "array"}, {"items", std::move(item)}}, d);
  }
  bool open(std::string_view n, std::string_view d, bool) override {
    names_.emplace_back(n, d);
    stack_.push_back(object());
    return true;
  }
  void close() override {
    Json node = std::move(stack_.back());
    std::erase_if(former_, [&](const Former& f) { return f.depth == stack_.size(); });
    stack_.pop_back();
    const auto [name, doc] = names_.back();
    names_.pop_back();
    node.erase("required");  // a part may be completed by an include
    add(name, std::move(node), doc);
  }

 private:
  static Json object() {
    Json node{{"type", "object"}, {"additionalProperties", false}, {"properties", Json::object()}, {"required", Json::array()}};
    node["properties"]["include"] = {{"type", Json::array({"string", "array"})}, {"description", "a part laid under these keys"}};
    return node;
  }
  void add(std::string_view n, Json node, std::string_view doc) {
    node["description"] = std::string(doc);
    for (const Former& f : former_)
      if (f.depth == stack_.size() && f.name == n) {
        Json old = node;
        old["description"] = fmt::format("former name of {}", n);
        old["deprecated"] = true;
        stack_.back()["properties"][f.former] = std::move(old);
      }
    stack_.back()["properties"][std::string(n)] = std::move(node);
  }
  bool was_renamed(std::string_view n) const {
    return std::any_of(former_.begin(), former_.end(), [&](const Former& f) { return f.depth == stack_.size() && f.name == n; });
  }
  template <class T>
  void number(std::string_view n, const char* type, T v, std::string_view d, const Range& r) {
    Json node{{"type", type}};
    if (std::isfinite(double(v))) node["default"] = v;
    bound(node, r);
    add(n, std::move(node), d);
  }
  void nullable(std::string_view n, const char* type, std::string_view d, const Range& r) {
    Json node{{"type", Json::array({type, "null"})}};
    bound(node, r);
    add(n, std::move(node), d);
  }
  template <class T>
  void list(std::string_view n, const char* type, const std::vector<T>& v, std::string_view d, const Range& r) {
    Json item{{"type", type}};
    bound(item, r);
    add(n, {{"type", "array"}, {"items", item}, {"default", v}}, d);
  }
  struct Former {
    size_t depth;
    std::string former, name;
  };
  std::vector<Json> stack_;
  std::vector<Former> former_;
  std::vector<std::pair<std::string, std::string>> names_;
};

Json former_names(const Registry& registry, const std::string& kind) {
  Json all = Json::array();
  for (const std::string& name : registry.names(kind))
    for (const std::string& former : registry.former_names(kind, name)) all.push_back(former);
  return all;
}

/// Returns the key `type` of a plugin: its name, or a former one.
Json type_of(const Registry& registry, const std::string& kind, const std::string& name) {
  const std::string& doc = registry.entry(kind, name).doc;
  const Json now{{"const", name}, {"description", doc}};
  const std::vector<std::string> former = registry.former_names(kind, name);
  if (former.empty()) return now;
  return {{"anyOf", Json::array({now, {{"enum", former}, {"deprecated", true}}})}, {"description", doc}};
}

}  // namespace

std::string json_schema(const Registry& registry, const Entry::Declare& root) {
  Schema top;
  root(top);
  Json schema = top.take();
  schema["$schema"] = "http://json-schema.org/draft-07/schema#";
  schema["title"] = "brume configuration";
  schema.erase("required");
  schema["properties"]["sweep"] = {{"type", "object"}, {"description", "for `brume sweep`: what differs from run to run (docs/sweeps.md)"}};
  Json& definitions = schema["definitions"] = Json::object();
  for (const std::string& kind : registry.kinds()) {
    Json any = Json::array();
    any.push_back({{"enum", registry.names(kind)}});
    if (const Json former = former_names(registry, kind); !former.empty()) any.push_back({{"enum", former}, {"deprecated", true}});
    for (const std::string& name : registry.names(kind)) {
      Schema one;
      registry.entry(kind, name).declare(one);
      Json node = one.take();
      node["properties"]["type"] = type_of(registry, kind, name);
      node["required"] = Json::array({"type"});
      any.push_back(std::move(node));
    }
    any.push_back({{"type", "object"}, {"required", Json::array({"include"})}});
    definitions[kind] = {{"anyOf", std::move(any)}};
  }
  return schema.dump(1) + "\n";
}

}  // namespace brume
