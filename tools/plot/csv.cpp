#include "plot/csv.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>

#include "brume/config/errors.h"
#include "brume/config/suggest.h"

namespace brume::tools {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

/// Reads row by row; a cell in quotes may hold commas, line ends and doubled quotes.
class Reader {
 public:
  Reader(std::string_view text, const std::string& path) : text_(text), path_(path) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }
  bool done() const { return at_ >= text_.size(); }

  Csv::Row row() {
    Csv::Row row{line_, {""}};
    while (!done()) {
      const char c = text_[at_++];
      if (c == '\n') break;
      if (c == '"' && trimmed(row.cells.back()).empty())
        row.cells.back() = quoted();
      else if (c == ',')
        row.cells.emplace_back();
      else if (c != '\r')
        row.cells.back() += c;
    }
    ++line_;
    for (std::string& cell : row.cells) cell = trimmed(cell);
    return row;
  }

 private:
  std::string quoted() {
    const int64_t begun = line_;
    std::string cell;
    while (!done()) {
      const char c = text_[at_++];
      if (c == '\n') ++line_;
      if (c != '"') {
        cell += c;
      } else if (at_ < text_.size() && text_[at_] == '"') {
        cell += text_[at_++];
      } else {
        return cell;
      }
    }
    throw ConfigError(fmt::format("{}:{}: a quote is opened and never closed", path_, begun));
  }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

Csv parse_csv(std::string_view text, const std::string& path) {
  Reader reader(text, path);
  Csv csv{path, {}, {}};
  while (!reader.done()) {
    Csv::Row row = reader.row();
    if (row.cells == std::vector<std::string>{""}) continue;
    if (csv.columns.empty()) {
      csv.columns = std::move(row.cells);
      continue;
    }
    if (row.cells.size() != csv.columns.size())
      throw ConfigError(fmt::format("{}:{}: has {} cells, and there are {} columns", path, row.line, row.cells.size(), csv.columns.size()));
    csv.rows.push_back(std::move(row));
  }
  if (csv.rows.empty()) throw ConfigError(fmt::format("{}: has no rows below its names of columns", path));
  return csv;
}

Csv read_csv(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw ConfigError(fmt::format("{}: cannot be opened", path));
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) throw ConfigError(fmt::format("{}: cannot be read", path));
  return parse_csv(text, path);
}

size_t Csv::column(const std::string& name, const std::string& label) const {
  const auto found = std::find(columns.begin(), columns.end(), name);
  if (found != columns.end()) return size_t(found - columns.begin());
  const std::string near = closest(name, columns);
  throw ConfigError(fmt::format("{}: {} has no column '{}'{}; its columns: {}", label, path, name,
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near), fmt::join(columns, ", ")));
}

double Csv::number(const Row& row, size_t column) const {
  const std::string& cell = row.cells[column];
  double value = 0;
  const char* const first = cell.data() + cell.starts_with('+');
  const auto [end, error] = std::from_chars(first, cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value))
    throw ConfigError(fmt::format("{}:{}: column '{}': '{}' is not a number", path, row.line, columns[column], cell));
  return value;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace brume::tools
