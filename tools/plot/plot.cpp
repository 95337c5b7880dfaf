// brume plot schedule | spacing | sampler | table: charts, as PNG.
#include <fmt/format.h>

#include "brume/config/suggest.h"
#include "brume/files/atomic_file.h"
#include "plot/plot.h"

namespace brume::tools {

void PlotFiles::add_to(Command command) {
  command.add_option("-o,--out", png, "the picture").required().type_name("FILE.png").check([](const std::string& path) {
    return path.ends_with(".png") ? std::string() : fmt::format("'{}' does not end in .png, and that is what is written", path);
  });
  command.add_option("--csv", csv, "the same numbers as a table").type_name("FILE.csv");
}

void write_chart(const PlotFiles& files, const Canvas& canvas, const std::string& numbers) {
  canvas.write(files.png);
  fmt::print("{}: {} x {} pixels\n", files.png, canvas.width(), canvas.height());
  if (files.csv.empty()) return;
  write_file(files.csv, numbers);
  fmt::print("{}\n", files.csv);
}

std::string label_of(const std::string& word) {
  const size_t type = word.find("type:");
  if (!word.starts_with('{') || !word.ends_with('}') || type == std::string::npos) return word;
  const size_t name = word.find_first_not_of(' ', type + 5);
  return name >= word.size() - 1 ? word : word.substr(name, word.size() - 1 - name);
}

void leave_out(const std::string& label, const std::string& why) { fmt::print("not drawn: {}: {}\n", label, why); }

std::string one_line(const ConfigError& error) {
  std::string line;
  for (const Problem& p : error.problems()) line += (line.empty() ? "" : "; ") + p.message;
  return line;
}

void add_plot(Command app, Program& program, int& code) {
  const Command plot = app.add_subcommand("plot", "draws charts of schedules, spacings and samplers, and of any table");
  add_plot_schedule(plot, program, code);
  add_plot_spacing(plot, program, code);
  add_plot_sampler(plot, program, code);
  add_plot_table(plot, program, code);
  // A word that is no chart would be "not expected"; here it gets an answer.
  auto word = std::make_shared<std::string>();
  plot.add_option("chart", *word).hidden().check([plot](const std::string& given) -> std::string {
    if (plot.has_subcommand()) throw ConfigError(fmt::format("'{}' is one word too many", given));
    const std::vector<std::string> charts{"schedule", "spacing", "sampler", "table"};
    throw ConfigError(fmt::format("unknown chart '{}'{}", given, hint(given, charts)));
  });
  plot.require_subcommand(1);
}

}  // namespace brume::tools
