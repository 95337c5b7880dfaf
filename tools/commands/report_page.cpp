#include "commands/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/files/mapped_file.h"
#include "brume/files/text_file.h"
#include "brume/train/metrics_file.h"
#include "commands/report_chart.h"
#include "commands/report_style.h"
#include "commands/run_tables.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr size_t most_grids = 6;  ///< sample grids of a run

std::string base64(std::string_view bytes) {
  constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t j = 0; j < 3; ++j) three = three << 8 | (i + j < bytes.size() ? uint8_t(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) text += i + j > bytes.size() ? '=' : digits[three >> (18 - 6 * j) & 63];
  }
  return text;
}

std::string section(const std::string& heading, const std::string& content) {
  return content.empty() ? "" : fmt::format("<section><h2>{}</h2>\n{}</section>\n", html_text(heading), content);
}

std::string html_table(const RunTable& table) {
  if (table.rows.empty()) return "";
  std::string html = "<div class='wide'><table><thead><tr>";
  for (const std::string& column : table.columns) html += fmt::format("<th>{}</th>", html_text(column));
  html += "</tr></thead><tbody>\n";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (const std::string& cell : row)
      html += fmt::format("<td{}>{}</td>", parse_signed_number<double>(cell) ? " class='number'" : "", html_text(cell));
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string legend(const std::vector<RunRecord>& runs) {
  std::string html = "<ul class='legend'>";
  for (size_t i = 0; i < runs.size(); ++i)
    html += fmt::format("<li><svg viewBox='0 0 24 8'><line class='line {}' x1='0' x2='24' y1='4' y2='4'/></svg>{}</li>", line_class(i),
                        html_text(runs[i].name));
  return html + "</ul>\n";
}

/// Returns the curves of every figure of metrics.jsonl, losses and tests first.
std::string curves(const std::vector<RunRecord>& runs, const std::vector<fs::path>& directories) {
  std::map<std::string, std::vector<ReportLine>> charts;
  for (size_t i = 0; i < runs.size(); ++i)
    for (const MetricsLine& line : read_metrics(directories[i] / "metrics.jsonl"))
      for (const auto& [name, value] : line.figures) {
        std::vector<ReportLine>& lines = charts[name];
        if (lines.empty() || lines.back().number != i) lines.push_back({runs[i].name, i, {}});
        lines.back().points.emplace_back(double(line.step), value);
      }
  std::string first, second;
  for (const auto& [name, lines] : charts) {
    const bool minor =
        of_machine(name) || name.starts_with("validation_loss_") || name == "lr" || name == "grad_norm" || name == "ema_decay";
    (minor ? second : first) += report_chart(name, "step", lines, false);
  }
  if (first.empty() && second.empty()) return "";
  const std::string more =
      second.empty() ? "" : fmt::format("<details><summary>More curves</summary><div class='charts'>{}</div></details>\n", second);
  return legend(runs) + fmt::format("<div class='charts'>{}</div>\n", first) + more;
}

/// Returns the sample grids of a run by step.
std::map<int64_t, fs::path> grids_of(const fs::path& run) {
  std::map<int64_t, fs::path> all;
  std::error_code error;
  for (auto entry = fs::directory_iterator(run / "samples", error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().stem().string();
    const auto step = name.starts_with("step_") ? parse_number<int64_t>(std::string_view(name).substr(5)) : std::nullopt;
    if (step && entry->path().extension() == ".png") all[*step] = entry->path();
  }
  return all;
}

/// Returns at most so many of the steps, the first and the last among them.
std::vector<int64_t> evenly_chosen(const std::set<int64_t>& steps) {
  const std::vector<int64_t> all(steps.begin(), steps.end());
  if (all.size() <= most_grids) return all;
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < most_grids; ++i) chosen.push_back(all[i * (all.size() - 1) / (most_grids - 1)]);
  return chosen;
}

std::string samples(const std::vector<RunRecord>& runs, const std::vector<fs::path>& directories) {
  std::vector<std::map<int64_t, fs::path>> grids;
  std::set<int64_t> steps;
  for (const fs::path& run : directories) {
    grids.push_back(grids_of(run));
    for (const auto& [step, file] : grids.back()) steps.insert(step);
  }
  if (steps.empty()) return "";
  const std::vector<int64_t> shown = evenly_chosen(steps);
  std::string html = "<div class='wide'><table class='grids'><thead><tr><th></th>";
  for (const int64_t step : shown) html += fmt::format("<th>step {}</th>", step);
  html += "</tr></thead><tbody>\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    if (grids[i].empty()) continue;
    html += fmt::format("<tr><th>{}</th>", html_text(runs[i].name));
    for (const int64_t step : shown) {
      html += "<td>";
      if (const auto at = grids[i].find(step); at != grids[i].end())
        html += fmt::format("<img alt='samples of {} at step {}' src='data:image/png;base64,{}'/>", html_text(runs[i].name), step,
                            base64(MappedFile::open(at->second.string())->bytes()));
      html += "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

RunTable evaluations(const std::vector<RunRecord>& runs) {
  std::set<std::string> figures;
  for (const RunRecord& run : runs)
    for (const Evaluation& e : run.evaluations)
      for (const auto& [name, value] : e.figures) figures.insert(name);
  RunTable table{{"run", "file", "set", "steps"}, {}};
  table.columns.insert(table.columns.end(), figures.begin(), figures.end());
  for (const RunRecord& run : runs)
    for (const Evaluation& e : run.evaluations) {
      std::vector<std::string> row{run.name, e.file, e.set, e.steps > 0 ? fmt::to_string(e.steps) : ""};
      for (const std::string& name : figures) row.push_back(e.figures.contains(name) ? fmt::format("{:.6g}", e.figures.at(name)) : "");
      table.rows.push_back(std::move(row));
    }
  return table;
}

/// Plots of every figure against sampling steps, or against the guidance scale: a line per run and setting of the other.
std::string quality(const std::vector<RunRecord>& runs, bool against_steps) {
  struct Key {
    size_t run;
    std::string other;
    bool operator<(const Key& k) const { return run != k.run ? run < k.run : other < k.other; }
  };
  std::map<std::string, std::map<Key, std::vector<std::pair<double, double>>>> figures;
  for (size_t i = 0; i < runs.size(); ++i)
    for (const Evaluation& e : runs[i].evaluations) {
      if (e.steps == 0 || (!against_steps && !e.scale)) continue;
      std::string other = e.sampler.empty() ? "" : ", " + e.sampler;
      if (against_steps && e.scale) other += fmt::format(", cfg {}", *e.scale);
      if (!against_steps) other += fmt::format(", {}", counted(e.steps, "step"));
      for (const auto& [name, value] : e.figures) figures[name][{i, other}].emplace_back(against_steps ? double(e.steps) : *e.scale, value);
    }
  std::string html;
  for (auto& [name, lines] : figures) {
    std::vector<ReportLine> drawn;
    size_t longest = 0;
    for (auto& [key, points] : lines) {
      std::sort(points.begin(), points.end());
      longest = std::max(longest, points.size());
      drawn.push_back({runs[key.run].name + key.other, key.run, points});
    }
    if (longest > 1) html += report_chart(name, against_steps ? "sampling steps" : "guidance scale", drawn, true);
  }
  return html.empty() ? "" : "<div class='charts'>" + html + "</div>\n";
}

std::string configurations(const std::vector<RunRecord>& runs, const std::vector<fs::path>& directories) {
  std::string html;
  for (size_t i = 0; i < runs.size(); ++i) {
    const fs::path file = directories[i] / "config.yaml";
    if (!fs::exists(file)) continue;
    std::string text;
    try {
      text = read_text(file.string());
    } catch (const ConfigError& e) {
      text = e.what();
    }
    html += fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n", html_text(runs[i].name), html_text(text));
  }
  return html;
}

std::string notes(const std::vector<RunRecord>& runs) {
  std::string html;
  for (const RunRecord& run : runs)
    if (!run.note.empty())
      html += fmt::format("<p class='note'>{}: {}: {}</p>\n", html_text(run.name), text_of(run.state), html_text(run.note));
  return html;
}

}  // namespace

std::string report_page(const std::string& title, const std::vector<RunRecord>& runs, const std::vector<fs::path>& directories) {
  const RunTable judged = evaluations(runs);
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'/><meta name='viewport' "
      "content='width=device-width, initial-scale=1'/><title>{0}</title>\n<style>{1}</style></head><body>\n"
      "<h1>{0}</h1>\n",
      html_text(title), report_style);
  html += section("Runs", html_table(table_of(runs, true)) + notes(runs));
  html += section("Curves", curves(runs, directories));
  html += section("Samples", samples(runs, directories));
  html += section("Evaluations", html_table(judged));
  html += section("Quality against sampling steps", quality(runs, true));
  html += section("Quality against guidance scale", quality(runs, false));
  html += section("Configurations", configurations(runs, directories));
  return html + "</body></html>\n";
}

}  // namespace brume::tools
