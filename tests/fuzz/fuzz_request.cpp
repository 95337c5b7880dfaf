// What a request brings: addresses, JSON bodies, forms, pictures in base64; and what A1111 and ComfyUI write into pictures. The first byte
// says which.
#include <algorithm>

#include "brume/interop/comfy_graph.h"
#include "brume/interop/infotext.h"
#include "input.h"
#include "serve/form.h"
#include "serve/generation.h"
#include "serve/json_fields.h"
#include "serve/pictures.h"

namespace {

void read_request(char what, std::string_view text) {
  using namespace brume::tools;
  std::vector<std::string> names;
  const size_t line = std::min(text.find('\n'), text.size());
  switch (what) {
    case 'a':
      for (const char* pattern : {"/", "/{file}", "/api/v1/jobs/{id}/images/{file}", "/v1/models/{id...}"}) path_fits(pattern, text, names);
      url_decoded(text, true);
      break;
    case 'j': generation_of(json_body(text), {}); break;
    case 'f':
      for (const FormPart& part : form_parts(text.substr(0, line), text.substr(std::min(line + 1, text.size()))))
        if (!text.empty() && !part.content.empty() && part.content.data() < text.data()) __builtin_trap();  // a view of the input
      break;
    case 'b': check_picture(base64_decoded(text, "image"), "image", 1 << 20); break;
    case 'i': brume::infotext_fields(std::string(text)); break;
    case 'c': brume::comfy_run(text); break;
    default: break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  return brume::fuzz::try_to(data + 1, size - 1, [&] {
    try {
      read_request(char(*data), brume::fuzz::input);
    } catch (const brume::tools::HttpError& e) {
      if (e.status < 400 || e.status >= 500) __builtin_trap();
    }
  });
}
