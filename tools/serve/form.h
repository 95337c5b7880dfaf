#pragma once
// Bodies of type multipart/form-data (RFC 7578).
#include <string_view>
#include <vector>

#include "serve/http.h"

namespace brume::tools {

/// Returns true if a body of this Content-Type is a form with parts.
bool is_form(std::string_view content_type);

/// Returns the parts of a body, views of it. Throws HttpError 400 if it is cut short or malformed, or has more than 1000 parts.
std::vector<FormPart> form_parts(std::string_view content_type, std::string_view body);

}  // namespace brume::tools
