#include "brume/config/out_of_memory.h"

#include <fmt/format.h>

#include <new>
#include <string_view>
#include <system_error>

#include "brume/config/errors.h"

namespace brume {

std::optional<std::string> out_of_memory(const std::exception& e) {
  if (dynamic_cast<const std::bad_alloc*>(&e)) return "";
  if (const auto* system = dynamic_cast<const std::system_error*>(&e)) {  // a thread without room for its stack
    const bool room = system->code() == std::errc::resource_unavailable_try_again || system->code() == std::errc::not_enough_memory;
    return room ? std::optional<std::string>("") : std::nullopt;
  }
  if (dynamic_cast<const ConfigError*>(&e) || dynamic_cast<const Interrupted*>(&e)) return {};  // whatever they say
  const std::string_view what = e.what(), asked = "you tried to allocate ";                     // LibTorch
  if (what.find("can't allocate memory") == std::string_view::npos && what.find("out of memory") == std::string_view::npos) return {};
  const size_t from = what.find(asked), to = from == std::string_view::npos ? from : what.find(" bytes", from);
  if (to == std::string_view::npos) return "";
  return fmt::format(" for {} bytes", what.substr(from + asked.size(), to - from - asked.size()));
}

int64_t largest_that_fits(int64_t most, int64_t least, const std::function<void(int64_t)>& attempt) {
  for (int64_t size = most; size >= least; size /= 2) try {
      attempt(size);
      return size;
    } catch (const std::exception& e) {
      if (!out_of_memory(e)) throw;
    }
  return 0;
}

}  // namespace brume
