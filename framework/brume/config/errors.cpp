#include "brume/config/errors.h"

#include <fmt/format.h>

namespace brume {
namespace {

std::string joined(const std::vector<Problem>& problems) {
  std::string text;
  for (const Problem& p : problems) text += (text.empty() ? "" : "\n") + p.text();
  return text;
}

}  // namespace

std::string Place::text() const {
  if (!file) return "";
  return line > 0 ? fmt::format("{}:{}:{}", *file, line, column) : *file;
}

std::string Problem::text() const {
  const std::string where = place.text();
  std::string text = where.empty() ? "" : where + ": ";
  if (!path.empty()) text += path + ": ";
  return text + message;
}

ConfigError::ConfigError(std::string message) : ConfigError(std::vector<Problem>{{{}, "", std::move(message)}}) {}

ConfigError::ConfigError(std::vector<Problem> problems) : std::runtime_error(joined(problems)), problems_(std::move(problems)) {}

ConfigError ConfigError::located(const Place& place, const std::string& path) const {
  std::vector<Problem> problems = problems_;
  for (Problem& p : problems) {
    if (p.place.file) continue;
    p.place = place;
    if (p.path.empty()) p.path = path;
  }
  return ConfigError(std::move(problems));
}

}  // namespace brume
