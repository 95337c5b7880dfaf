#include "serve/page_routes.h"

#include "serve/studio_files.h"

namespace brume::tools {
namespace {

HttpAnswer page(const std::string& name) {
  const auto file = studio_file(name);
  if (!file) throw HttpError(404, "there is no such page", "", "not_found");
  HttpAnswer answer;
  answer.body = file->content;
  answer.type = file->type;
  answer.header["Content-Security-Policy"] = studio_policy;
  answer.header["Cache-Control"] = "no-cache";
  return answer;
}

}  // namespace

void add_page_routes(Server& server) {
  server.add("GET", "/", {.summary = "The studio"}, [](const HttpRequest&) { return page("index.html"); });
  server.add("GET", "/{file}", {.summary = "A file of the studio"}, [](const HttpRequest& r) { return page(r.names[0]); });
}

}  // namespace brume::tools
