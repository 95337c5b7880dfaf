// brume conform: measures the laws that plugins of a kind keep, and samplers at equal numbers of network calls.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "brume/config/suggest.h"
#include "brume/config/yaml.h"
#include "brume/conform/conform.h"
#include "commands/conform_calls.h"
#include "program/program.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string kind, noise = "linear";
  std::vector<std::string> names;
  std::vector<int64_t> calls;  ///< budgets of network calls; empty = the laws are measured
  bool markdown = false, json = false;
};

struct Result {
  std::string name;
  std::vector<Finding> findings;
  bool holds() const {
    return std::all_of(findings.begin(), findings.end(), [](const Finding& f) { return f.holds; });
  }
};

/// Makes a plugin from its name or {type: …}.
template <class I>
std::shared_ptr<const I> make(const Program& program, const Value& value) {
  return create<I>(program.registry, value);
}
template <class I>
std::shared_ptr<const I> make(const Program& program, const std::string& text) {
  return make<I>(program, parse_yaml(text, "command line"));
}

/// Makes the plugin with another value of one parameter; returns null if it has no such parameter or does not allow the value.
template <class I>
std::shared_ptr<const I> make_with(const Program& program, const Value& value, const std::string& parameter) {
  try {
    return make<I>(program, merge(value, parse_yaml("{" + parameter + "}", "command line")));
  } catch (const ConfigError&) {
    return nullptr;
  }
}

/// Returns the plugin's options. A plugin that opens another model gets a path if it has none: conform answers any path with an exact
/// model.
template <class I>
Value settings(const Program& program, const std::string& text) {
  Value value = parse_yaml(text, "command line");
  for (const char* key : {"model", "teacher"}) {
    const std::string path = std::string(key) + ": exact";
    if (!value.find(key) && make_with<I>(program, value, path)) value = merge(value, parse_yaml("{" + path + "}", "command line"));
  }
  return value;
}

std::vector<Finding> measure_guidance(const Program& program, const std::string& text) {
  make<Guidance>(program, text);  // for the error of an unknown name
  const Value value = settings<Guidance>(program, text);
  GuidanceAtScale at_scale;
  if (make_with<Guidance>(program, value, "scale: 1") || make_with<Guidance>(program, value, "scale: 0"))
    at_scale = [&](double scale) { return make_with<Guidance>(program, value, fmt::format("scale: {}", scale)); };
  return conform(*make<Guidance>(program, value), at_scale);
}

std::vector<Finding> measure_objective(const Program& program, const std::string& text) {
  make<Objective>(program, text);
  return conform(*make<Objective>(program, settings<Objective>(program, text)));
}

using Measure = std::vector<Finding> (*)(const Program&, const Arguments&, const std::string& name);

/// Returns how each kind is measured.
const std::map<std::string, Measure>& measures() {
  using A = Arguments;
  using S = std::string;
  static const std::map<std::string, Measure> all = {
      {"guidance", [](const Program& p, const A&, const S& name) { return measure_guidance(p, name); }},
      {"noise_schedule", [](const Program& p, const A&, const S& name) { return conform(*make<NoiseSchedule>(p, name)); }},
      {"objective", [](const Program& p, const A&, const S& name) { return measure_objective(p, name); }},
      {"parameterization", [](const Program& p, const A& a,
                              const S& name) { return conform(*make<Parameterization>(p, name), *make<NoiseSchedule>(p, a.noise)); }},
      {"sampler", [](const Program& p, const A&, const S& name) { return conform(*make<Sampler>(p, name)); }},
      {"spacing",
       [](const Program& p, const A& a, const S& name) { return conform(*make<Spacing>(p, name), *make<NoiseSchedule>(p, a.noise)); }},
  };
  return all;
}

void print(const Result& r) {
  fmt::print("{}\n", r.name);
  for (const Finding& f : r.findings) {
    fmt::print("  {}  {:<42} {:<34} {}\n", f.holds ? "ok  " : "FAIL", f.law.name, f.measured, f.wanted.empty() ? "" : "(" + f.wanted + ")");
    if (!f.holds) fmt::print("        {}{}\n", f.law.meaning, f.law.source.empty() ? "" : " (" + f.law.source + ")");
  }
}

/// One row per plugin, one column per law; a law that is not one of a plugin's is left empty.
void print_markdown(const std::vector<Result>& results, const std::string& kind) {
  std::vector<std::string> laws;  // in the order of the plugin that has most
  std::vector<Result> by_count = results;
  std::stable_sort(by_count.begin(), by_count.end(),
                   [](const Result& x, const Result& y) { return x.findings.size() > y.findings.size(); });
  for (const Result& r : by_count)
    for (const Finding& f : r.findings)
      if (std::find(laws.begin(), laws.end(), f.law.name) == laws.end()) laws.push_back(f.law.name);
  std::string head = "| " + kind + " |", rule = "|---|";
  for (const std::string& law : laws) head += " " + law + " |", rule += "---|";
  fmt::print("{} verdict |\n{}---|\n", head, rule);
  for (const Result& r : results) {
    std::string row = "| `" + r.name + "` |";
    for (const std::string& law : laws) {
      const auto f = std::find_if(r.findings.begin(), r.findings.end(), [&](const Finding& x) { return x.law.name == law; });
      row += f == r.findings.end() ? " |" : fmt::format(" {}{} |", f->measured, f->holds ? "" : " **fails**");
    }
    fmt::print("{} {} |\n", row, r.holds() ? "holds" : "fails");
  }
}

void print_json(const std::vector<Result>& results, const std::string& kind) {
  nlohmann::ordered_json plugins = nlohmann::ordered_json::array();
  for (const Result& r : results) {
    nlohmann::ordered_json laws = nlohmann::ordered_json::array();
    for (const Finding& f : r.findings)
      laws.push_back({{"law", f.law.name},
                      {"holds", f.holds},
                      {"measured", f.measured},
                      {"wanted", f.wanted},
                      {"meaning", f.law.meaning},
                      {"source", f.law.source}});
    plugins.push_back({{"name", r.name}, {"holds", r.holds()}, {"laws", laws}});
  }
  fmt::print("{}\n", nlohmann::ordered_json{{"kind", kind}, {"plugins", plugins}}.dump(1));
}

std::vector<std::string> measured_kinds() {
  std::vector<std::string> kinds;
  for (const auto& [kind, _] : measures()) kinds.push_back(kind);
  return kinds;
}

int conform_plugins(Program& program, const Arguments& a) {
  const std::string kind = program.registry.current_kind(a.kind);
  const auto measure = measures().find(kind);
  if (measure == measures().end())
    throw ConfigError(fmt::format("no laws are measured of kind '{}'{}", a.kind, hint(a.kind, measured_kinds())));
  std::vector<std::string> names = a.names;
  if (names.empty()) {
    names = program.registry.names(kind);
    std::erase(names, "explicit");  // has no default: it is a list of its user
  }
  if (!a.calls.empty()) {
    if (kind != Sampler::kind)
      throw ConfigError(
          fmt::format("--calls {}: counts the network calls of samplers, and '{}' is another kind", fmt::join(a.calls, ","), a.kind));
    return conform_calls(program, names, {a.calls, a.markdown, a.json});
  }
  const bool text = !a.markdown && !a.json;
  std::vector<Result> results;
  for (const std::string& name : names) {
    results.push_back({name, measure->second(program, a, name)});
    if (text) print(results.back());
  }
  if (a.markdown) print_markdown(results, kind);
  if (a.json) print_json(results, kind);
  const auto failing = std::count_if(results.begin(), results.end(), [](const Result& r) { return !r.holds(); });
  if (text) fmt::print("{}\n", failing == 0 ? "every law holds" : fmt::format("{} of {} fail", failing, results.size()));
  return failing == 0 ? 0 : 1;
}

}  // namespace

void add_conform(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("conform", "measures the laws that every correct plugin of a kind keeps");
  auto a = std::make_shared<Arguments>();
  command.add_option("kind", a->kind, "guidance, noise_schedule, objective, parameterization, sampler or spacing").required();
  command.add_option("name", a->names, "names, or {type: ddim, eta: 1}; every plugin of the kind if absent");
  command.add_option("--noise", a->noise, "the noise schedule that a spacing or parameterization is measured on");
  command
      .add_option("--calls", a->calls,
                  "instead of the laws, samplers at equal numbers of network calls, 8,16,32: the steps that fit and the Wasserstein-1 "
                  "distance of their samples to the data")
      .allow_extra_args(false)
      .delimiter(',')
      .check(between(1, 1000));
  const CommandOption markdown = command.add_flag("--markdown", a->markdown, "prints a table for documents");
  command.add_flag("--json", a->json, "for programs: one JSON object").excludes(markdown);
  command.callback([&program, &code, a] { code = conform_plugins(program, *a); });
}

}  // namespace brume::tools
