// One reader of comma-separated values, and one of tab-separated values, for tables of captions and of numbers.
#include "brume/files/csv.h"

#include <gtest/gtest.h>

#include "brume/config/errors.h"

namespace brume::test {
namespace {

using Fields = std::vector<std::string>;

std::vector<Fields> fields(std::string_view text, CsvSpaces spaces = CsvSpaces::kept) {
  std::vector<Fields> all;
  for (const CsvRecord& r : parse_csv_records(text, "t.csv", spaces)) all.push_back(r.fields);
  return all;
}

TEST(Csv, Quotes) {
  EXPECT_EQ(fields("a,\"b, \"\"c\"\"\nd\",e\n"), (std::vector<Fields>{{"a", "b, \"c\"\nd", "e"}}));
  EXPECT_EQ(fields("a,b\"c\n\"\",x"), (std::vector<Fields>{{"a", "b\"c"}, {"", "x"}}));
}

TEST(Csv, LineEndsAndByteOrderMark) {
  EXPECT_EQ(fields("\xEF\xBB\xBF"
                   "a,b\r\n\r\n\"c\r\nd\",e\r\n"),
            (std::vector<Fields>{{"a", "b"}, {"c\r\nd", "e"}}));
  EXPECT_EQ(fields("a\rb,c\r"), (std::vector<Fields>{{"a\rb", "c"}}));
  EXPECT_EQ(fields(""), std::vector<Fields>{});
}

TEST(Csv, ATrailingCommaIsAnEmptyField) { EXPECT_EQ(fields("a,\n,"), (std::vector<Fields>{{"a", ""}, {"", ""}})); }

TEST(Csv, SpacesAreKeptOrTrimmed) {
  EXPECT_EQ(fields(" a , \"b\"\n"), (std::vector<Fields>{{" a ", " \"b\""}}));
  EXPECT_EQ(fields(" a ,\t\"b, c\" \n \n", CsvSpaces::trimmed), (std::vector<Fields>{{"a", "b, c"}}));
}

TEST(Csv, LinesAreWhereRecordsBegin) {
  const std::vector<CsvRecord> records = parse_csv_records("a\n\n\"b\nc\",d\ne\n", "t.csv");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[1].line, 3);
  EXPECT_EQ(records[2].line, 5);
}

TEST(Csv, TabsSeparateWithoutQuotes) {
  const std::vector<CsvRecord> records = parse_tsv_records("a\tb, \"c\n\n\t\n");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].fields, (Fields{"a", "b, \"c"}));
  EXPECT_EQ(records[1].fields, (Fields{"", ""}));
  EXPECT_EQ(records[1].line, 3);
}

TEST(Csv, WhatIsRefused) {
  const auto refusal = [](const char* text, CsvSpaces spaces) -> std::string {
    try {
      parse_csv_records(text, "t.csv", spaces);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  for (const CsvSpaces spaces : {CsvSpaces::kept, CsvSpaces::trimmed}) {
    EXPECT_EQ(refusal("a\nb,\"c\nd\n", spaces), "t.csv:2: a quote is opened and never closed");
    EXPECT_EQ(refusal("\"a\"b\n", spaces), "t.csv:1: 'b' after a closing quote; a quote inside a field is doubled");
  }
  EXPECT_EQ(refusal("\"a\" ,b\n", CsvSpaces::kept), "t.csv:1: ' ' after a closing quote; a quote inside a field is doubled");
}

}  // namespace
}  // namespace brume::test
