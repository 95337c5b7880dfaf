// brume plot sampler: the paths of samplers on data with an exact denoiser, and how their error falls with the number of calls.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "brume/files/atomic_file.h"
#include "plot/csv.h"
#include "plot/plot.h"
#include "plot/sampler_paths.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::vector<std::string> samplers;
  std::string noise = "scaled_linear", spacing = "karras", paths;
  int64_t steps = 12;
  uint64_t seed = 0;
  PlotFiles files;
};

struct Path {
  std::string label;
  SamplerPaths of;
};

struct Curve {
  std::string label;
  std::vector<SamplerCost> costs;
};

struct Drawn {
  std::vector<Path> paths;
  std::vector<Curve> curves;
};

Drawn run_all(const std::vector<Named<Sampler>>& samplers, const PathSetting& setting, const Arguments& a) {
  Drawn drawn;
  ExactEnds exact(setting);
  for (const Named<Sampler>& sampler : samplers) {
    try {
      drawn.paths.push_back({sampler.label, paths_of(*sampler.plugin, setting, a.steps)});
    } catch (const ConfigError& e) {
      leave_out(sampler.label, one_line(e));
      continue;
    }
    if (has_order(*sampler.plugin)) drawn.curves.push_back({sampler.label, costs_of(*sampler.plugin, setting, exact)});
  }
  if (drawn.paths.empty()) throw ConfigError("there is nothing to draw: every sampler refuses");
  return drawn;
}

constexpr double reach = 3.05;  // of the panels: all of N(0, 1) and of the data

/// Returns the density in a few flat shades.
Image shades(const Mixture& data, int64_t side) {
  constexpr int levels = 6;
  Image image(side, side, 3);
  for (int64_t i = 0; i < side; ++i)
    for (int64_t j = 0; j < side; ++j) {
      const double scale = 2 * reach / double(side);
      const double density = data.density({(double(j) + 0.5) * scale - reach, reach - (double(i) + 0.5) * scale});
      const double shade = std::ceil(std::min(1.0, std::sqrt(density)) * levels - 0.25) / levels;
      const auto grey = uint8_t(std::lround(255 - 75 * std::max(0.0, shade)));
      std::fill_n(image.row(i) + 3 * j, 3, grey);
    }
  return image;
}

void draw_paths(Canvas& canvas, const Box& box, const Path& path, const Image& density) {
  canvas.picture(density, box);
  const auto place = [&](const Point& p) {
    return Point{box.left + (p.x / reach + 1) / 2 * box.width(), box.bottom - (p.y / reach + 1) / 2 * box.height()};
  };
  canvas.clip(box);
  for (const Point& p : path.of.samples) canvas.mark(Marker::disc, place(p), 0.8, ink::vermillion);
  for (const std::vector<PathMoment>& way : path.of.points) {
    std::vector<Point> line;
    line.reserve(way.size());
    for (const PathMoment& m : way) line.push_back(place(m.at));
    canvas.line(line, {ink::blue, 0.8, {}});
    for (const Point& p : line) canvas.mark(Marker::disc, p, 1.2, ink::blue);
    canvas.mark(Marker::disc, line.front(), 2.4, ink::text);
    canvas.mark(Marker::disc, line.back(), 2.6, ink::vermillion);
  }
  canvas.unclip();
  const Point a{box.left, box.top}, b{box.right, box.top}, c{box.right, box.bottom}, d{box.left, box.bottom};
  canvas.line({a, b, c, d, a}, {ink::axis, 0.8, {}});
  canvas.text(shown(path.label), {(box.left + box.right) / 2, box.top - 8}, box.width() < 150 ? font::tick : font::label, ink::text,
              Align::center);
}

Panel error_panel(const std::vector<Curve>& curves, const std::string& title) {
  Panel panel{title, {"network calls", true}, {"error of the endpoint (RMS)", true}, {}};
  for (size_t i = 0; i < curves.size(); ++i) {
    Series s{curves[i].label, {}, style(i), curves[i].costs.size() > 1, true};
    for (const SamplerCost& c : curves[i].costs) s.points.push_back({double(c.calls), std::max(c.error, 1e-14)});
    panel.series.push_back(std::move(s));
  }
  return panel;
}

std::string errors_table(const std::vector<Curve>& curves) {
  std::string text = "sampler,steps,calls,error\n";
  for (const Curve& c : curves)
    for (const SamplerCost& cost : c.costs)
      fmt::format_to(std::back_inserter(text), "{},{},{},{}\n", csv_cell(c.label), cost.steps, cost.calls, cost.error);
  return text;
}

std::string paths_table(const std::vector<Path>& paths) {
  std::string text = "sampler,point,step,sigma,x,y\n";
  for (const Path& p : paths)
    for (size_t i = 0; i < p.of.points.size(); ++i)
      for (size_t k = 0; k < p.of.points[i].size(); ++k) {
        const PathMoment& m = p.of.points[i][k];
        fmt::format_to(std::back_inserter(text), "{},{},{},{},{},{}\n", csv_cell(p.label), i, k, m.sigma, m.at.x, m.at.y);
      }
  return text;
}

constexpr double margin = 16, heading = 26, width = 1120;

/// Draws small panels in rows; returns their end.
double draw_panels(Canvas& canvas, const std::vector<Path>& paths, int64_t columns, const Mixture& data) {
  const double pitch = (width - margin) / double(columns), side = pitch - margin;
  const Image density = shades(data, int64_t(side) * 3);
  for (size_t i = 0; i < paths.size(); ++i) {
    const int64_t row = int64_t(i) / columns, column = int64_t(i) % columns;
    const double left = margin + pitch * double(column), top = heading + (side + heading + 4) * double(row);
    draw_paths(canvas, {left, top, left + side, top + side}, paths[i], density);
  }
  const double rows = std::ceil(double(paths.size()) / double(columns));
  return heading + (side + heading + 4) * rows;
}

void draw_all(const Drawn& drawn, const Mixture& data, const Arguments& a) {
  const int64_t count = int64_t(drawn.paths.size());
  const int64_t columns = count <= 3 ? 3 : count == 4 ? 4 : count <= 12 ? 6 : 7;
  const double pitch = (width - margin) / double(columns), rows = std::ceil(double(count) / double(columns));
  const double above = heading + (pitch - margin + heading + 4) * rows;
  const Panel errors =
      error_panel(drawn.curves, fmt::format("distance from the exact solution: {} on {}", label_of(a.spacing), label_of(a.noise)));
  const double high = std::max(430.0, legend_row * double(errors.series.size()) + 60);
  Canvas canvas(int64_t(above + 22 + (drawn.curves.empty() ? 0 : high + margin)), int64_t(width));
  draw_panels(canvas, drawn.paths, columns, data);
  const double key = above - 8;
  double at = margin;
  for (const auto& [color, name] :
       {std::pair(ink::text, "noise"), std::pair(ink::blue, "a step, as x / sqrt(1 + sigma^{2})"), std::pair(ink::vermillion, "the sample"),
        std::pair(color_of_bytes(200, 200, 200), "density of the data")}) {
    canvas.mark(Marker::disc, {at + 5, key}, 4, color);
    canvas.text(name, {at + 15, key + font::tick / 2}, font::tick, ink::text);
    at += 15 + Canvas::text_width(name, font::tick) + 26;
  }
  if (!drawn.curves.empty()) {
    const double legend = width - margin - legend_width(errors.series), top = above + 22;
    draw(canvas, {margin, top, legend - margin, top + high}, errors);
    draw_legend(canvas, {legend, top + 12}, errors.series);
  }
  write_chart(a.files, canvas, errors_table(drawn.curves));
}

int plot_samplers(const Program& program, const Arguments& a) {
  const Registry& registry = program.registry;
  const PathSetting setting{make<NoiseSchedule>(registry, a.noise), make<Spacing>(registry, a.spacing), {}, a.seed};
  setting.spacing->sigmas(*setting.schedule, a.steps);  // a spacing that refuses the schedule is no sampler's fault
  catch_interrupt();
  const Drawn drawn = run_all(chosen<Sampler>(registry, a.samplers), setting, a);
  draw_all(drawn, setting.data, a);
  if (a.paths.empty()) return 0;
  write_file(a.paths, paths_table(drawn.paths));
  fmt::print("{}\n", a.paths);
  return 0;
}

}  // namespace

void add_plot_sampler(Command plot, Program& program, int& code) {
  const Command command = plot.add_subcommand("sampler", "draws paths of samplers on data with an exact denoiser, and their errors");
  auto a = std::make_shared<Arguments>();
  command.add_option("samplers", a->samplers, "names, or {type: ddim, eta: 1}; by default all").type_name("NAME");
  command.add_option("--steps", a->steps, "steps of the paths").capture_default_str().check(between(1, 1000));
  command.add_option("--noise", a->noise, "the noise schedule").capture_default_str().type_name("NAME");
  command.add_option("--spacing", a->spacing, "the spacing of the steps").capture_default_str().type_name("NAME");
  add_seed(command, a->seed);
  command.add_option("--paths", a->paths, "the paths as a table (--csv has the errors)").type_name("FILE.csv");
  a->files.add_to(command);
  command.callback([&program, &code, a] { code = plot_samplers(program, *a); });
}

}  // namespace brume::tools
