#pragma once
// The fields of a JSON object that came over the network, each read once with its type and range.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http.h"

namespace brume::tools {

/// Parses the body of a request. Throws HttpError 400 if it is no UTF-8, no JSON, nests too deep, has more than 100000 values or is no
/// object.
nlohmann::json json_body(std::string_view body);

/// A field that is absent or null counts as not given. Every method throws HttpError 400 naming the field if it has another type or is out
/// of range.
class JsonFields {
 public:
  static constexpr size_t longest_text = 100000;  ///< bytes, unless a field says otherwise

  explicit JsonFields(const nlohmann::json& object) : object_(object) {}

  const nlohmann::json* find(const char* name);
  std::optional<std::string> text(const char* name, size_t most_bytes = longest_text);
  /// Returns a text or a list of texts as a list. Together they may be as long as one.
  std::vector<std::string> texts(const char* name, size_t most = 1000);
  std::optional<int64_t> whole(const char* name, int64_t least, int64_t most);
  std::optional<double> real(const char* name, double least, double most);
  std::optional<bool> flag(const char* name);
  /// Returns a number from 0 to 2^64 - 1, also written as a text; a random one for -1.
  std::optional<uint64_t> seed(const char* name);
  /// Returns a plugin as YAML: of a text, itself; of an object, its JSON.
  std::string plugin(const char* name);
  /// Takes the fields as known, which change nothing.
  void ignore(const std::vector<const char*>& names);
  /// Returns a warning per field that no method asked for, with the nearest one.
  std::vector<std::string> unknown() const;

 private:
  const nlohmann::json& object_;
  std::vector<std::string> known_;
};

}  // namespace brume::tools
