#include "brume/experiments/sweep_section.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/core/seed.h"

namespace brume {
namespace {

constexpr int64_t most_runs = 100000;
const std::vector<std::string> keys_of_sweep{"grid", "zip", "random", "repeat", "commands"};
const std::vector<std::string> commands_of_runs{"evaluate", "sample", "likelihood", "invert", "encode", "export"};

/// Reads one section and gathers its mistakes.
class Reader {
 public:
  explicit Reader(const Value& root) : root_(root) {}

  SweepSection read() {
    const Value* sweep = root_.find("sweep");
    if (!sweep) throw ConfigError("the configuration has no section 'sweep'");
    if (!sweep->is_map()) throw ConfigError(std::vector<Problem>{{sweep->place, "sweep", sweep->kind_text() + " is no map"}});
    known(*sweep, "sweep", keys_of_sweep);
    if (const Value* grid = sweep->find("grid")) read_grid(*grid);
    if (const Value* zip = sweep->find("zip")) read_zip(*zip);
    if (const Value* random = sweep->find("random")) read_random(*random);
    if (const Value* repeat = sweep->find("repeat")) read_repeat(*repeat);
    if (const Value* commands = sweep->find("commands")) read_commands(*commands);
    twice();
    size_t runs = 1;
    for (const SweepAxis& axis : section_.axes) runs = std::min<size_t>(runs * axis.rows.size(), size_t(most_runs) + 1);
    if (section_.axes.empty()) fail(sweep->place, "sweep", "varies nothing; it takes grid, zip, random or repeat");
    if (runs > size_t(most_runs)) fail(sweep->place, "sweep", fmt::format("stands for more than {} runs", most_runs));
    if (!problems_.empty()) throw ConfigError(std::move(problems_));
    return std::move(section_);
  }

 private:
  void fail(const Place& place, const std::string& path, const std::string& message) { problems_.push_back({place, path, message}); }

  void known(const Value& map, const std::string& path, const std::vector<std::string>& keys) {
    for (const Value::Entry& e : map.entries)
      if (std::find(keys.begin(), keys.end(), e.key) == keys.end())
        fail(e.place, path, fmt::format("unknown key '{}'{}", e.key, hint(e.key, keys)));
  }

  bool is_map(const Value& value, const std::string& path) {
    if (value.is_map() && !value.entries.empty()) return true;
    fail(value.place, path, fmt::format("{} is no map of keys", value.kind_text()));
    return false;
  }

  /// Returns true if a key can be varied.
  bool may_vary(const Value::Entry& e, const std::string& path) {
    const std::string last = e.key.substr(e.key.rfind('.') + 1);
    if (last == "include") return fail(e.place, path, "include is read before the sweep; vary the keys that it includes"), false;
    if (e.key == "sweep" || e.key.starts_with("sweep.")) return fail(e.place, path, "a sweep cannot vary itself"), false;
    if (e.key.empty() || e.key.starts_with('.') || e.key.ends_with('.'))
      return fail(e.place, path, fmt::format("'{}' is no key, such as train.optimizer.lr", e.key)), false;
    return true;
  }

  bool is_values(const Value::Entry& e, const std::string& path) {
    if (e.value.is_list() && !e.value.items.empty()) return may_vary(e, path);
    fail(e.value.place, path, fmt::format("{}: {} is no list of values", e.key, e.value.kind_text()));
    return false;
  }

  void read_grid(const Value& grid) {
    if (!is_map(grid, "sweep.grid")) return;
    for (const Value::Entry& e : grid.entries) {
      if (!is_values(e, "sweep.grid")) continue;
      SweepAxis axis{{e.key}, {}};
      for (const Value& value : e.value.items) axis.rows.push_back({value});
      section_.axes.push_back(std::move(axis));
    }
  }

  void read_zip(const Value& zip) {
    if (!is_map(zip, "sweep.zip")) return;
    SweepAxis axis;
    for (const Value::Entry& e : zip.entries) {
      if (!is_values(e, "sweep.zip")) continue;
      if (!axis.keys.empty() && e.value.items.size() != axis.rows.size()) {
        fail(e.value.place, "sweep.zip",
             fmt::format("{} has {} and {} has {}", e.key, counted(e.value.items.size(), "value"), axis.keys.front(), axis.rows.size()));
        continue;
      }
      axis.keys.push_back(e.key);
      axis.rows.resize(e.value.items.size());
      for (size_t i = 0; i < axis.rows.size(); ++i) axis.rows[i].push_back(e.value.items[i]);
    }
    if (!axis.keys.empty()) section_.axes.push_back(std::move(axis));
  }

  std::optional<int64_t> whole(const Value* value, const std::string& path, int64_t least, int64_t most) {
    const auto number = value && value->is_scalar() ? parse_number<int64_t>(value->scalar) : std::nullopt;
    if (value && number && *number >= least && *number <= most) return number;
    if (value) fail(value->place, path, fmt::format("{} is no whole number from {} to {}", value->kind_text(), least, most));
    return {};
  }

  void read_random(const Value& random) {
    if (!is_map(random, "sweep.random")) return;
    known(random, "sweep.random", {"count", "seed", "ranges"});
    const Value *count = random.find("count"), *ranges = random.find("ranges"), *seed_value = random.find("seed");
    if (!count) fail(random.place, "sweep.random", "needs count, the number of draws");
    if (!ranges) fail(random.place, "sweep.random", "needs ranges");
    const auto draws = whole(count, "sweep.random.count", 1, most_runs);
    const uint64_t seed = uint64_t(whole(seed_value, "sweep.random.seed", 0, int64_t(1) << 62).value_or(0));
    if (!draws || !ranges || !is_map(*ranges, "sweep.random.ranges")) return;
    SweepAxis axis;
    axis.rows.resize(size_t(*draws));
    for (const Value::Entry& e : ranges->entries) {
      const auto draw = read_range(e);
      if (!draw) continue;
      for (size_t i = 0; i < axis.rows.size(); ++i) {
        constexpr double units = 1.0 / double(uint64_t(1) << 53);
        axis.rows[i].push_back(Value::text(draw(double(mix_seed(seed, axis.keys.size(), i) >> 11) * units)));
      }
      axis.keys.push_back(e.key);
    }
    if (!axis.keys.empty()) section_.axes.push_back(std::move(axis));
  }

  /// Returns the text of the value at a uniform number in [0, 1): a whole number if both ends are, else four digits.
  std::function<std::string(double)> read_range(const Value::Entry& e) {
    const std::string path = "sweep.random.ranges." + e.key;
    if (!may_vary(e, "sweep.random.ranges") || !is_map(e.value, path)) return {};
    known(e.value, path, {"from", "to", "scale"});
    const auto end = [&](const char* name) -> std::optional<double> {
      const Value* value = e.value.find(name);
      const auto number = value && value->is_scalar() ? parse_signed_number<double>(value->scalar) : std::nullopt;
      if (!number || !std::isfinite(*number)) fail(value ? value->place : e.place, path, fmt::format("{} must be a number", name));
      return number && std::isfinite(*number) ? number : std::nullopt;
    };
    const auto from = end("from"), to = end("to");
    const Value* scale = e.value.find("scale");
    const std::string word = scale ? scale->scalar : "linear";
    if (word != "linear" && word != "log")
      fail(scale->place, path, fmt::format("scale = {} is not allowed{}", scale->kind_text(), hint(word, {"linear", "log"})));
    if (!from || !to) return {};
    if (*from > *to) return fail(e.value.place, path, fmt::format("from = {} is above to = {}", *from, *to)), nullptr;
    const bool log = word == "log";
    if (log && *from <= 0) return fail(e.value.place, path, fmt::format("from = {} must be above 0 on a log scale", *from)), nullptr;
    const bool integers = parse_number<int64_t>(e.value.find("from")->scalar) && parse_number<int64_t>(e.value.find("to")->scalar);
    return [=, lo = *from, hi = *to](double u) {
      const double width = integers ? hi + 1 - lo : hi - lo;
      const double x = log ? lo * std::pow((lo + width) / lo, u) : lo + u * width;
      return integers ? fmt::format("{}", int64_t(std::min(hi, std::floor(x)))) : fmt::format("{:.4g}", x);
    };
  }

  void read_repeat(const Value& repeat) {
    const auto times = whole(&repeat, "sweep.repeat", 1, most_runs);
    if (!times) return;
    const Value* train = root_.find("train");
    const Value* first = train ? train->find("seed") : nullptr;
    const int64_t seed = first && first->is_scalar() ? parse_number<int64_t>(first->scalar).value_or(0) : 0;
    SweepAxis axis{{"train.seed"}, {}};
    for (int64_t i = 0; i < *times; ++i) axis.rows.push_back({Value::text(std::to_string(seed + i))});
    section_.axes.push_back(std::move(axis));
  }

  void read_commands(const Value& commands) {
    if (!commands.is_list()) return fail(commands.place, "sweep.commands", commands.kind_text() + " is no list of commands");
    for (const Value& command : commands.items) {
      try {
        section_.commands.push_back(read_command(command));
      } catch (const ConfigError& e) {
        fail(command.place, "sweep.commands", e.what());
      }
    }
  }

  std::vector<std::string> read_command(const Value& command) {
    std::vector<std::string> words;
    for (const Value& item : command.items)
      words.push_back(item.is_scalar() ? item.scalar : throw ConfigError("a word of a command is text"));
    if (command.is_scalar()) words = words_of(command.scalar);
    if (words.empty()) throw ConfigError(command.kind_text() + " is no command");
    if (std::find(commands_of_runs.begin(), commands_of_runs.end(), words.front()) == commands_of_runs.end())
      throw ConfigError(fmt::format("'{}' is no command for runs{}", words.front(), hint(words.front(), commands_of_runs)));
    return words;
  }

  void twice() {
    std::vector<std::string> seen;
    for (const SweepAxis& axis : section_.axes)
      for (const std::string& key : axis.keys) {
        if (std::find(seen.begin(), seen.end(), key) != seen.end())
          fail(root_.find("sweep")->place, "sweep", fmt::format("{} is varied twice", key));
        seen.push_back(key);
      }
  }

  const Value& root_;
  SweepSection section_;
  std::vector<Problem> problems_;
};

}  // namespace

SweepSection read_sweep_section(const Value& root) { return Reader(root).read(); }

std::vector<std::string> words_of(const std::string& command) {
  std::vector<std::string> words;
  std::string word;
  bool open = false;
  char quote = 0;
  for (const char c : command) {
    if (quote) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '\'' || c == '"') {
      quote = c, open = true;
    } else if (c == ' ' || c == '\t' || c == '\n') {
      if (open) words.push_back(std::exchange(word, ""));
      open = false;
    } else {
      word += c, open = true;
    }
  }
  if (quote) throw ConfigError(fmt::format("a quote {} is not closed: {}", quote, command));
  if (open) words.push_back(word);
  return words;
}

}  // namespace brume
