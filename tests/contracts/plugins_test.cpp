// What every plugin of every kind keeps: its defaults read, its resolved dump reads back, a wrong key is refused, and it says
// what it is.
#include <set>

#include "support/registry.h"

namespace brume::test {
namespace {

class EveryPlugin : public testing::TestWithParam<Specimen> {
 protected:
  /// The options with every default written out.
  std::string resolved(const std::string& yaml) const {
    Value full;
    read_plugin(builtins(), GetParam().kind, parse_yaml(yaml, "test.yaml"), "here", &full);
    return dump_yaml(full);
  }
};

TEST_P(EveryPlugin, ItsDefaultsReadAndItsDumpReadsBack) {
  const std::string once = resolved(GetParam().yaml);
  EXPECT_EQ(once.substr(0, once.find('\n')), "type: " + GetParam().name);
  EXPECT_EQ(resolved(once), once);
}

TEST_P(EveryPlugin, AnUnknownKeyIsRefused) {
  const std::string said = error_of([&] { resolved("{type: " + GetParam().name + ", zzz: 1}"); });
  EXPECT_NE(said.find("unknown key 'zzz'"), std::string::npos) << said;
  EXPECT_NE(said.find("here: "), std::string::npos) << said;
}

TEST_P(EveryPlugin, SaysWhatItIs) {
  const Entry& entry = builtins().entry(GetParam().kind, GetParam().name);
  EXPECT_FALSE(entry.doc.empty());
  EXPECT_FALSE(entry.origin.empty());
  const std::string text = describe(builtins(), GetParam().kind, GetParam().name);
  EXPECT_TRUE(text.starts_with(GetParam().kind + " " + GetParam().name + " (" + entry.origin + ")\n  " + entry.doc + "\n")) << text;
  EXPECT_NE(describe_markdown(builtins(), GetParam().kind, GetParam().name).find("### " + GetParam().name), std::string::npos);
}

/// Every parameter has a name in the common style and a meaning; every key is declared once.
class Parameters final : public Fields {
 public:
  void field(std::string_view n, bool&, std::string_view d) override { seen(n, d); }
  void field(std::string_view n, int64_t& v, std::string_view d, Range r) override { number(n, double(v), d, r); }
  void field(std::string_view n, double& v, std::string_view d, Range r) override { number(n, v, d, r); }
  void field(std::string_view n, std::string&, std::string_view d) override { seen(n, d); }
  void field(std::string_view n, std::filesystem::path&, std::string_view d) override { seen(n, d); }
  void field(std::string_view n, std::optional<int64_t>& v, std::string_view d, Range r) override {
    number(n, v ? double(*v) : r.hi, d, r);
  }
  void field(std::string_view n, std::optional<double>& v, std::string_view d, Range r) override { number(n, v.value_or(r.hi), d, r); }
  void field(std::string_view n, std::vector<int64_t>& v, std::string_view d, Range r) override {
    seen(n, d);
    for (const int64_t x : v) inside(n, double(x), r);
  }
  void field(std::string_view n, std::vector<double>& v, std::string_view d, Range r) override {
    seen(n, d);
    for (const double x : v) inside(n, x, r);
  }
  void field(std::string_view n, std::vector<std::string>&, std::string_view d) override { seen(n, d); }
  void field(std::string_view n, std::map<std::string, std::string>&, std::string_view d) override { seen(n, d); }
  void choice(std::string_view n, std::string& v, std::string_view d, std::vector<std::string> words) override {
    seen(n, d);
    EXPECT_TRUE(std::set<std::string>(words.begin(), words.end()).contains(v)) << n << " is '" << v << "' by default";
    EXPECT_EQ(std::set<std::string>(words.begin(), words.end()).size(), words.size()) << n;
  }
  void renamed(std::string_view former, std::string_view name) override {
    EXPECT_FALSE(keys_.contains(prefix_ + std::string(former))) << former << " is a key still";
    EXPECT_FALSE(keys_.contains(prefix_ + std::string(name))) << name << " is declared before its former name";
  }
  void require(bool ok, std::string_view key, std::string_view rule, std::string_view) override {
    EXPECT_TRUE(ok) << "the defaults break a rule: " << key << ": " << rule;
    EXPECT_TRUE(keys_.contains(prefix_ + std::string(key))) << "a rule names the key '" << key << "', which is not declared";
    EXPECT_TRUE(rules_.insert(std::string(key) + ": " + std::string(rule)).second) << "a rule is stated twice: " << rule;
  }
  void unused(bool, std::string_view key, std::string_view when) override {
    EXPECT_TRUE(keys_.contains(prefix_ + std::string(key))) << "a warning names the key '" << key << "', which is not declared";
    EXPECT_FALSE(when.empty()) << key;
  }

 protected:
  void plugin(std::string_view n, std::string_view kind, std::string_view d, std::string_view fallback, Set) override {
    seen(n, d);
    if (!fallback.empty()) {
      EXPECT_NO_THROW(builtins().entry(kind, fallback)) << n;
    }
  }
  void plugins(std::string_view n, std::string_view, std::string_view d, std::function<void()>, Set) override { seen(n, d); }
  void section_list(std::string_view n, std::string_view d, std::function<void()>, std::function<void()> declare) override {
    open(n, d, true);
    declare();
    close();
  }
  bool open(std::string_view n, std::string_view d, bool) override {
    seen(n, d);
    prefix_ += std::string(n) + ".";
    return true;
  }
  void close() override { prefix_.erase(prefix_.rfind('.', prefix_.size() - 2) + 1); }

 private:
  void seen(std::string_view name, std::string_view doc) {
    EXPECT_FALSE(doc.empty()) << name;
    EXPECT_NE(name, "type");
    EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), name.npos) << name;
    EXPECT_TRUE(keys_.insert(prefix_ + std::string(name)).second) << name << " is declared twice";
  }
  void inside(std::string_view name, double x, const Range& r) {
    EXPECT_TRUE(x >= r.lo && x <= r.hi && !(r.open_lo && x == r.lo)) << name << " = " << x << " by default, which is outside its range";
  }
  void number(std::string_view name, double x, std::string_view doc, const Range& r) {
    seen(name, doc);
    inside(name, x, r);
  }
  std::set<std::string> keys_, rules_;
  std::string prefix_;
};

TEST_P(EveryPlugin, ItsParametersAreSound) {
  Parameters parameters;
  builtins().entry(GetParam().kind, GetParam().name).declare(parameters);
}

INSTANTIATE_TEST_SUITE_P(Registry, EveryPlugin, testing::ValuesIn(every_plugin()), readable);

TEST(EveryPluginTable, HasEveryKind) {
  std::set<std::string> kinds;
  for (const Specimen& s : every_plugin()) kinds.insert(s.kind);
  for (const char* kind :
       {"adapter",         "autoencoder", "conditioner",     "dataset",        "features",     "guidance",  "lr_schedule",
        "metric",          "network",     "noise_embedding", "noise_schedule", "objective",    "optimizer", "parameterization",
        "perceptual_loss", "sampler",     "set_metric",      "spacing",        "time_sampler", "weighting"})
    EXPECT_TRUE(kinds.contains(kind)) << kind;
}

}  // namespace
}  // namespace brume::test
