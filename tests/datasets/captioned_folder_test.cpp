// Images with captions: tables, texts next to images, several captions of an image, splits; and what is said of broken ones.
#include <map>
#include <set>

#include "brume/core/buckets.h"
#include "brume/data/caption_table.h"
#include "brume/image/image.h"
#include "support.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
constexpr ImageShape shape{3, 8, 8};

class CaptionedFolder : public testing::Test {
 protected:
  /// A grey image.
  void image(const std::string& name, uint8_t level = 100, int64_t height = 8, int64_t width = 8) const {
    fs::create_directories((dir.path / name).parent_path());
    write_png(dir / name, Image(height, width, 3, level));
  }
  std::string table(const std::string& name, const std::string& content) const {
    write_file(dir / name, content);
    return dir / name;
  }
  Opened open(const std::string& options) const { return Opened("{type: captioned_folder, " + options + "}", shape); }
  /// What is said of it, without the folder's name.
  std::string error(const std::string& options) const {
    std::string said = open_error("{type: captioned_folder, " + options + "}", shape);
    const std::string folder = dir.path.string() + "/";
    for (size_t at; (at = said.find(folder)) != said.npos;) said.erase(at, folder.size());
    return said;
  }
  TempDir dir;
};

TEST_F(CaptionedFolder, TablesOfEveryKindSayTheSame) {
  image("i/a.png", 10), image("i/b.png", 20);
  const std::vector<std::string> tables = {
      table("t.tsv", "caption\tfile\nred, \"small\"\ti/a.png\r\n\nüber\ti/b.png\n"),
      table("t.csv",
            "\xef\xbb\xbf"
            "caption,file\r\n\"red, \"\"small\"\"\",i/a.png\r\nüber,\"i/b.png\"\n"),
      table("t.jsonl",
            "{\"file\": \"i/a.png\", \"caption\": \"red, \\\"small\\\"\"}\n{\"caption\": [\"über\"], \"file\": \"i/b.png\", \"x\": 1}\n")};
  for (const std::string& file : tables) {
    const Opened set = open("captions: " + file);
    ASSERT_EQ(set.data->size(), 2) << file;
    EXPECT_EQ(set.read(0).caption, "red, \"small\"") << file;
    EXPECT_EQ(set.read(1).caption, "über") << file;
    EXPECT_EQ(set.read(1).value(shape, 2, 7, 7), 20) << file;
    EXPECT_EQ(set.read(1).label, -1);
  }
}

TEST_F(CaptionedFolder, QuotesHoldCommasAndLines) {
  const std::string file = table("t.csv", "file,caption\na.png,\"one,\ntwo\"\nb.png,\"\"\nc.png,x\n");
  const std::vector<CaptionRow> rows = read_caption_table(file, {});
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].caption, "one,\ntwo");
  EXPECT_EQ(rows[0].line, 2);
  EXPECT_EQ(rows[1].caption, "");
  EXPECT_EQ(rows[1].line, 4);
  EXPECT_EQ(rows[2].line, 5);
}

TEST_F(CaptionedFolder, SeveralCaptionsAreDrawnFrom) {
  image("a.png"), image("b.png");
  const Opened set = open("captions: " + table("t.tsv", "file\tcaption\na.png\tone\nb.png\tother\na.png\ttwo\na.png\tthree\n"));
  ASSERT_EQ(set.data->size(), 2);
  std::map<std::string, int> seen;
  for (uint64_t draw = 0; draw < 900; ++draw) ++seen[set.read(0, draw).caption];
  EXPECT_EQ(seen.size(), 3u);
  for (const auto& [caption, count] : seen) EXPECT_NEAR(count, 300, 71) << caption;
  EXPECT_EQ(set.read(0, 5), set.read(0, 5));
  EXPECT_EQ(set.read(1).caption, "other");
}

TEST_F(CaptionedFolder, TextsBesideImages) {
  image("a.png", 1), image("deep/b.png", 2);
  write_file(dir / "a.txt", "first\nsecond\n");
  write_file(dir / "deep/b.txt", "");
  const Opened set = open("path: " + dir.path.string());
  ASSERT_EQ(set.data->size(), 2);
  std::set<std::string> seen;
  for (uint64_t draw = 0; draw < 40; ++draw) seen.insert(set.read(0, draw).caption);
  EXPECT_EQ(seen, (std::set<std::string>{"first", "second"}));
  EXPECT_EQ(set.read(1).caption, "");
  fs::remove(dir.path / "a.txt");
  EXPECT_EQ(error("path: " + dir.path.string()), "x.yaml:1:1: dataset: 'a.png' has no caption: there is no 'a.txt'");
}

TEST_F(CaptionedFolder, ClassesAreAColumn) {
  for (const char* name : {"a.png", "b.png", "c.png"}) image(name);
  const std::string file = table("t.tsv", "file\tcaption\tkind\na.png\tx\twall\nb.png\tx\tcat\nc.png\tx\twall\n");
  const Opened set = open("class_column: kind, captions: " + file);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"cat", "wall"}));
  EXPECT_EQ(set.read(0).label, 1);
  EXPECT_EQ(set.read(1).label, 0);
  EXPECT_EQ(open("captions: " + file).data->classes().size(), 0u);
}

TEST_F(CaptionedFolder, CaptionsOfSeveralColumnsAreJoined) {
  for (const char* name : {"a.png", "b.png"}) image(name);
  const std::string columns = "caption_columns: [kind, caption], captions: ";
  const Opened rows = open(columns + table("t.tsv", "file\tcaption\tkind\na.png\tred\tpotion\nb.png\t\tcat\n"));
  EXPECT_EQ(rows.read(0).caption, "potion red");
  EXPECT_EQ(rows.read(1).caption, "cat");
  const Opened lists = open(columns + table("t.jsonl", R"({"file": "a.png", "kind": ["wall", "brick"], "caption": ["old", "grey"]})"));
  std::set<std::string> seen;
  for (uint64_t draw = 0; draw < 80; ++draw) seen.insert(lists.read(0, draw).caption);
  EXPECT_EQ(seen, (std::set<std::string>{"wall old", "wall grey", "brick old", "brick grey"}));
}

TEST_F(CaptionedFolder, SplitsAreDisjointAndStayWhenImagesAreAdded) {
  std::string rows = "file\tcaption\n";
  for (int i = 0; i < 60; ++i) {
    image(std::to_string(i) + ".png");
    rows += std::to_string(i) + ".png\tpicture " + std::to_string(i) + "\n";
  }
  const auto captions = [&](const std::string& content, const std::string& split) {
    const Opened set = open("held_out: 0.3, split: " + split + ", captions: " + table("t.tsv", content));
    std::set<std::string> all;
    for (int64_t i = 0; i < set.data->size(); ++i) all.insert(set.read(i).caption);
    return all;
  };
  const std::set<std::string> train = captions(rows, "train"), test = captions(rows, "test");
  EXPECT_EQ(train.size() + test.size(), 60u);
  EXPECT_EQ(captions(rows, "all").size(), 60u);
  EXPECT_GT(test.size(), 5u);
  EXPECT_GT(train.size(), test.size());
  for (const std::string& c : test) EXPECT_FALSE(train.contains(c));
  image("new.png");
  std::set<std::string> more = captions("file\tcaption\nnew.png\tpicture new\n" + rows.substr(13), "test");
  more.erase("picture new");
  EXPECT_EQ(more, test);
}

TEST_F(CaptionedFolder, IsFittedAsImageFoldersAre) {
  image("a.png", 50, 8, 16);
  write_file(dir / "a.txt", "x");
  EXPECT_EQ(open("path: " + dir.path.string()).read(0).value(shape, 0, 0, 0), 50);
  const Opened none = open("crop: none, path: " + dir.path.string());
  EXPECT_NE(error_of([&] { none.read(0); }).find("is 8x16, 8x16 resized, the model wants 8x8"), std::string::npos);
}

TEST_F(CaptionedFolder, Errors) {
  image("a.png");
  const auto with = [&](const std::string& name, const std::string& content, const std::string& more = "") {
    return error(more + "captions: " + table(name, content));
  };
  const std::string start = "x.yaml:1:1: dataset: ";
  EXPECT_EQ(error("split: all"),
            start + "missing 'captions' (a table of images and captions), or 'path' (a folder with a .txt for each image)");
  EXPECT_EQ(with("t.tsv", "file\tcaptoin\na.png\tx\n"),
            start + "t.tsv:1: there is no column 'caption'; the columns are file, captoin; did you mean 'captoin'?");
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tx\n", "class_column: kind, "),
            start + "t.tsv:1: there is no column 'kind'; the columns are file, caption");
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tx\n", "caption_columns: [], "), "x.yaml:1:43: dataset: caption_columns: names no column");
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tx\n", "caption_columns: [caption, kin], "),
            start + "t.tsv:1: there is no column 'kin'; the columns are file, caption");
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tx\ngone.png\ty\nb.png\tz\n"),
            start + "t.tsv:3: there is no image 'gone.png'\n" + start + "t.tsv:4: there is no image 'b.png'");
  std::string many = "file\tcaption\n";
  for (int i = 0; i < 14; ++i) many += "gone" + std::to_string(i) + ".png\tx\n";
  const std::string ten = with("t.tsv", many);
  EXPECT_EQ(std::count(ten.begin(), ten.end(), '\n'), 10);
  EXPECT_TRUE(ten.ends_with("and 4 more")) << ten;
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tx\tz\n"), start + "t.tsv:2: has 3 fields, the header 2");
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tgr\xfcn\n"), start + "t.tsv:2: byte 9 (0xfc) is not UTF-8");
  EXPECT_EQ(with("t.tsv", ""), start + "t.tsv: is empty");
  EXPECT_EQ(with("t.tsv", "file\tcaption\n"), start + "'t.tsv' has no image");
  EXPECT_EQ(with("t.tsv", "file\tcaption\na.png\tx\n", "split: test, held_out: 0, "),
            start + "'t.tsv' has no image of the split 'test' (there are 1 in all)");
  EXPECT_EQ(with("t.txt", "file\tcaption\n"), start + "t.txt: is no table that brume knows by its extension (.tsv, .csv, .jsonl, .ndjson)");
  EXPECT_EQ(with("t.csv", "file,caption\na.png,\"x\n"), start + "t.csv:2: a quote is opened and never closed");
  EXPECT_EQ(with("t.csv", "file,caption\na.png,\"x\"y\n"), start + "t.csv:2: 'y' after a closing quote; a quote inside a field is doubled");
  EXPECT_EQ(with("t.jsonl", "{\"file\": " + std::string(5000, '[') + std::string(5000, ']') + "}\n"),
            start + "t.jsonl:1: is not a JSON object");
  EXPECT_EQ(with("t.jsonl", "{\"file\": \"a.png\"}\n"), start + "t.jsonl:1: there is no 'caption'; there are file");
  EXPECT_EQ(with("t.jsonl", "\n{\"file\": \"a.png\", \"caption\": 3}\n"), start + "t.jsonl:2: 'caption' is 3, not a string");
  EXPECT_EQ(with("t.jsonl", "{]\n"), start + "t.jsonl:1: is not a JSON object");
}

TEST(CrawlTiles, HaveCaptions) {
  const fs::path table = shared_data() / "crawl_tiles" / "captions.tsv";
  if (!fs::exists(table)) GTEST_SKIP() << "no " << table << " (set BRUME_SHARED to where the shared data is)";
  const auto options = [&](const std::string& split) {
    return "{type: captioned_folder, class_column: category, split: " + split + ", captions: " + table.string() + "}";
  };
  const Opened set(options("all"), {3, 32, 32}), train(options("train"), {3, 32, 32}), test(options("test"), {3, 32, 32});
  ASSERT_EQ(set.data->size(), 4168);
  EXPECT_EQ(train.data->size() + test.data->size(), 4168);
  EXPECT_NEAR(double(test.data->size()), 417, 100);
  EXPECT_EQ(train.data->classes(), test.data->classes());
  EXPECT_EQ(set.read(0).caption, "prompt no");
  EXPECT_EQ(set.data->classes().at(size_t(set.read(2).label)), "gui skills");
}

TEST_F(CaptionedFolder, TagsAreShuffledAndDropped) {
  image("a.png");
  const std::string file = table("t.tsv", "file\tcaption\na.png\tsks cat, red, big , on grass\n");
  EXPECT_EQ(open("captions: " + file).read(0, 3).caption, "sks cat, red, big , on grass") << "as it stands";
  std::set<std::string> orders;
  std::map<std::string, int> kept;
  const Opened shuffled = open("captions: " + file + ", shuffle_tags: true, keep_tags: 1");
  const Opened dropping = open("captions: " + file + ", drop_tags: 0.25, keep_tags: 1, prefix: '<', suffix: '>'");
  for (uint64_t draw = 0; draw < 400; ++draw) {
    const std::string caption = shuffled.read(0, draw).caption, some = dropping.read(0, draw).caption;
    EXPECT_TRUE(caption.starts_with("sks cat, ")) << caption;
    EXPECT_EQ(caption.size(), std::string("sks cat, red, big, on grass").size());
    orders.insert(caption);
    EXPECT_TRUE(some.starts_with("<sks cat") && some.ends_with(">")) << some;
    for (const char* tag : {"red", "big", "on grass"}) kept[tag] += some.find(tag) != some.npos;
  }
  EXPECT_EQ(orders.size(), 6u);
  for (const auto& [tag, count] : kept) EXPECT_NEAR(count, 300, 43) << tag;
  EXPECT_EQ(shuffled.read(0, 5).caption, shuffled.read(0, 5).caption);
  int empty = 0;
  const Opened whole = open("captions: " + file + ", drop_caption: 0.5");
  for (uint64_t draw = 0; draw < 400; ++draw) empty += whole.read(0, draw).caption.empty();
  EXPECT_NEAR(empty, 200, 50);
}

TEST_F(CaptionedFolder, OtherEndingsOfTexts) {
  image("a.png");
  table("a.caption", "a cat\n");
  EXPECT_EQ(open("path: " + dir.path.string() + ", caption_extension: caption").read(0).caption, "a cat");
  EXPECT_NE(error("path: " + dir.path.string() + ", caption_extension: tags").find("there is no 'a.tags'"), std::string::npos);
}

TEST_F(CaptionedFolder, FoldersSayHowOftenTheirImagesAreRead) {
  image("3_sks cat/a.png", 10), image("3_sks cat/b.png", 20), image("1_cat/c.png", 30), image("d.png", 40);
  table("3_sks cat/b.txt", "its own\n"), table("d.txt", "outside\n");
  const Opened set = open("path: " + dir.path.string() + ", folder_repeats: true");
  ASSERT_EQ(set.data->size(), 3 + 3 + 1 + 1);
  std::map<std::string, int> captions;
  for (int64_t i = 0; i < set.data->size(); ++i) ++captions[set.read(i).caption];
  EXPECT_EQ(captions, (std::map<std::string, int>{{"sks cat", 3}, {"its own", 3}, {"cat", 1}, {"outside", 1}}));
  EXPECT_NE(error("path: " + dir.path.string()).find("has no caption"), std::string::npos);
}

TEST_F(CaptionedFolder, FoldersOfHuggingFace) {
  image("a.png", 10), image("b.png", 20);
  table("metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"bee\"}\n{\"file_name\": \"a.png\", \"text\": \"ay\"}\n");
  const Opened set = open("path: " + dir.path.string());
  ASSERT_EQ(set.data->size(), 2);
  EXPECT_EQ(set.read(0).caption, "bee");
  EXPECT_EQ(set.read(0).value(shape, 0, 0, 0), 20);
}

TEST_F(CaptionedFolder, SizesAndCropsAreTold) {
  image("a.png", 10, 16, 40);
  const std::string file = table("t.tsv", "file\tcaption\na.png\tx\n");
  const SizeIds center = open("captions: " + file).read(0).sizes;
  EXPECT_EQ(center, (SizeIds{16, 40, 0, 6, 8, 8})) << "resized to 8 by 20";
  std::set<int64_t> lefts;
  for (uint64_t draw = 0; draw < 200; ++draw)
    lefts.insert(open("captions: " + file + ", crop: random, flip: true").read(0, draw).sizes.left);
  EXPECT_EQ(*lefts.begin(), 0);
  EXPECT_EQ(*lefts.rbegin(), 12);
}

TEST_F(CaptionedFolder, BucketsAreNearTheProportionsOfImages) {
  image("wide.png", 10, 8, 32), image("tall.png", 20, 30, 8), image("square.png", 30, 20, 21);
  const std::string file = table("t.tsv", "file\tcaption\nwide.png\tw\ntall.png\tt\nsquare.png\ts\n");
  const Opened set = open("captions: " + file + ", buckets: {step: 2}");
  const Buckets* buckets = buckets_of(*set.data);
  ASSERT_TRUE(buckets);
  const std::vector<ImageShape> shapes = buckets->buckets();
  std::set<std::string> names;
  for (const ImageShape& s : shapes) names.insert(s.text());
  EXPECT_EQ(names, (std::set<std::string>{"3x16x4", "3x14x4", "3x12x4", "3x10x6", "3x8x8", "3x6x10", "3x4x12", "3x4x14", "3x4x16"}));
  const auto read = [&](int64_t i) {
    const ImageShape& shape = shapes[buckets->bucket_of(i)];
    std::vector<float> pixels(size_t(shape.numel()));
    const Annotation a = buckets->read_bucket(i, 0, pixels);
    EXPECT_EQ(a.sizes.target_height, shape.height);
    EXPECT_EQ(a.sizes.target_width, shape.width);
    return shape;
  };
  EXPECT_EQ(read(0), (ImageShape{3, 4, 16}));
  EXPECT_EQ(read(1), (ImageShape{3, 16, 4}));
  EXPECT_EQ(read(2), (ImageShape{3, 8, 8}));
  EXPECT_EQ(set.read(0).pixels.size(), size_t(shape.numel())) << "in the model's shape, for those who ask for that";
  EXPECT_FALSE(buckets_of(*open("captions: " + file).data));
  EXPECT_NE(error("captions: " + file + ", buckets: {step: 16}").find("no bucket can be made"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
