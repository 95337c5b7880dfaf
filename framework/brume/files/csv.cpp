#include "brume/files/csv.h"

#include <fmt/format.h>

#include "brume/config/errors.h"
#include "brume/config/utf8.h"
#include "brume/files/text_file.h"

namespace brume {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

class Reader {
 public:
  Reader(std::string_view text, const std::string& path, bool trims) : text_(without_byte_order_mark(text)), path_(path), trims_(trims) {}
  bool done() const { return at_ >= text_.size(); }

  CsvRecord record() {
    CsvRecord record{{}, line_};
    record.fields.push_back(field());
    while (!done() && text_[at_] == ',') {
      ++at_;
      record.fields.push_back(field());
    }
    ++at_;  // the line feed
    ++line_;
    return record;
  }

 private:
  bool space() const { return trims_ && !done() && (text_[at_] == ' ' || text_[at_] == '\t'); }
  bool line_end() const { return text_[at_] == '\n' || text_.substr(at_, 2) == "\r\n" || text_.substr(at_) == "\r"; }

  /// Reads up to a comma or a line feed.
  std::string field() {
    first_line_ = line_;
    while (space()) ++at_;
    const bool quotes = !done() && text_[at_] == '"';
    std::string field = quotes ? quoted() : "";
    while (!done() && text_[at_] != ',' && !line_end()) {
      if (quotes && !space()) refuse(line_, fmt::format("'{}' after a closing quote; a quote inside a field is doubled", text_[at_]));
      if (!quotes) field += text_[at_];
      ++at_;
    }
    if (!done() && text_[at_] == '\r') ++at_;
    return trims_ ? trimmed(field) : field;
  }

  std::string quoted() {
    std::string field;
    for (++at_; !done(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] == '"') {
        if (text_.substr(at_, 2) != "\"\"") return ++at_, field;
        ++at_;
      }
      field += text_[at_];
    }
    refuse(first_line_, "a quote is opened and never closed");
  }

  [[noreturn]] void refuse(int64_t line, const std::string& reason) const {
    throw ConfigError(fmt::format("{}:{}: {}", path_, line, reason));
  }

  std::string_view text_;
  const std::string& path_;
  bool trims_;
  size_t at_ = 0;
  int64_t line_ = 1, first_line_ = 1;  ///< first_line_: the first line of the field
};

}  // namespace

std::vector<CsvRecord> parse_csv_records(std::string_view text, const std::string& path, CsvSpaces spaces) {
  Reader reader(text, path, spaces == CsvSpaces::trimmed);
  std::vector<CsvRecord> records;
  while (!reader.done())
    if (CsvRecord record = reader.record(); record.fields.size() > 1 || !record.fields[0].empty()) records.push_back(std::move(record));
  return records;
}

std::vector<CsvRecord> parse_tsv_records(std::string_view text) {
  std::vector<CsvRecord> records;
  int64_t line = 0;
  for (std::string_view row : lines_of(text)) {
    ++line;
    if (row.empty()) continue;
    CsvRecord record{{}, line};
    for (size_t tab; (tab = row.find('\t')) != row.npos; row.remove_prefix(tab + 1)) record.fields.emplace_back(row.substr(0, tab));
    record.fields.emplace_back(row);
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace brume
