#pragma once
// Comma-separated values (RFC 4180) and tab-separated ones.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// The fields of a row, and the line it begins in, from 1.
struct CsvRecord {
  std::vector<std::string> fields;
  int64_t line = 0;
};

/// What becomes of spaces and tabs around a field: `kept` as RFC 4180 has it, or `trimmed` as spreadsheets do, also around quotes.
enum class CsvSpaces { kept, trimmed };

/// Reads all records. A field in quotes may hold commas, line ends and doubled quotes; lines end in LF or CRLF; a byte order mark and empty
/// lines are skipped; a trailing comma gives one more empty field. Throws ConfigError "path:line: …" if a quote is never closed or
/// something follows a closing quote.
std::vector<CsvRecord> parse_csv_records(std::string_view text, const std::string& path, CsvSpaces spaces = CsvSpaces::kept);
/// Reads all records of a text whose fields are separated by tabs and know no quotes; empty lines are skipped.
std::vector<CsvRecord> parse_tsv_records(std::string_view text);

}  // namespace brume
