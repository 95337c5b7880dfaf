// brume tokenizer train CAPTIONS, brume tokenizer encode MODEL TEXT.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/utf8.h"
#include "brume/config/yaml.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/text_file.h"
#include "brume/text/sentencepiece.h"
#include "brume/train/options.h"
#include "plot/csv.h"
#include "program/program.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string source, column, out = "tokenizer.model", text;
  int64_t size = 2000, count = 20000;
  bool keep_case = false;
  std::string type = "unigram";
};

std::vector<std::string> column_of(const Csv& table, const std::string& asked) {
  const auto has = [&](const char* name) { return std::find(table.columns.begin(), table.columns.end(), name) != table.columns.end(); };
  const std::string name = !asked.empty() ? asked : !has("caption") && has("text") ? "text" : "caption";
  const size_t column = table.column(name, "--column");
  std::vector<std::string> captions;
  for (const Csv::Row& row : table.rows) captions.push_back(row.cells[column]);
  return captions;
}

/// Returns those of the training images of a configuration.
std::vector<std::string> data_captions(Program& program, const Arguments& a) {
  const Config config = read_configuration(program.registry, load_yaml(a.source));
  if (!config.train) throw ConfigError(fmt::format("{}: has no section 'train', and so no captions", a.source));
  const std::shared_ptr<const Dataset> data = config.train->data.make({config.image()});
  std::vector<float> pixels(size_t((data->encoded() ? data->encoded()->shape : config.image()).numel()));
  const int64_t count = data->size() == 0 ? a.count : std::min(a.count, data->size());
  std::vector<std::string> captions;
  for (int64_t i = 0; i < count && !interrupted.load(); ++i)
    if (std::string caption = data->read(i, uint64_t(i), pixels).caption; !caption.empty()) captions.push_back(std::move(caption));
  if (interrupted.load()) throw Interrupted();
  if (captions.empty()) throw ConfigError(fmt::format("{}: the images of train.data have no captions", a.source));
  return captions;
}

std::vector<std::string> read_captions(Program& program, const Arguments& a) {
  if (a.source.ends_with(".yaml") || a.source.ends_with(".yml")) return data_captions(program, a);
  const std::string text = read_text(a.source);
  const std::string extension = lower_case(std::filesystem::path(a.source).extension().string());
  if (extension == ".csv") return column_of(parse_csv(text, a.source), a.column);
  if (extension == ".tsv") return column_of(parse_tsv(text, a.source), a.column);
  if (!a.column.empty()) throw ConfigError(fmt::format("--column: {} is read line by line; tables end in .csv or .tsv", a.source));
  const std::vector<std::string_view> lines = lines_of(text);
  return {lines.begin(), lines.end()};
}

void train(Program& program, const Arguments& a) {
  catch_interrupt();
  const std::vector<std::string> captions = read_captions(program, a);
  std::string model;
  try {
    model = text::SentencePiece::train(captions, {.size = a.size, .fold_case = !a.keep_case, .merges = a.type == "bpe"});
  } catch (const ConfigError& e) {
    throw ConfigError(fmt::format("{}: {}", a.source, e.what()));
  }
  const text::SentencePiece tokenizer(model, a.out);
  size_t pieces = 0, longest = 0;
  for (const std::string& caption : captions) {
    const size_t n = tokenizer.encode(caption).size();
    pieces += n;
    longest = std::max(longest, n);
  }
  write_file(a.out, model);
  fmt::print("{}: {} from {}, which have {:.1f} each; the longest has {}\n", a.out, counted(tokenizer.size(), "piece"),
             counted(captions.size(), "caption"), double(pieces) / double(captions.size()), longest);
}

void encode(const Arguments& a) {
  const text::SentencePiece tokenizer(MappedFile::open(a.source)->bytes(), a.source);
  const std::vector<int64_t> ids = tokenizer.encode(a.text);
  for (const int64_t id : ids) fmt::print("{:>7}  {}\n", id, tokenizer.piece(id));
  fmt::print("{} of {}; read back: {}\n", ids.size(), counted(tokenizer.size(), "piece"), tokenizer.decode(ids));
}

}  // namespace

void add_tokenizer(Command app, Program& program, int&) {
  const Command command =
      app.add_subcommand("tokenizer", "makes a tokenizer for models that are conditioned on captions, and shows its pieces");
  command.require_subcommand(1);
  auto a = std::make_shared<Arguments>();
  const Command make = command.add_subcommand("train", "makes a sentencepiece model from captions");
  make.add_option("captions", a->source,
                  "a text file with one caption per line, a .csv or .tsv with a column of them, or a configuration, of whose "
                  "training images they are")
      .required()
      .type_name("CAPTIONS");
  make.add_option("--size", a->size, "pieces, with the four special ones").capture_default_str().check(between(8, 1000000));
  make.add_option("--column", a->column, "of a table; 'caption', or 'text', if not given").type_name("NAME");
  make.add_option("--type", a->type, "unigram, or bpe, which gives whole words if there are few")
      .capture_default_str()
      .check(one_of({"unigram", "bpe"}));
  make.add_flag("--keep-case", a->keep_case, "distinguishes upper case from lower case");
  make.add_option("-o,--out", a->out, "the model").capture_default_str().type_name("FILE");
  make.add_option("-n,--count", a->count, "images of a configuration's data set whose captions are read")
      .capture_default_str()
      .check(between(1, int64_t(1) << 40));
  make.callback([a, &program] { train(program, *a); });
  const Command look = command.add_subcommand("encode", "prints the pieces of a text");
  look.add_option("model", a->source, "a sentencepiece model").required().type_name("MODEL");
  look.add_option("text", a->text, "the text to encode").required().type_name("TEXT");
  look.callback([a] { encode(*a); });
}

}  // namespace brume::tools
