// brume conform: measures what a plugin promises.
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/suggest.h"
#include "brume/config/yaml.h"
#include "brume/diffusion/conform.h"
#include "commands/program.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string kind, name, noise = "linear";
  bool markdown = false;
};

struct Result {
  std::string name;
  std::vector<Finding> findings;
  int order = 0;
  bool holds() const {
    return std::all_of(findings.begin(), findings.end(), [](const Finding& f) { return f.holds; });
  }
};

/// A plugin by name or as {type: …}.
template <class I>
std::shared_ptr<const I> make(const Program& program, const std::string& text) {
  const Recipe recipe = read_plugin(program.registry, I::kind, parse_yaml(text, "command line"), std::string(I::kind));
  return std::static_pointer_cast<const I>(recipe.make(nullptr));
}

Result measure(const Program& program, const Arguments& a, const std::string& name) {
  Result r{name, {}, 0};
  if (a.kind == Sampler::kind) {
    const auto sampler = make<Sampler>(program, name);
    r.findings = conform(*sampler);
    r.order = sampler->traits().order;
  } else if (a.kind == NoiseSchedule::kind) {
    r.findings = conform(*make<NoiseSchedule>(program, name));
  } else {
    const auto schedule = make<NoiseSchedule>(program, a.noise);
    r.findings = a.kind == Spacing::kind ? conform(*make<Spacing>(program, name), *schedule)
                                         : conform(*make<Parameterization>(program, name), *schedule);
  }
  return r;
}

void print(const Result& r) {
  fmt::print("{}\n", r.name);
  for (const Finding& f : r.findings)
    fmt::print("  {}  {:<42} {:<34} {}\n", f.holds ? "ok  " : "FAIL", f.law, f.measured, f.wanted.empty() ? "" : "(" + f.wanted + ")");
}

/// One row a plugin, one column a law; what a plugin does not promise stays empty.
void print_markdown(const std::vector<Result>& results, const Arguments& a) {
  std::vector<std::string> laws;  // in the order of the plugin that promises most
  std::vector<Result> by_promise = results;
  std::stable_sort(by_promise.begin(), by_promise.end(),
                   [](const Result& x, const Result& y) { return x.findings.size() > y.findings.size(); });
  for (const Result& r : by_promise)
    for (const Finding& f : r.findings)
      if (std::find(laws.begin(), laws.end(), f.law) == laws.end()) laws.push_back(f.law);
  std::string head = "| " + a.kind + " |", rule = "|---|";
  for (const std::string& law : laws) head += " " + law + " |", rule += "---|";
  fmt::print("{} verdict |\n{}---|\n", head, rule);
  for (const Result& r : results) {
    std::string row = "| `" + r.name + "` |";
    for (const std::string& law : laws) {
      const auto f = std::find_if(r.findings.begin(), r.findings.end(), [&](const Finding& x) { return x.law == law; });
      row += f == r.findings.end() ? " |" : fmt::format(" {}{} |", f->measured, f->holds ? "" : " **fails**");
    }
    fmt::print("{} {} |\n", row, r.holds() ? "holds" : "fails");
  }
}

int conform_plugins(Program& program, const Arguments& a) {
  const std::vector<std::string> kinds{"noise_schedule", "parameterization", "sampler", "spacing"};
  if (std::find(kinds.begin(), kinds.end(), a.kind) == kinds.end())
    throw ConfigError(fmt::format("no laws are measured of kind '{}'{}", a.kind, hint(a.kind, kinds)));
  std::vector<std::string> names{a.name};
  if (a.name.empty()) {
    names = program.registry.names(a.kind);
    std::erase(names, "explicit");  // a list that only its user has
  }
  std::vector<Result> results;
  for (const std::string& name : names) {
    results.push_back(measure(program, a, name));
    if (!a.markdown) print(results.back());
  }
  if (a.markdown) print_markdown(results, a);
  const auto failing = std::count_if(results.begin(), results.end(), [](const Result& r) { return !r.holds(); });
  if (!a.markdown) fmt::print("{}\n", failing == 0 ? "every law holds" : fmt::format("{} of {} fail", failing, results.size()));
  return failing == 0 ? 0 : 1;
}

}  // namespace

void add_conform(CLI::App& app, Program& program, int& code) {
  auto* command = app.add_subcommand("conform", "measure what a sampler, spacing, noise schedule or parameterization promises");
  auto a = std::make_shared<Arguments>();
  command->add_option("kind", a->kind, "sampler, spacing, noise_schedule or parameterization")->required();
  command->add_option("name", a->name, "a name, or {type: ddim, eta: 1}; every one of the kind where absent");
  command->add_option("--noise", a->noise, "the noise schedule a spacing or parameterization is measured on");
  command->add_flag("--markdown", a->markdown, "print a table for documents");
  command->callback([&program, &code, a] { code = conform_plugins(program, *a); });
}

}  // namespace brume::tools
