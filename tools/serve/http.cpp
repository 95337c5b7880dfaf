#include "serve/http.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "brume/config/utf8.h"

namespace brume::tools {
namespace {

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Returns the part before the next slash, and removes both.
std::string_view next_segment(std::string_view& path) {
  const size_t slash = std::min(path.find('/'), path.size());
  const std::string_view segment = path.substr(0, slash);
  path.remove_prefix(std::min(slash + 1, path.size()));
  return segment;
}

std::string found_in(const std::map<std::string, std::string, std::less<>>& all, std::string_view name) {
  const auto at = all.find(name);
  return at == all.end() ? "" : at->second;
}

/// Returns the kinds of errors of OpenAI's API.
const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

}  // namespace

std::string HttpRequest::header_value(std::string_view name) const { return found_in(header, name); }
std::string HttpRequest::query_value(std::string_view name) const { return found_in(query, name); }

std::string error_json(int status, const std::string& message, const std::string& field, const std::string& code) {
  nlohmann::ordered_json error{{"message", message}, {"type", type_of(status)}, {"param", nullptr}, {"code", nullptr}};
  if (!field.empty()) error["param"] = field;
  if (!code.empty()) error["code"] = code;
  const nlohmann::ordered_json body{{"error", error}, {"detail", message}};
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool equal_in_constant_time(std::string_view expected, std::string_view given) {
  unsigned difference = expected.size() == given.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(expected.empty() ? 0 : expected[i % expected.size()]);
  return difference == 0;
}

std::string url_decoded(std::string_view text, bool query) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += query && text[i] == '+' ? ' ' : text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? digit_of(text[i + 1]) : -1, low = i + 2 < text.size() ? digit_of(text[i + 2]) : -1;
    if (high < 0 || low < 0) throw HttpError(400, "the address has a % that two hexadecimal digits do not follow");
    decoded += char(high * 16 + low);
    i += 2;
  }
  if (invalid_utf8(decoded)) throw HttpError(400, "the address is no UTF-8");
  if (decoded.find('\0') != decoded.npos) throw HttpError(400, "the address holds a zero byte");
  return decoded;
}

bool path_fits(std::string_view pattern, std::string_view path, std::vector<std::string>& names) {
  names.clear();
  if (pattern.empty() || path.empty() || pattern[0] != '/' || path[0] != '/') return false;
  pattern.remove_prefix(1), path.remove_prefix(1);
  while (!pattern.empty()) {
    const std::string_view expected = next_segment(pattern);
    if (expected.starts_with("{") && expected.ends_with("...}")) {
      names.push_back(url_decoded(path, false));
      return !path.empty();
    }
    if (path.empty()) return false;
    const std::string_view segment = next_segment(path);
    if (expected.starts_with("{")) {
      if (segment.empty()) return false;
      names.push_back(url_decoded(segment, false));
    } else if (segment != expected) {
      return false;
    }
  }
  return path.empty();
}

}  // namespace brume::tools
