#include "program/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <mutex>
#include <set>

#include "brume/config/suggest.h"

namespace brume::tools {

std::atomic<bool> interrupted{false};

void catch_interrupt() {
  struct sigaction action = {};
  action.sa_handler = [](int) {
    if (interrupted.exchange(true)) _exit(130);
  };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void print_warning(const std::string& text) {
  static std::mutex lock;
  static std::set<std::string> printed;
  const std::lock_guard guard(lock);
  if (printed.insert(text).second) fmt::print(stderr, "warning: {}\n", text);
}

CLI::Validator one_of(const std::vector<std::string>& words) {
  const auto check = [words](const std::string& text) -> std::string {
    return std::find(words.begin(), words.end(), text) != words.end() ? "" : fmt::format("unknown value '{}'{}", text, hint(text, words));
  };
  return CLI::Validator(check, "{" + CLI::detail::join(words) + "}");
}

namespace {

std::vector<std::string> options_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* at = &command; at; at = at->get_parent())
    for (const CLI::Option* option : at->get_options())
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::vector<std::string> commands_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* below : command.get_subcommands([](const CLI::App*) { return true; })) names.push_back(below->get_name());
  return names;
}

}  // namespace

std::string unknown_words(const CLI::App& app) {
  const CLI::App* command = &app;
  std::string path = "brume";
  while (!command->get_subcommands().empty()) command = command->get_subcommands().front(), path += " " + command->get_name();
  const std::vector<std::string> words = app.remaining(true), commands = commands_of(*command);
  const auto option = std::find_if(words.begin(), words.end(), [](const std::string& w) { return w.starts_with("--"); });
  if (!commands.empty() && !words.empty() && !words.front().starts_with("-"))
    return fmt::format("unknown command '{}'{}", words.front(), hint(words.front(), commands));
  if (option == words.end()) return "";
  const std::string name = option->substr(0, option->find('=')), near = closest(name, options_of(*command));
  return fmt::format("{}: unknown option '{}'; {}", path, name,
                     near.empty() ? fmt::format("{} --help lists those there are", path) : fmt::format("did you mean '{}'?", near));
}

CLI::Option* add_seed(CLI::App& command, uint64_t& seed) {
  const auto check = [](const std::string& text) -> std::string {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return "";
    return fmt::format("{} is no whole number from 0 to 18446744073709551615", text);
  };
  return command.add_option("--seed", seed, "of the noise")->capture_default_str()->check(check);
}

const std::vector<Option<Overrides>>& Overrides::options() {
  static const std::vector<Option<Overrides>> all{
      option<Overrides>(
          "--set", "settings", [](auto& o) -> auto& { return o.set; },
          "override a value of the configuration, like sample.steps=20 or sample.guidance.0.scale=3",
          [](CLI::Option& o) { o.type_name("KEY=VALUE")->take_all(); }),
      option<Overrides>(
          "--precision", "precision", [](auto& o) -> auto& { return o.precision; }, "auto, fp32 or bf16"),
      option<Overrides>(
          "--device", "device", [](auto& o) -> auto& { return o.device; }, "cpu, cuda, cuda:1", {}, false),
      option<Overrides>(
          "--threads", "threads", [](auto& o) -> auto& { return o.threads; }, "processor threads; 0 = all cores", {}, false)};
  return all;
}

void Overrides::add_to(CLI::App& command) {
  for (const Option<Overrides>& o : options()) o.declare(command, *this);
}

void Overrides::apply(Value& root) const {
  for (const std::string& assignment : set) apply_override(root, assignment);
  if (!precision.empty()) apply_override(root, "compute.precision", precision, "--precision " + precision);
  if (!device.empty()) apply_override(root, "compute.device", device, "--device " + device);
  if (threads) apply_override(root, "compute.threads", std::to_string(*threads), fmt::format("--threads {}", *threads));
}

}  // namespace brume::tools
