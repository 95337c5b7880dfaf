#include "serve/form.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "brume/config/utf8.h"

namespace brume::tools {
namespace {

constexpr size_t most_parts = 1000;
constexpr size_t longest_head = 8192;  ///< bytes of a part's header lines

[[noreturn]] void refuse(const char* why) { throw HttpError(400, fmt::format("the form {}", why), "body", "invalid_form"); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Returns the parameter `name` of a header's value, `form-data; name="a"`; nothing if it has none. A quote within quotes follows a
/// backslash, or is %22.
std::optional<std::string> parameter(std::string_view value, std::string_view name) {
  size_t at = std::min(value.find(';'), value.size());
  while (at < value.size()) {
    const size_t equals = value.find('=', at);
    if (equals == value.npos) return {};
    std::string_view key = value.substr(at + 1, equals - at - 1);
    key = trimmed(key.substr(key.rfind(';') + 1));
    std::string text;
    if (equals + 1 < value.size() && value[equals + 1] == '"') {
      for (at = equals + 2; at < value.size() && value[at] != '"'; ++at) {
        if (value[at] == '\\' && at + 1 < value.size() && (value[at + 1] == '"' || value[at + 1] == '\\')) ++at;
        text += value[at];
      }
      if (at == value.size()) return {};  // the quote is not closed
      at = std::min(value.find(';', at), value.size());
    } else {
      at = std::min(value.find(';', equals), value.size());
      text = trimmed(value.substr(equals + 1, at - equals - 1));
    }
    if (lower_case(key) == name) return text;
  }
  return {};
}

/// Returns the value of a header in the lines of a part; "" if it is absent.
std::string_view header_in(std::string_view head, std::string_view name) {
  while (!head.empty()) {
    const size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    const size_t colon = line.find(':');
    if (colon != line.npos && lower_case(trimmed(line.substr(0, colon))) == name) return trimmed(line.substr(colon + 1));
    head.remove_prefix(std::min(end + 2, head.size()));
  }
  return {};
}

FormPart part_of(std::string_view text) {
  const size_t end = text.starts_with("\r\n") ? 0 : text.find("\r\n\r\n");
  if (end == text.npos || end > longest_head) refuse("has a part whose header does not end");
  const std::string_view disposition = header_in(text.substr(0, end), "content-disposition");
  const auto name = parameter(disposition, "name");
  if (!name || name->empty()) refuse("has a part without a name");
  if (invalid_utf8(*name)) refuse("has a part whose name is no UTF-8");
  return {*name, text.substr(end == 0 ? 2 : end + 4), parameter(disposition, "filename").value_or("")};
}

}  // namespace

bool is_form(std::string_view content_type) { return lower_case(content_type.substr(0, 19)) == "multipart/form-data"; }

std::vector<FormPart> form_parts(std::string_view content_type, std::string_view body) {
  const auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > 70) refuse("has no boundary of 1 to 70 characters");
  const std::string first = "--" + *boundary, between = "\r\n" + first;
  std::string_view rest = body;
  if (rest.starts_with(first)) {
    rest.remove_prefix(first.size());
  } else {
    const size_t begin = rest.find(between);
    if (begin == rest.npos) refuse("does not begin with its boundary");
    rest.remove_prefix(begin + between.size());
  }
  std::vector<FormPart> parts;
  while (!rest.starts_with("--")) {
    while (rest.starts_with(" ") || rest.starts_with("\t")) rest.remove_prefix(1);
    if (!rest.starts_with("\r\n")) refuse("has a boundary that no line end follows");
    rest.remove_prefix(2);
    const size_t end = rest.find(between);
    if (end == rest.npos) refuse("is cut short");
    if (parts.size() == most_parts) refuse("has more than 1000 parts");
    parts.push_back(part_of(rest.substr(0, end)));
    rest.remove_prefix(end + between.size());
  }
  return parts;
}

}  // namespace brume::tools
