#pragma once
// The files of the studio, the page of `brume serve`.
#include <optional>
#include <string>
#include <string_view>

namespace brume::tools {

/// What the page may load: its own scripts, styles and pictures, nothing inline and nothing from elsewhere.
inline constexpr const char* studio_policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

struct StudioFile {
  std::string_view content;
  const char* type;  ///< of HTTP: "text/javascript; charset=utf-8"
};

/// Returns a file of the studio by its name, "index.html"; nothing if no file has it.
std::optional<StudioFile> studio_file(std::string_view name);

/// Returns {"examples": [{"name", "yaml"}]}: the experiments that are whole in one file and name no data of the machine.
std::string examples_json();

}  // namespace brume::tools
