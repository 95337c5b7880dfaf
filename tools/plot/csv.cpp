#include "plot/csv.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/files/csv.h"

namespace brume::tools {
namespace {

Csv table_of(std::vector<CsvRecord> records, const std::string& path) {
  Csv csv{path, {}, {}};
  for (CsvRecord& record : records) {
    if (csv.columns.empty()) {
      csv.columns = std::move(record.fields);
      continue;
    }
    if (record.fields.size() != csv.columns.size())
      throw ConfigError(fmt::format("{}:{}: has {}, and there are {}", path, record.line, counted(record.fields.size(), "cell"),
                                    counted(csv.columns.size(), "column")));
    csv.rows.push_back({record.line, std::move(record.fields)});
  }
  if (csv.rows.empty()) throw ConfigError(fmt::format("{}: has no rows below its names of columns", path));
  return csv;
}

}  // namespace

Csv parse_csv(std::string_view text, const std::string& path) { return table_of(parse_csv_records(text, path, CsvSpaces::trimmed), path); }

Csv parse_tsv(std::string_view text, const std::string& path) { return table_of(parse_tsv_records(text), path); }

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
  const std::optional<double> value = parse_signed_number<double>(cell);
  if (!value || !std::isfinite(*value))
    throw ConfigError(fmt::format("{}:{}: column '{}': '{}' is not a number", path, row.line, columns[column], cell));
  return *value;
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

}  // namespace brume::tools
