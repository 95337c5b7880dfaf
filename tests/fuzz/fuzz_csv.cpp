// Comma-separated values, and tables of captions as TSV, CSV and JSON lines.
#include "brume/data/caption_table.h"
#include "brume/files/csv.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brume;
  const auto read = [&](const auto& reader) { return fuzz::try_to(data, size, reader); };
  read([] { parse_csv_records(fuzz::input, "input"); });
  read([] { parse_csv_records(fuzz::input, "input", CsvSpaces::trimmed); });
  for (const char* ending : {"csv", "tsv", "jsonl"})
    read([&] { read_caption_table(fuzz::as_file(ending), {.file = "a", .captions = {"b", "c"}, .category = "d"}); });
  return 0;
}
