#pragma once
// A file of latent diffusion while it is read: its tensors, its configuration, and what was said on the command line.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/errors.h"
#include "brume/interop/import/import.h"
#include "brume/interop/import/ldm_config.h"
#include "brume/interop/import/ldm_parts.h"

namespace brume {

constexpr std::string_view first_stage_prefix = "first_stage_model.";

bool any_begins(const NamedTensors& tensors, std::string_view prefix);

struct LdmReading {
  /// Throws ConfigError if a setting is unknown, or the configuration is none of latent diffusion.
  LdmReading(const Source& source, const ImportOptions& options);

  const std::string* setting(const std::string& name) const;
  /// Returns a setting that is a number, or what the configuration says at `path`.
  std::optional<double> number(const std::string& name, std::string_view path) const;
  std::optional<int64_t> integer(const std::string& name, std::string_view path) const;
  /// Returns a setting that is true or false.
  std::optional<bool> truth(const std::string& name) const;
  /// Throws ConfigError: the file, and what is wrong with it.
  [[noreturn]] void refuse(const std::string& what) const;
  /// Returns what `read` makes of tensors; its errors name the file.
  template <class F>
  auto of_tensors(const F& read) const {
    try {
      return read();
    } catch (const ConfigError& e) {
      throw e.located({std::make_shared<const std::string>(source.path.string())}, "");
    }
  }

  const Source& source;
  const ImportOptions& options;
  LdmConfig config;
  std::vector<std::string> losses;  ///< of Imported, so far
};

}  // namespace brume
