#include "commands/conform_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/yaml.h"
#include "brume/conform/equal_calls.h"

namespace brume::tools {
namespace {

using Json = nlohmann::ordered_json;

struct Row {
  std::string name, left_out;  ///< left_out: why it is not measured; empty = it is
  bool own_count = false;
  std::vector<EqualCalls> runs{};
};

Row measured(const Program& program, const std::string& name, const std::vector<int64_t>& budgets) {
  const auto sampler = create<Sampler>(program.registry, parse_yaml(name, "command line"));
  Row row{name, unsuited_for_equal_calls(*sampler), sampler->traits().own_count};
  if (row.left_out.empty()) row.runs = equal_calls(*sampler, budgets);
  return row;
}

/// Returns the calls per step of the longest run, "1.94"; "-" if no budget suffices for a step.
std::string calls_per_step(const Row& row) {
  const auto longest =
      std::max_element(row.runs.begin(), row.runs.end(), [](const EqualCalls& a, const EqualCalls& b) { return a.steps < b.steps; });
  return longest->steps == 0 ? "-" : fmt::format("{:.3g}", double(longest->calls) / double(longest->steps));
}

std::string cell(const EqualCalls& run) {
  if (run.steps == 0) return "-";
  return fmt::format("{:.4f} ({}, {})", run.error, counted(run.steps, "step"), counted(run.calls, "call"));
}

/// Returns what stands below the table of a sampler that is not in it.
std::string remark(const Row& row) {
  if (!row.left_out.empty()) return fmt::format("{} is left out: it {}", row.name, row.left_out);
  const EqualCalls& own = row.runs.front();
  return fmt::format("{} chooses the number of its steps: {:.4f} with {}", row.name, own.error, counted(own.calls, "call"));
}

bool in_table(const Row& row) { return row.left_out.empty() && !row.own_count; }

/// Prints a line per sampler as soon as it is measured.
void measure_to_text(const Program& program, const std::vector<std::string>& samplers, const std::vector<int64_t>& budgets) {
  size_t width = 8;
  for (const std::string& name : samplers) width = std::max(width, name.size());
  fmt::print("{:<{}} {:>10}", "", width, "calls/step");
  for (const int64_t budget : budgets) fmt::print("  {:<28}", fmt::format("W1 at {}", counted(budget, "call")));
  fmt::print("\n");
  std::vector<std::string> remarks;
  for (const std::string& name : samplers) {
    const Row row = measured(program, name, budgets);
    if (!in_table(row)) {
      remarks.push_back(remark(row));
      continue;
    }
    fmt::print("{:<{}} {:>10}", row.name, width, calls_per_step(row));
    for (const EqualCalls& run : row.runs) fmt::print("  {:<28}", cell(run));
    fmt::print("\n");
  }
  for (const std::string& text : remarks) fmt::print("{}\n", text);
}

void print_markdown(const std::vector<Row>& rows, const std::vector<int64_t>& budgets) {
  std::string head = "| sampler | calls per step |", rule = "|---|---|";
  for (const int64_t budget : budgets) head += fmt::format(" W1 at {} |", counted(budget, "call")), rule += "---|";
  fmt::print("{}\n{}\n", head, rule);
  for (const Row& r : rows) {
    if (!in_table(r)) continue;
    std::string line = fmt::format("| `{}` | {} |", r.name, calls_per_step(r));
    for (const EqualCalls& run : r.runs) line += fmt::format(" {} |", cell(run));
    fmt::print("{}\n", line);
  }
  fmt::print("\n");
  for (const Row& r : rows)
    if (!in_table(r)) fmt::print("- {}\n", remark(r));
}

Json json_of(const EqualCalls& run) {
  Json json = Json::object();
  if (run.budget > 0) json["budget"] = run.budget, json["steps"] = run.steps;
  if (run.calls > 0) json["calls"] = run.calls, json["error"] = run.error;
  if (run.steps > 0) json["calls_per_step"] = double(run.calls) / double(run.steps);
  return json;
}

void print_json(const std::vector<Row>& rows, const std::vector<int64_t>& budgets) {
  Json samplers = Json::array();
  for (const Row& r : rows) {
    Json sampler{{"name", r.name}};
    if (!r.left_out.empty()) {
      sampler["left_out"] = r.left_out;
    } else {
      sampler["own_count"] = r.own_count;
      sampler["runs"] = Json::array();
      for (const EqualCalls& run : r.runs) sampler["runs"].push_back(json_of(run));
    }
    samplers.push_back(sampler);
  }
  fmt::print("{}\n", Json{{"kind", "sampler"}, {"calls", budgets}, {"samplers", samplers}}.dump(1));
}

}  // namespace

int conform_calls(const Program& program, const std::vector<std::string>& samplers, const CallBudgets& budgets) {
  for (const std::string& name : samplers) create<Sampler>(program.registry, parse_yaml(name, "command line"));  // for their errors
  if (!budgets.json && !budgets.markdown) {
    measure_to_text(program, samplers, budgets.calls);
    return 0;
  }
  std::vector<Row> rows;
  for (const std::string& name : samplers) rows.push_back(measured(program, name, budgets.calls));
  budgets.json ? print_json(rows, budgets.calls) : print_markdown(rows, budgets.calls);
  return 0;
}

}  // namespace brume::tools
