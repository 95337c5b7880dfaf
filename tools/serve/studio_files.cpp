#include "serve/studio_files.h"

#include <nlohmann/json.hpp>

#include "program/embedded.h"

namespace brume::tools {

std::optional<StudioFile> studio_file(std::string_view name) {
  const auto at = studio().find(name);
  if (at == studio().end()) return {};
  const char* type = name.ends_with(".js")     ? "text/javascript; charset=utf-8"
                     : name.ends_with(".css")  ? "text/css; charset=utf-8"
                     : name.ends_with(".svg")  ? "image/svg+xml"
                     : name.ends_with(".html") ? "text/html; charset=utf-8"
                                               : "text/plain; charset=utf-8";
  return StudioFile{at->second, type};
}

std::string examples_json() {
  nlohmann::ordered_json examples = nlohmann::ordered_json::array();
  for (const auto& [name, yaml] : experiments())
    if (yaml.find("include:") == yaml.npos && yaml.find("path") == yaml.npos && yaml.find("from:") == yaml.npos)
      examples.push_back({{"name", name}, {"yaml", yaml}});
  return nlohmann::ordered_json{{"examples", examples}}.dump();
}

}  // namespace brume::tools
