#include "brume/config/out_of_memory.h"

#include <fmt/format.h>

#include <new>
#include <string_view>

namespace brume {

std::optional<std::string> out_of_memory(const std::exception& e) {
  if (dynamic_cast<const std::bad_alloc*>(&e)) return "";
  const std::string_view what = e.what(), asked = "you tried to allocate ";  // LibTorch
  if (what.find("can't allocate memory") == std::string_view::npos && what.find("out of memory") == std::string_view::npos) return {};
  const size_t from = what.find(asked), to = from == std::string_view::npos ? from : what.find(" bytes", from);
  if (to == std::string_view::npos) return "";
  return fmt::format(" for {} bytes", what.substr(from + asked.size(), to - from - asked.size()));
}

}  // namespace brume
