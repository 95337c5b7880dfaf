#pragma once
// What is known of a latent diffusion model while it is read: its tensors, the YAML beside it, and what is set.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/import/import.h"
#include "io/import/ldm_config.h"

namespace brume::io {

struct LdmReading {
  const Source& source;
  const ImportOptions& options;
  LdmConfig config{};
  std::vector<std::string> losses{};  ///< so far

  const std::string* setting(const std::string& name) const;
  /// A setting that is a number above 0, or what the configuration says at `path`.
  std::optional<double> number(const std::string& name, std::string_view path) const;
  std::optional<int64_t> integer(const std::string& name, std::string_view path) const;
  /// A setting that is true or false.
  std::optional<bool> truth(const std::string& name) const;
  [[noreturn]] void refuse(const std::string& what) const;
};

}  // namespace brume::io
