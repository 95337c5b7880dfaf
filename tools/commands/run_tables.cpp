#include "commands/run_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "brume/experiments/run_query.h"
#include "plot/csv.h"

namespace brume::tools {
namespace {

/// Keys that follow from the place of a run, not from what is trained.
bool of_no_interest(const std::string& key) { return key.ends_with(".class_names") || key.find(".class_names.") != key.npos; }

/// Figures of the optimizer, which a table of results leaves out; those of single noise levels too.
bool of_results(const std::string& figure) {
  for (const char* end : {"grad_norm", "lr", "ema_decay", "skipped_steps", "unread_images"})
    if (figure == end || figure.ends_with(std::string(".") + end)) return false;
  return !of_machine(figure) && !figure.starts_with("validation_loss_");
}

std::string number(double value) { return fmt::format("{:.6g}", value); }

std::string duration(double seconds) {
  const auto s = int64_t(seconds + 0.5);
  return s < 60     ? fmt::format("{} s", s)
         : s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                    : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string joined(const std::vector<std::string>& cells, const std::string& between) {
  std::string row;
  for (size_t i = 0; i < cells.size(); ++i) row += (i ? between : "") + cells[i];
  return row;
}

std::string markdown_cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != text.npos; at += 2) text.insert(at, "\\");
  return text.empty() ? " " : text;
}

/// Returns the columns that a terminal shows of UTF-8 text.
size_t width_of(const std::string& text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

RunTable table_of(const std::vector<RunRecord>& runs, bool times) {
  RunTable table{{"run", "state"}, {}};
  std::vector<std::string> keys = differing_keys(runs);
  std::erase_if(keys, of_no_interest);
  std::set<std::string> figures, improving;
  for (const RunRecord& run : runs)
    for (const auto& [name, f] : run.figures)
      if (of_results(name)) {
        figures.insert(name);
        if (f.best != f.last) improving.insert(name);
      }
  table.columns.insert(table.columns.end(), keys.begin(), keys.end());
  table.columns.push_back("step");
  if (times) table.columns.push_back("time");
  for (const std::string& name : figures) {
    table.columns.push_back(name);
    if (improving.contains(name)) table.columns.push_back("best." + name);
  }
  for (const RunRecord& run : runs) {
    std::vector<std::string> row{run.name, text_of(run.state)};
    for (const std::string& key : keys) row.push_back(run.configuration.contains(key) ? run.configuration.at(key) : "");
    row.push_back(run.steps > 0 && run.step != run.steps ? fmt::format("{} of {}", run.step, run.steps) : fmt::to_string(run.step));
    if (times) row.push_back(run.figures.contains("seconds") ? duration(run.figures.at("seconds").last) : "");
    for (const std::string& name : figures) {
      const auto f = run.figures.find(name);
      row.push_back(f == run.figures.end() ? "" : number(f->second.last));
      if (improving.contains(name)) row.push_back(f == run.figures.end() ? "" : number(f->second.best));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

RunTable differences_of(const RunRecord& a, const RunRecord& b) {
  RunTable table{{"", a.name, b.name}, {}};
  const auto of = [](const RunRecord& run, const std::string& key) {
    const auto at = run.configuration.find(key);
    return at == run.configuration.end() ? std::string("-") : at->second;
  };
  for (const std::string& key : differing_keys({a, b})) table.rows.push_back({key, of(a, key), of(b, key)});
  if (a.step != b.step) table.rows.push_back({"step", fmt::to_string(a.step), fmt::to_string(b.step)});
  std::set<std::string> names;
  for (const RunRecord* run : {&a, &b})
    for (const auto& [name, f] : run->figures)
      if (!of_machine(name)) names.insert(name);
  const auto figure = [](const RunRecord& run, const std::string& name) {
    return run.figures.contains(name) ? number(run.figures.at(name).last) : std::string("-");
  };
  for (const std::string& name : names)
    if (figure(a, name) != figure(b, name)) table.rows.push_back({name, figure(a, name), figure(b, name)});
  return table;
}

std::string as_text(const RunTable& table) {
  std::vector<size_t> widths;
  for (size_t i = 0; i < table.columns.size(); ++i) {
    widths.push_back(width_of(table.columns[i]));
    for (const auto& row : table.rows) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string row;
    for (size_t i = 0; i < cells.size(); ++i) row += (i ? "  " : "") + cells[i] + std::string(widths[i] - width_of(cells[i]), ' ');
    text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  return text;
}

std::string as_csv(const RunTable& table) {
  std::string text;
  const auto line = [&](std::vector<std::string> cells) {
    for (std::string& cell : cells) cell = csv_cell(cell);
    text += joined(cells, ",") + "\n";
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  return text;
}

std::string as_markdown(const RunTable& table) {
  std::string text;
  const auto line = [&](std::vector<std::string> cells) {
    for (std::string& cell : cells) cell = markdown_cell(cell);
    text += "| " + joined(cells, " | ") + " |\n";
  };
  line(table.columns);
  line(std::vector<std::string>(table.columns.size(), "---"));
  for (const auto& row : table.rows) line(row);
  return text;
}

}  // namespace brume::tools
