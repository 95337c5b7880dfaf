// brume plot spacing: the sigmas of the steps of a run, one row per spacing.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "brume/config/counted.h"
#include "brume/core/spacing.h"
#include "plot/csv.h"
#include "plot/plot.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::vector<std::string> spacings;
  std::string noise = "scaled_linear";
  int64_t steps = 20;
  PlotFiles files;
};

struct Row {
  std::string label;
  std::vector<double> sigmas;  ///< the last one is the end of the run
};

std::vector<Row> rows_of(const std::vector<Named<Spacing>>& spacings, const NoiseSchedule& schedule, const Arguments& a) {
  std::vector<Row> rows;
  for (const auto& [label, spacing] : spacings) try {
      rows.push_back({label, spacing->sigmas(schedule, a.steps)});
    } catch (const ConfigError& e) {
      leave_out(label, one_line(e));
    }
  if (rows.empty())
    throw ConfigError(fmt::format("there is nothing to draw: every spacing refuses {} on {}", counted(a.steps, "step"), a.noise));
  return rows;
}

std::string table_of(const std::vector<Row>& rows, const NoiseSchedule& schedule) {
  std::string text = "spacing,step,sigma,t\n";  // no time has sigma = 0: its cell is empty
  for (const Row& row : rows)
    for (size_t i = 0; i < row.sigmas.size(); ++i) {
      const double sigma = row.sigmas[i];
      fmt::format_to(std::back_inserter(text), "{},{},{},{}\n", csv_cell(row.label), i, sigma,
                     sigma > 0 ? fmt::format("{}", schedule.time(sigma)) : "");
    }
  return text;
}

/// Returns the rows along an axis; `place` maps a sigma above 0 to a place on it, `zero` is the place of 0, beyond `border`.
template <class F>
Panel panel_of(const std::vector<Row>& rows, Axis axis, double zero, double border, const F& place) {
  Series steps{"a step begins here", {}, {ink::blue, {}, Marker::disc}, false, true};
  Series ends{"the run ends here", {}, {ink::vermillion, {}, Marker::ring}, false, true};
  Panel panel{"", std::move(axis), {"", false, double(rows.size()) - 0.4, -0.6}, {}};
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<double>& sigmas = rows[i].sigmas;
    panel.y.ticks.push_back({double(i), shown(rows[i].label)});
    for (size_t k = 0; k + 1 < sigmas.size(); ++k) steps.points.push_back({place(sigmas[k]), double(i)});
    ends.points.push_back({sigmas.back() > 0 ? place(sigmas.back()) : zero, double(i)});
  }
  panel.series = {std::move(steps), std::move(ends)};
  // What is left of this line is off the scale.
  panel.series.push_back({"", {{border, panel.y.lo}, {border, panel.y.hi}}, {{190, 190, 190}, {2, 3}, Marker::disc}});
  return panel;
}

int plot_spacings(const Program& program, const Arguments& a) {
  const auto schedule = make<NoiseSchedule>(program.registry, a.noise);
  const std::vector<Row> rows = rows_of(chosen<Spacing>(program.registry, a.spacings), *schedule, a);
  double lo = schedule->sigma(schedule->t_min()), hi = schedule->sigma(schedule->t_max());
  for (const Row& row : rows)
    for (const double sigma : row.sigmas)
      if (sigma > 0) lo = std::min(lo, sigma), hi = std::max(hi, sigma);
  // 0 has no place on a logarithmic axis: it gets one next to the axis.
  const double zero = lo / std::pow(hi / lo, 0.07), margin = std::pow(hi / lo, 0.02), t_min = schedule->t_min(), t_max = schedule->t_max();
  Axis sigma{"sigma", true, zero / margin, hi * margin};
  for (Tick& t : round_ticks(lo, hi, true, 480)) sigma.ticks.push_back(std::move(t));
  sigma.ticks.insert(sigma.ticks.begin(), {zero, "0"});
  Panel left = panel_of(rows, sigma, zero, lo / std::pow(hi / lo, 0.04), [](double s) { return s; });
  left.title = fmt::format("{} on {}", counted(a.steps, "step"), label_of(a.noise));
  const double before = t_min - 0.07 * (t_max - t_min), room = 0.02 * (t_max - t_min);
  Axis time{"training time t", false, before - room, t_max + room, round_ticks(t_min, t_max, false, 480)};
  time.ticks.insert(time.ticks.begin(), {before, "end"});
  Panel right = panel_of(rows, time, before, t_min - 0.04 * (t_max - t_min), [&](double s) { return schedule->time(s); });
  right.title = "the same over training time";
  for (Tick& t : right.y.ticks) t.label = " ";  // its rows are those of the left panel

  double names = 0;
  for (const Row& row : rows) names = std::max(names, Canvas::text_width(shown(row.label), font::tick));
  constexpr double side = 500, row_height = 27, edge = 14;
  const double bottom = edge + 28 + row_height * double(rows.size()) + 48, second = edge + names + side + 40;
  const double width = second + side + edge;
  Canvas canvas(int64_t(bottom + legend_row + edge), int64_t(width));
  draw(canvas, {edge, edge, edge + names + side, bottom}, left);
  draw(canvas, {second, edge, second + side, bottom}, right);
  const Series &begins = left.series[0], &ends = left.series[1];
  const double at = (width - legend_width({begins}) - legend_width({ends}) - edge) / 2;
  draw_legend(canvas, {at, bottom + 6}, {begins});
  draw_legend(canvas, {at + legend_width({begins}) + edge, bottom + 6}, {ends});
  write_chart(a.files, canvas, table_of(rows, *schedule));
  return 0;
}

}  // namespace

void add_plot_spacing(Command plot, Program& program, int& code) {
  const Command command = plot.add_subcommand("spacing", "draws the sigmas of the steps of a run");
  auto a = std::make_shared<Arguments>();
  command.add_option("spacings", a->spacings, "names, or {type: karras, rho: 5}; by default all").type_name("NAME");
  command.add_option("--noise", a->noise, "the noise schedule").capture_default_str().type_name("NAME");
  command.add_option("--steps", a->steps, "steps of the run").capture_default_str().check(between(1, 1000));
  a->files.add_to(command);
  command.callback([&program, &code, a] { code = plot_spacings(program, *a); });
}

}  // namespace brume::tools
