#include "program.h"

#include <unistd.h>
#include <csignal>

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

void Overrides::add_to(CLI::App& command) {
  command.add_option("--set", set, "override a value of the configuration, like sample.steps=20 or sample.guidance.0.scale=3")
      ->type_name("KEY=VALUE")
      ->take_all();
  command.add_option("--precision", precision, "auto, fp32 or bf16");
  command.add_option("--device", device, "cpu, cuda, cuda:1");
  command.add_option("--threads", threads, "processor threads; 0 = all cores");
}

void Overrides::apply(Value& root) const {
  for (const std::string& assignment : set) apply_override(root, assignment);
  if (!precision.empty()) apply_override(root, "compute.precision", precision, "--precision " + precision);
  if (!device.empty()) apply_override(root, "compute.device", device, "--device " + device);
  if (!threads.empty()) apply_override(root, "compute.threads", threads, "--threads " + threads);
}

}  // namespace brume::tools
