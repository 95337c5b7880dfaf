#include "brume/experiments/run_query.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"

namespace brume {
namespace {

RunValue of_number(double number) { return {fmt::format("{}", number), number}; }
RunValue of_text(const std::string& text) { return {text, parse_signed_number<double>(text)}; }

void require_known(const std::vector<RunRecord>& runs, const std::string& name, const std::string& option) {
  if (runs.empty()) return;
  std::set<std::string> names{"name", "state", "step", "steps"};
  for (const RunRecord& run : runs) {
    if (value_in(run, name)) return;
    for (const auto& [figure, value] : run.figures) names.insert(figure), names.insert("best." + figure);
    for (const auto& [key, value] : run.configuration) names.insert(key);
  }
  const std::string near = closest(name, {names.begin(), names.end()});
  throw ConfigError(fmt::format("{}: no run has '{}'{}", option, name, near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

struct Condition {
  std::string name, relation;
  RunValue value;
};

Condition condition_of(const std::string& text) {
  const size_t at = text.find_first_of("<>=!");
  const bool wide = at != text.npos && at + 1 < text.size() && text[at + 1] == '=';
  Condition c;
  if (at != text.npos) c = {text.substr(0, at), text.substr(at, wide ? 2 : 1), of_text(text.substr(at + (wide ? 2 : 1)))};
  const auto trim = [](std::string& s) {
    s.erase(0, std::min(s.find_first_not_of(' '), s.size()));
    s.erase(s.find_last_not_of(' ') + 1);
  };
  trim(c.name), trim(c.value.text);
  c.value = of_text(c.value.text);
  if (c.relation == "==") c.relation = "=";
  if (c.name.empty() || c.value.text.empty() || c.relation == "!")
    throw ConfigError(fmt::format("where: '{}' is no condition such as fid<10 or model.parameterization=v", text));
  if (!c.value.number && c.relation != "=" && c.relation != "!=")
    throw ConfigError(fmt::format("where: '{}' compares with {}, and '{}' is no number", text, c.relation, c.value.text));
  return c;
}

bool holds(const Condition& c, const RunRecord& run) {
  const auto value = value_in(run, c.name);
  if (!value) return false;
  const bool equal = c.value.number && value->number ? *c.value.number == *value->number : c.value.text == value->text;
  if (c.relation == "=") return equal;
  if (c.relation == "!=") return !equal;
  if (!value->number) return false;
  const double a = *value->number, b = *c.value.number;
  return c.relation == "<" ? a < b : c.relation == "<=" ? a <= b : c.relation == ">" ? a > b : a >= b;
}

}  // namespace

std::optional<RunValue> value_in(const RunRecord& run, const std::string& name) {
  if (name == "name") return RunValue{run.name};
  if (name == "state") return RunValue{text_of(run.state)};
  if (name == "step") return of_number(double(run.step));
  if (name == "steps") return of_number(double(run.steps));
  if (const auto f = run.figures.find(name); f != run.figures.end()) return of_number(f->second.last);
  if (name.starts_with("best."))
    if (const auto f = run.figures.find(name.substr(5)); f != run.figures.end()) return of_number(f->second.best);
  if (const auto key = run.configuration.find(name); key != run.configuration.end()) return of_text(key->second);
  const auto end =
      std::find_if(run.configuration.begin(), run.configuration.end(), [&](const auto& e) { return e.first.ends_with("." + name); });
  if (end != run.configuration.end()) return of_text(end->second);
  return {};
}

std::vector<RunRecord> filtered(std::vector<RunRecord> runs, const std::vector<std::string>& conditions) {
  std::vector<Condition> all;
  for (const std::string& text : conditions) all.push_back(condition_of(text));
  for (const Condition& c : all) require_known(runs, c.name, "where");
  std::erase_if(
      runs, [&](const RunRecord& run) { return !std::all_of(all.begin(), all.end(), [&](const Condition& c) { return holds(c, run); }); });
  return runs;
}

void sort_by(std::vector<RunRecord>& runs, const std::string& name, bool reverse) {
  require_known(runs, name, "sort");
  std::stable_sort(runs.begin(), runs.end(), [&](const RunRecord& a, const RunRecord& b) {
    const auto x = value_in(a, name), y = value_in(b, name);
    if (!x || !y) return bool(x);
    const bool numbers = x->number && y->number, differ = bool(x->number) != bool(y->number);
    const bool less = differ ? bool(x->number) : numbers ? *x->number < *y->number : x->text < y->text;
    const bool more = differ ? bool(y->number) : numbers ? *y->number < *x->number : y->text < x->text;
    return reverse ? more : less;
  });
}

std::vector<std::string> differing_keys(const std::vector<RunRecord>& runs) {
  std::set<std::string> differing;
  const auto readable = [](const RunRecord& run) { return !run.configuration.empty(); };
  const auto first = std::find_if(runs.begin(), runs.end(), readable);
  for (auto run = first; run != runs.end(); ++run) {
    if (!readable(*run)) continue;
    auto a = first->configuration.begin(), b = run->configuration.begin();
    const auto end_a = first->configuration.end(), end_b = run->configuration.end();
    while (a != end_a || b != end_b) {  // both are sorted by key
      const int order = a == end_a ? 1 : b == end_b ? -1 : a->first.compare(b->first);
      if (order != 0 || a->second != b->second) differing.insert(order <= 0 ? a->first : b->first);
      if (order <= 0) ++a;
      if (order >= 0) ++b;
    }
  }
  return {differing.begin(), differing.end()};
}

}  // namespace brume
