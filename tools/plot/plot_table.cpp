// brume plot table FILE.csv: one column over another, a line for each value of a third.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "brume/config/counted.h"
#include "plot/csv.h"
#include "plot/plot.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string file, x, y, by, title;
  bool log_x = false, log_y = false;
  PlotFiles files;
};

constexpr size_t most_lines = 28;    // as many as there are styles
constexpr size_t most_markers = 45;  // on one line, before they hide it

double number_on(const Csv& csv, const Csv::Row& row, size_t column, bool log) {
  const double value = csv.number(row, column);
  if (log && !(value > 0))
    throw ConfigError(fmt::format("{}:{}: column '{}': {} has no place on a logarithmic axis, which begins above 0", csv.path, row.line,
                                  csv.columns[column], row.cells[column]));
  return value;
}

/// Returns one line per value of `by`, in the order of the file; each from left to right.
std::vector<Series> lines_of(const Csv& csv, const Arguments& a) {
  const size_t x = csv.column(a.x, "--x"), y = csv.column(a.y, "--y");
  const size_t by = a.by.empty() ? csv.columns.size() : csv.column(a.by, "--by");
  std::vector<Series> lines;
  int64_t empty = 0;
  for (const Csv::Row& row : csv.rows) {
    if (row.cells[x].empty() || row.cells[y].empty()) {
      ++empty;
      continue;
    }
    const std::string name = by < row.cells.size() ? row.cells[by] : "";
    auto line = std::find_if(lines.begin(), lines.end(), [&](const Series& s) { return s.name == name; });
    if (line == lines.end()) line = lines.insert(line, {name, {}, style(lines.size()), true, true});
    line->points.push_back({number_on(csv, row, x, a.log_x), number_on(csv, row, y, a.log_y)});
  }
  if (empty > 0) fmt::print("rows left out for an empty cell: {}\n", empty);
  if (lines.empty()) throw ConfigError(fmt::format("{}: no row has a number in both '{}' and '{}'", csv.path, a.x, a.y));
  if (lines.size() > most_lines)
    throw ConfigError(fmt::format("--by: '{}' has {}, and a chart has at most {} that can be distinguished", a.by,
                                  counted(lines.size(), "value"), counted(most_lines, "line")));
  for (Series& s : lines) {
    std::stable_sort(s.points.begin(), s.points.end(), [](const Point& p, const Point& q) { return p.x < q.x; });
    s.markers = s.points.size() <= most_markers;
  }
  return lines;
}

std::string table_of(const std::vector<Series>& lines, const Arguments& a) {
  std::string text = fmt::format("{}{},{}\n", a.by.empty() ? "" : csv_cell(a.by) + ",", csv_cell(a.x), csv_cell(a.y));
  for (const Series& s : lines)
    for (const Point& p : s.points)
      fmt::format_to(std::back_inserter(text), "{}{},{}\n", a.by.empty() ? "" : csv_cell(s.name) + ",", p.x, p.y);
  return text;
}

int plot_table(const Arguments& a) {
  const std::vector<Series> lines = lines_of(read_csv(a.file), a);
  constexpr double wide = 760, high = 500, margin = 16;
  const bool has_legend = !a.by.empty();
  const double column = has_legend ? std::max(legend_width(lines), Canvas::text_width(a.by, font::label)) + 2 * margin : margin;
  const double legend_height = has_legend ? 60 + legend_row * double(lines.size()) : 0;
  const double height = std::max(high, legend_height + 2 * margin);
  Canvas canvas(int64_t(height), int64_t(wide + column));
  draw(canvas, {margin, margin, wide, height - margin}, {a.title, {a.x, a.log_x}, {a.y, a.log_y}, lines});
  if (has_legend) {
    const double top = margin + (a.title.empty() ? 8 : 28);
    canvas.text(a.by, {wide + margin, top + font::label}, font::label, ink::text);
    draw_legend(canvas, {wide + margin, top + 18}, lines);
  }
  write_chart(a.files, canvas, table_of(lines, a));
  return 0;
}

}  // namespace

void add_plot_table(Command plot, Program&, int& code) {
  const Command command = plot.add_subcommand("table", "draws a line chart of a table");
  auto a = std::make_shared<Arguments>();
  command.add_option("file", a->file, "comma-separated values, the names of the columns first").required().type_name("FILE.csv");
  command.add_option("--x", a->x, "the column of the horizontal axis").required().type_name("COLUMN");
  command.add_option("--y", a->y, "the column of the vertical axis").required().type_name("COLUMN");
  command.add_option("--by", a->by, "a line for each value of this column").type_name("COLUMN");
  command.add_flag("--log-x", a->log_x, "makes the horizontal axis logarithmic");
  command.add_flag("--log-y", a->log_y, "makes the vertical axis logarithmic");
  command.add_option("--title", a->title, "above the chart");
  a->files.add_to(command);
  command.callback([&code, a] { code = plot_table(*a); });
}

}  // namespace brume::tools
