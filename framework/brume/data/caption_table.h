#pragma once
// Tables of images and their captions: TSV, CSV (RFC 4180) and JSON lines, distinguished by their extension.
#include <cstdint>
#include <string>
#include <vector>

namespace brume {

struct CaptionColumns {
  std::string file = "file";
  std::vector<std::string> captions = {
      "caption"};        ///< of several the words stand in this order, a space between; an empty field gives none
  std::string category;  ///< empty = none
};

struct CaptionRow {
  std::string file, caption, category;
  int64_t line = 0;  ///< of the table, from 1
};

/// Returns the rows of a table. TSV and CSV have a header that names the columns; a JSON line is an object, its caption a string or a list
/// of strings (a row each, of several lists a row for each combination). Throws ConfigError "path:line: …" if a column is missing, a row
/// has another number of fields than the header, or a byte is not UTF-8.
std::vector<CaptionRow> read_caption_table(const std::string& path, const CaptionColumns& columns);

}  // namespace brume
