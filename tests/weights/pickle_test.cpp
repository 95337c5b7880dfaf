#include "brume/weights/pickle.h"

#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

/// Knows one function, which makes a dict, and one constant.
class TestVocabulary final : public PickleVocabulary {
 public:
  PickleValue global(const std::string& name) override {
    if (name != "a.dict" && name != "a.word") throw ConfigError("refuses '" + name + "'");
    return PickleValue(PickleName(name));
  }
  PickleValue call(const std::string& name, const Sequence&) override {
    if (name != "a.dict") throw ConfigError("cannot call '" + name + "'");
    return PickleValue::dict();
  }
  PickleValue persistent(const PickleValue& id) override { return PickleValue::text("object " + id.summary()); }
};

PickleValue read(std::string_view pickle) {
  TestVocabulary vocabulary;
  return read_pickle(pickle, vocabulary, "file");
}

std::string error(std::string_view pickle) {
  const TemporaryFolder folder;
  return error_of([&] { read(pickle); }, folder);
}

/// Python's repr, roughly: enough to compare whole values.
std::string repr(const PickleValue& value) {
  const auto items = [](const Sequence& values) {
    std::string all;
    for (const auto& item : values) all += (all.empty() ? "" : ", ") + repr(item);
    return all;
  };
  if (value.as_list() != nullptr) return "[" + items(*value.as_list()) + "]";
  if (value.as_tuple() != nullptr) return "(" + items(*value.as_tuple()) + ")";
  if (value.as_text() != nullptr) return "'" + *value.as_text() + "'";
  if (value.as_bytes() != nullptr) return "b'" + *value.as_bytes() + "'";
  if (value.as_dict() == nullptr) return value.summary();
  std::string all;
  for (const auto& [key, entry] : value.as_dict()->entries()) all += (all.empty() ? "" : ", ") + repr(key) + ": " + repr(entry);
  return "{" + all + "}";
}

std::string_view operator""_p(const char* bytes, size_t size) { return {bytes, size}; }

// Pickles made by Python 3.11: pickle.dumps(value, protocol).
// value = {'a': [1, -2, 300, 70000, -5000000000, True, False, None], 'b': (1.5, ('x',), (), (1, 2, 3, 4)), 'c': {}, 2: 'é名'},
// with 'ascii' for 'é名' in protocol 0, which escapes such text.
const auto protocol0 =
    "(dp0\nVa\np1\n(lp2\nI1\naI-2\naI300\naI70000\naL-5000000000L\naI01\naI00\naNasVb\np3\n(F1.5\n(Vx\np4\ntp5\n(t(I"
    "1\nI2\nI3\nI4\ntp6\ntp7\nsVc\np8\n(dp9\nsI2\nVascii\np10\ns."_p;
const auto protocol1 =
    "}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,\001Jp\021\001\000L-5000000000L\nI01\nI00\nNeX\001"
    "\000\000\000bq\003(G?\370\000\000\000\000\000\000(X\001\000\000\000xq\004tq\005)(K\001K\002K\003K\004tq\006tq\007"
    "X\001\000\000\000cq\010}q\011K\002X\005\000\000\000\303\251\345\220\215q\nu."_p;
const auto protocol2 =
    "\200\002}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,\001Jp\021\001\000\212\005\000\016\372\325"
    "\376\210\211NeX\001\000\000\000bq\003(G?\370\000\000\000\000\000\000X\001\000\000\000xq\004\205q\005)(K\001K\002"
    "K\003K\004tq\006tq\007X\001\000\000\000cq\010}q\011K\002X\005\000\000\000\303\251\345\220\215q\nu."_p;
const auto protocol3 =
    "\200\003}q\000(X\001\000\000\000aq\001]q\002(K\001J\376\377\377\377M,\001Jp\021\001\000\212\005\000\016\372\325"
    "\376\210\211NeX\001\000\000\000bq\003(G?\370\000\000\000\000\000\000X\001\000\000\000xq\004\205q\005)(K\001K\002"
    "K\003K\004tq\006tq\007X\001\000\000\000cq\010}q\011K\002X\005\000\000\000\303\251\345\220\215q\nu."_p;
const auto protocol4 =
    "\200\004\225X\000\000\000\000\000\000\000}\224(\214\001a\224]\224(K\001J\376\377\377\377M,\001Jp\021\001\000\212"
    "\005\000\016\372\325\376\210\211Ne\214\001b\224(G?\370\000\000\000\000\000\000\214\001x\224\205\224)(K\001K\002"
    "K\003K\004t\224t\224\214\001c\224}\224K\002\214\005\303\251\345\220\215\224u."_p;
const auto protocol5 =
    "\200\005\225X\000\000\000\000\000\000\000}\224(\214\001a\224]\224(K\001J\376\377\377\377M,\001Jp\021\001\000\212"
    "\005\000\016\372\325\376\210\211Ne\214\001b\224(G?\370\000\000\000\000\000\000\214\001x\224\205\224)(K\001K\002"
    "K\003K\004t\224t\224\214\001c\224}\224K\002\214\005\303\251\345\220\215\224u."_p;

TEST(Pickle, AParameterDictHasItsParameters) {
  EXPECT_EQ(repr(read("\200\002ca\ndict\n)\201}(X\013\000\000\000_parameters}X\001\000\000\000*K\001sub."_p)), "{'*': 1}");
  EXPECT_EQ(repr(read("\200\002ca\ndict\n)\201}(X\011\000\000\000_metadata}X\001\000\000\000*K\001sub."_p)), "{}")
      << "other attributes are no entries";
}

TEST(Pickle, ReadsEveryProtocol) {
  const std::string expected =
      "{'a': [1, -2, 300, 70000, -5000000000, true, false, none], 'b': (1.5, ('x'), (), (1, 2, 3, 4)), 'c': {}, 2: ";
  EXPECT_EQ(repr(read(protocol0)), expected + "'ascii'}");
  for (const auto& pickle : {protocol1, protocol2, protocol3, protocol4, protocol5}) EXPECT_EQ(repr(read(pickle)), expected + "'é名'}");
}

TEST(Pickle, ReadsIntegersOfAnyWidth) {
  EXPECT_EQ(*read("\212\000."_p).as_int(), 0);
  EXPECT_EQ(*read("\212\001\377."_p).as_int(), -1);
  EXPECT_EQ(*read("\212\010\000\000\000\000\000\000\000\200."_p).as_int(), INT64_MIN);
  EXPECT_EQ(*read("\212\011\377\377\377\377\377\377\377\177\000."_p).as_int(), INT64_MAX);
  EXPECT_EQ(read("\212\011\377\377\377\377\377\377\377\377\000."_p).as_name()->text(), "0x00ffffffffffffffff");  // 2^64 - 1
  EXPECT_EQ(read("\212\011\000\000\000\000\000\000\000\000\377."_p).as_name()->text(), "0xff0000000000000000");  // -2^64
}

TEST(Pickle, SummariesAreShortAndHarmless) {
  EXPECT_EQ(PickleValue::text("two\nlines\033[31m").summary(), "two lines [31m");
  EXPECT_EQ(PickleValue::text("名前名前名").summary(4), "名前名…");
  EXPECT_EQ(PickleValue::text("名前名前").summary(4), "名前名前");
  EXPECT_LE(PickleValue::text(std::string(100000, '\200')).summary(10).size(), 43u);  // no UTF-8
}

TEST(Pickle, RemembersByReference) {
  // a = []; [a, a] with an element appended to a after it was stored: both see it.
  EXPECT_EQ(repr(read("](]q\001h\001eh\001K\007a0."_p)), "[[7], [7]]");
}

TEST(Pickle, LaterKeysReplaceEarlierOnes) {
  EXPECT_EQ(repr(read("}(U\001aK\001U\001bK\002U\001aK\003K\005K\006K\005K\007u."_p)), "{'a': 3, 'b': 2, 5: 7}");
}

TEST(Pickle, ReadsSetsAsLists) {
  EXPECT_EQ(repr(read("\217(K\001K\002\220."_p)), "[1, 2]");
  EXPECT_EQ(repr(read("(K\001K\002\221."_p)), "[1, 2]");
}

TEST(Pickle, LeavesWhatFollows) {
  TestVocabulary vocabulary;
  auto bytes = "K\001.K\002.rest"_p;
  EXPECT_EQ(*take_pickle(bytes, vocabulary, "file").as_int(), 1);
  EXPECT_EQ(*take_pickle(bytes, vocabulary, "file").as_int(), 2);
  EXPECT_EQ(bytes, "rest");
}

TEST(Pickle, CallsTheVocabularyAlone) {
  EXPECT_EQ(repr(read("ca\ndict\n)R(U\001kK\001u."_p)), "{'k': 1}");
  EXPECT_EQ(repr(read("ca\ndict\n)R}(U\011_metadataK\001ub."_p)), "{}");  // attributes of a dict are no entries
  EXPECT_EQ(repr(read("\214\001a\214\004word\223."_p)), "a.word");
  EXPECT_EQ(repr(read("K\005Q."_p)), "'object 5'");
  EXPECT_EQ(error("cos\nsystem\n(U\004lstR."_p), "refuses 'os.system'");
  EXPECT_EQ(error("ca\nword\n)R."_p), "cannot call 'a.word'");
  EXPECT_EQ(error("K\001)R."_p), "file: its pickle cannot be read: at byte 3: a int is called");
}

TEST(Pickle, RefusesWhatIsDamaged) {
  const std::string at = "file: its pickle cannot be read: at byte ";
  EXPECT_EQ(error(""_p), at + "0: 1 bytes are needed, 0 are left");
  EXPECT_EQ(error("."_p), at + "0: the stack is empty");
  EXPECT_EQ(error("N"_p), at + "1: 1 bytes are needed, 0 are left");
  EXPECT_EQ(error("X\377\377\377\377x."_p), at + "0: 4294967295 bytes are needed, 2 are left");
  EXPECT_EQ(error("\215\377\377\377\377\377\377\377\377."_p), at + "0: 18446744073709551615 bytes are needed, 1 are left");
  EXPECT_EQ(error("h\007."_p), at + "0: nothing was memorized as 7");
  EXPECT_EQ(error("t."_p), at + "0: no mark on the stack");
  EXPECT_EQ(error("K\001(0\205N(\205."_p), at + "7: the stack is empty");  // not the value below the mark
  EXPECT_EQ(error("K\001Na."_p), at + "3: appending to a int");
  EXPECT_EQ(error("](NNu."_p), at + "4: setting an item of a list");
  EXPECT_EQ(error("}(NNNu."_p), at + "5: a dict key without a value");
  EXPECT_EQ(error("}(]Nu."_p), at + "4: a list as the key of a dict");
  EXPECT_EQ(error("I12x\n."_p), at + "0: '12x' is no number");
  EXPECT_EQ(error("Va\\u0041\n."_p), at + "0: escaped text of protocol 0, which brume does not read");
  EXPECT_EQ(error("\200\006N."_p), at + "0: protocol 6 (readable: 0 to 5)");
  EXPECT_EQ(error("\202\001."_p), at + "0: the opcode 0x82, which no plain data needs");
  EXPECT_EQ(error("(ios\nsystem\n."_p), at + "1: the opcode 0x69, which no plain data needs");
  EXPECT_EQ(error("]K\001b."_p), at + "3: attributes for a list");
}

std::string repeated(std::string_view piece, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += piece;
  return all;
}

TEST(Pickle, SurvivesHostileShapes) {
  constexpr size_t many = 1'000'000;
  const std::string wrong = "file: its pickle cannot be read: at byte ";
  // A list of a list of a list ...: freeing it must not recurse either.
  EXPECT_EQ(error(repeated("]", many) + repeated("a", many - 1) + "."), wrong + "1999999: it is nested more than 200 deep");
  EXPECT_EQ(error("N" + repeated("\205", many) + "."), wrong + "1000001: it is nested more than 200 deep");
  EXPECT_EQ(error("N" + repeated("\205", many) + "0K\001."), "no error");  // built, then dropped
  EXPECT_EQ(error(repeated("\205", many) + "."), wrong + "0: the stack is empty");
  // A list that holds itself.
  EXPECT_EQ(error("]q\001h\001a."_p), wrong + "6: a container holds itself");
  EXPECT_EQ(error("]q\001}U\001kh\001sa."_p), wrong + "11: a container holds itself");
  // Each level holds the one before twice: 2^60 values.
  EXPECT_EQ(error("]" + repeated("q\001h\001\206", 60) + "."), wrong + "301: 182 values unfold into 2305843009213693951");
  EXPECT_EQ(error("]" + repeated("q\001h\001\206", 150) + "."), wrong + "751: 452 values unfold into 18446744073709551615");
  EXPECT_EQ(error(repeated("N", size_t{1} << 23) + "."), wrong + "4194304: more than 4194304 objects");
  EXPECT_EQ(error(repeated("(", size_t{1} << 23) + "."), wrong + "4194304: more than 4194304 objects");
}

}  // namespace
}  // namespace brume
