#include "brume/data/caption_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/suggest.h"
#include "brume/config/utf8.h"
#include "brume/files/csv.h"
#include "brume/files/json.h"
#include "brume/files/refuse.h"
#include "brume/files/text_file.h"

namespace brume {
namespace {

[[noreturn]] void refuse_line(const std::string& path, int64_t line, const std::string& reason) {
  throw ConfigError(fmt::format("{}:{}: {}", path, line, reason));
}

/// Returns what a column adds to a caption.
std::string joined(std::string caption, const std::string& words) {
  if (!caption.empty() && !words.empty()) caption += ' ';
  return caption + words;
}

std::vector<CaptionRow> rows_of(const std::vector<CsvRecord>& records, const std::string& path, const CaptionColumns& columns) {
  if (records.empty()) refuse(path, "is empty");
  const std::vector<std::string>& header = records[0].fields;
  const auto column = [&](const std::string& name) {
    const auto found = std::find(header.begin(), header.end(), name);
    if (found == header.end()) {
      const std::string near = closest(name, header);
      refuse_line(path, records[0].line,
                  fmt::format("there is no column '{}'; the columns are {}{}", name, fmt::join(header, ", "),
                              near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
    }
    return size_t(found - header.begin());
  };
  const size_t file = column(columns.file);
  std::vector<size_t> captions;
  for (const std::string& name : columns.captions) captions.push_back(column(name));
  const size_t category = columns.category.empty() ? 0 : column(columns.category);
  std::vector<CaptionRow> rows;
  for (size_t i = 1; i < records.size(); ++i) {
    const auto& [fields, line] = records[i];
    if (fields.size() != header.size())
      refuse_line(path, line, fmt::format("has {}, the header {}", counted(fields.size(), "field"), header.size()));
    std::string caption;
    for (const size_t at : captions) caption = joined(std::move(caption), fields[at]);
    rows.push_back({fields[file], std::move(caption), columns.category.empty() ? "" : fields[category], line});
  }
  return rows;
}

std::vector<CaptionRow> read_jsonl(std::string_view text, const std::string& path, const CaptionColumns& columns) {
  std::vector<CaptionRow> rows;
  int64_t line = 0;
  for (const std::string_view row : lines_of(text)) {
    ++line;
    if (row.find_first_not_of(" \t\r") == row.npos) continue;
    const auto object = json_or_discarded(row);
    if (!object.is_object()) refuse_line(path, line, "is not a JSON object");
    std::vector<std::string> keys;
    for (const auto& [key, _] : object.items()) keys.push_back(key);
    const auto value = [&](const std::string& name) -> const nlohmann::json& {
      if (!object.contains(name)) {
        const std::string near = closest(name, keys);
        refuse_line(path, line,
                    fmt::format("there is no '{}'; there are {}{}", name, fmt::join(keys, ", "),
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
      }
      return object[name];
    };
    const auto text_of = [&](const std::string& name, const nlohmann::json& v) {
      if (!v.is_string()) refuse_line(path, line, fmt::format("'{}' is {}, not a string", name, shortened(v.dump())));
      return v.get<std::string>();
    };
    CaptionRow one{text_of(columns.file, value(columns.file)), "", "", line};
    if (!columns.category.empty()) one.category = text_of(columns.category, value(columns.category));
    std::vector<std::string> captions = {""};
    for (const std::string& name : columns.captions) {
      const nlohmann::json& words = value(name);
      std::vector<std::string> longer;
      for (const std::string& caption : captions)
        for (const nlohmann::json& v : words.is_array() ? words : nlohmann::json::array({words}))
          longer.push_back(joined(caption, text_of(name, v)));
      captions = std::move(longer);
    }
    for (std::string& caption : captions) {
      one.caption = std::move(caption);
      rows.push_back(one);
    }
  }
  return rows;
}

}  // namespace

std::vector<CaptionRow> read_caption_table(const std::string& path, const CaptionColumns& columns) {
  const std::string text = read_text(path), extension = lower_case(std::filesystem::path(path).extension().string());
  if (extension == ".tsv") return rows_of(parse_tsv_records(text), path, columns);
  if (extension == ".csv") return rows_of(parse_csv_records(text, path), path, columns);
  if (extension == ".jsonl" || extension == ".ndjson") return read_jsonl(text, path, columns);
  refuse(path, "is no table that brume knows by its extension (.tsv, .csv, .jsonl, .ndjson)");
}

}  // namespace brume
