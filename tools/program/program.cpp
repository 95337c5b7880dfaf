#include "program/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <mutex>
#include <random>
#include <set>

#include "brume/config/number.h"

namespace brume::tools {

std::atomic<bool> interrupted{false};

void catch_interrupt() {
  struct sigaction action = {};
  action.sa_handler = [](int signal) {
    if (interrupted.exchange(true) && signal == SIGINT) _exit(130);  // launchers send SIGTERM after Ctrl-C
  };
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

void print_warning(const std::string& text) {
  static std::mutex lock;
  static std::set<std::string> printed;
  const std::lock_guard guard(lock);
  if (printed.insert(text).second) fmt::print(stderr, "warning: {}\n", text);
}

namespace {

/// Makes a seed of "-1", and prints it so that the run can be repeated.
std::string drawn_seed(const std::string& text) {
  if (text != "-1") return text;
  const std::string seed = std::to_string(std::random_device()());
  fmt::print(stderr, "seed: {}\n", seed);
  return seed;
}

}  // namespace

CommandOption add_seed(Command command, uint64_t& seed) {
  const auto check = [](const std::string& text) -> std::string {
    if (parse_number<uint64_t>(text)) return "";
    return fmt::format("{} is no whole number from 0 to 18446744073709551615, and not -1", text);
  };
  return command.add_option("--seed", seed, "of the noise; -1 = a random one, which is printed")
      .capture_default_str()
      .check(check)
      .transform(drawn_seed);
}

const std::vector<Option<Overrides>>& Overrides::options() {
  static const std::vector<Option<Overrides>> all{
      option<Overrides>(
          "--set", "settings", [](auto& o) -> auto& { return o.set; },
          "overrides a value of the configuration, like sample.steps=20 or sample.guidance.0.scale=3",
          [](CommandOption o) { o.type_name("KEY=VALUE").take_all(); }),
      option<Overrides>(
          "--precision", "precision", [](auto& o) -> auto& { return o.precision; }, "auto, fp32, bf16 or int8"),
      option<Overrides>(
          "--device", "device", [](auto& o) -> auto& { return o.device; }, "cpu, cuda, cuda:1", {}, false),
      option<Overrides>(
          "--threads", "threads", [](auto& o) -> auto& { return o.threads; }, "processor threads; 0 = all cores", {}, false)};
  return all;
}

void Overrides::add_to(Command command) {
  for (const Option<Overrides>& o : options()) o.declare(command, *this);
}

void Overrides::apply(Value& root) const {
  for (const std::string& assignment : set) apply_override(root, assignment, "--set");
  if (!precision.empty()) apply_override(root, "compute.precision", precision, "--precision " + precision);
  if (!device.empty()) apply_override(root, "compute.device", device, "--device " + device);
  if (threads) apply_override(root, "compute.threads", std::to_string(*threads), fmt::format("--threads {}", *threads));
}

}  // namespace brume::tools
