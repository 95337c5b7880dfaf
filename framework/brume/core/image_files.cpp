#include "brume/core/image_files.h"

#include <fmt/format.h>

#include <algorithm>

namespace brume {

void Inventory::leave_out(std::string_view reason, const std::string& name) {
  auto found = std::find_if(left_out_.begin(), left_out_.end(), [&](const LeftOut& l) { return l.reason == reason; });
  if (found == left_out_.end()) found = left_out_.insert(found, {std::string(reason), 0, name});
  ++found->count;
}

std::string Inventory::text() const {
  std::string text;
  for (const auto& [reason, count, example] : left_out_)
    text += fmt::format("{}{} {} ({}{})", text.empty() ? "" : ", ", count, reason, count > 1 ? "first: " : "", example);
  return text;
}

}  // namespace brume
