// brume plot schedule: alpha, sigma, log-SNR and alpha_bar over training time.
#include <fmt/format.h>

#include <iterator>

#include "plot/csv.h"
#include "plot/levels.h"
#include "plot/plot.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::vector<std::string> schedules;
  PlotFiles files;
};

std::vector<Series> curves(const std::vector<Named<NoiseSchedule>>& schedules, double NoiseLevel::*number) {
  std::vector<Series> all;
  for (size_t i = 0; i < schedules.size(); ++i) {
    Series s{schedules[i].label, {}, style(i)};
    for (const NoiseLevel& level : noise_levels(*schedules[i].plugin)) s.points.push_back({level.share, level.*number});
    all.push_back(std::move(s));
  }
  return all;
}

std::string table_of(const std::vector<Named<NoiseSchedule>>& schedules) {
  std::string text = "schedule,t,time,alpha,sigma,log_snr,alpha_bar\n";
  for (const auto& [label, schedule] : schedules)
    for (const NoiseLevel& l : noise_levels(*schedule))
      fmt::format_to(std::back_inserter(text), "{},{},{},{},{},{},{}\n", csv_cell(label), l.share, l.time, l.alpha, l.sigma, l.log_snr,
                     l.alpha_bar);
  return text;
}

int plot_schedules(const Program& program, const Arguments& a) {
  const auto schedules = chosen<NoiseSchedule>(program.registry, a.schedules);
  const Axis time{"training time, 0 to 1", false, 0, 1}, share{"", false, 0, 1.02};
  const std::vector<Series> alpha = curves(schedules, &NoiseLevel::alpha);
  std::vector<Panel> panels{{"signal rate alpha", {"", false, 0, 1}, share, alpha},
                            {"noise-to-signal ratio sigma", {"", false, 0, 1}, {"", true}, curves(schedules, &NoiseLevel::sigma)},
                            {"log-SNR = -2 log sigma", time, {"", false}, curves(schedules, &NoiseLevel::log_snr)},
                            {"alpha_bar = 1 / (1 + sigma^{2})", time, share, curves(schedules, &NoiseLevel::alpha_bar)}};
  for (Panel& p : panels) p.least_left = 30;
  constexpr double side = 440, high = 330, gap = 18, margin = 14;
  const double legend = 2 * (side + gap) + margin;
  const int64_t height = std::max<int64_t>(int64_t(2 * high + 2 * margin), int64_t(legend_row * double(alpha.size()) + 80));
  Canvas canvas(height, int64_t(legend + legend_width(alpha) + margin));
  for (size_t i = 0; i < panels.size(); ++i) {
    const bool is_right = i % 2 == 1, is_lower = i >= 2;
    const double left = margin + (is_right ? side + gap : 0), top = margin + (is_lower ? high : 0);
    // Only the lower panels have a name below, and all four are to be of one size.
    draw(canvas, {left, top, left + side, top + high - (panels[i].x.name.empty() ? 24 : 0)}, panels[i]);
  }
  draw_legend(canvas, {legend, margin + 28}, alpha);
  write_chart(a.files, canvas, table_of(schedules));
  return 0;
}

}  // namespace

void add_plot_schedule(Command plot, Program& program, int& code) {
  const Command command = plot.add_subcommand("schedule", "draws signal and noise over training time");
  auto a = std::make_shared<Arguments>();
  command.add_option("schedules", a->schedules, "names, or {type: flow, shift: 3}; by default all").type_name("NAME");
  a->files.add_to(command);
  command.callback([&program, &code, a] { code = plot_schedules(program, *a); });
}

}  // namespace brume::tools
