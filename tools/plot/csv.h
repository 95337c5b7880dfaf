#pragma once
// Tables as comma-separated values (RFC 4180) or tab-separated ones.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace brume::tools {

struct Csv {
  struct Row {
    int64_t line;  ///< of the file, from 1
    std::vector<std::string> cells;
  };
  std::string path;
  std::vector<std::string> columns;
  std::vector<Row> rows;

  /// Throws ConfigError naming the nearest, and all there are. `label` is the option that asks ("--x").
  size_t column(const std::string& name, const std::string& label) const;
  /// Returns the number in a cell; throws ConfigError naming line and column if there is no number in it.
  double number(const Row& row, size_t column) const;
};

/// Parses a table. `path` is for messages. Throws ConfigError if a row has another number of cells than there are columns.
Csv parse_csv(std::string_view text, const std::string& path);
/// Parses a table whose cells are separated by tabs and know no quotes.
Csv parse_tsv(std::string_view text, const std::string& path);
Csv read_csv(const std::string& path);

/// Returns a cell, in quotes if it needs them.
std::string csv_cell(const std::string& text);

}  // namespace brume::tools
