#pragma once
// What the charts of `brume plot` share.
#include <memory>
#include <string>
#include <vector>

#include "brume/config/yaml.h"
#include "plot/chart.h"
#include "program/program.h"

namespace brume::tools {

void add_plot_schedule(Command plot, Program& program, int& code);
void add_plot_spacing(Command plot, Program& program, int& code);
void add_plot_sampler(Command plot, Program& program, int& code);
void add_plot_table(Command plot, Program& program, int& code);

/// The files that a chart is written to.
struct PlotFiles {
  std::string png, csv;
  void add_to(Command command);
};

/// Writes the chart, then the numbers if a file is named for them; prints the files that were written.
void write_chart(const PlotFiles& files, const Canvas& canvas, const std::string& numbers);

/// A plugin, and what the chart calls it.
template <class I>
struct Named {
  std::string label;
  std::shared_ptr<const I> plugin;
};

/// Returns "ddim, eta: 1" of "{type: ddim, eta: 1}".
std::string label_of(const std::string& word);
/// Prints one line: what is not drawn, and why.
void leave_out(const std::string& label, const std::string& why);
std::string one_line(const ConfigError& error);

template <class I>
std::shared_ptr<const I> make(const Registry& registry, const std::string& word) {
  return create<I>(registry, word.starts_with('{') ? parse_yaml(word, word) : Value::text(word));
}

/// Returns what was asked for ("ddim", "{type: ddim, eta: 1}"), all mistakes at once; by default all that do with their defaults.
template <class I>
std::vector<Named<I>> chosen(const Registry& registry, const std::vector<std::string>& words) {
  std::vector<Named<I>> all;
  std::vector<Problem> problems;
  for (const std::string& word : words.empty() ? registry.names(I::kind) : words) {
    try {
      all.push_back({label_of(word), make<I>(registry, word)});
    } catch (const ConfigError& e) {
      if (words.empty())
        leave_out(word, one_line(e));
      else
        problems.insert(problems.end(), e.problems().begin(), e.problems().end());
    }
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  return all;
}

}  // namespace brume::tools
