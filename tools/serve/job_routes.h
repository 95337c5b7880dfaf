#pragma once
// brume's own API: /api/v1/jobs, /api/v1/models, /api/v1/plugins, and the OpenAPI document of every route.
#include "brume/config/registry.h"
#include "serve/http.h"
#include "serve/jobs.h"

namespace brume::tools {

void add_job_routes(Server& server, Jobs& jobs);
void add_model_routes(Server& server, const ModelShelf& shelf, const Registry& registry);
/// Adds GET /openapi.json: the routes that the server has by then.
void add_openapi_route(Server& server);

/// Returns the header that names what of a request changed nothing.
std::map<std::string, std::string> warning_header(const std::vector<std::string>& warnings);
/// Asks a model for what the prompt of another program's request says: by words, or by the name of a class.
void set_prompt(Generation& g, const ModelShelf& shelf, const std::string& prompt);
/// What the fields of a request are called by another program's API: {brume's name, its name}.
using FieldNames = std::vector<std::pair<std::string, std::string>>;
/// Returns what `make` does. An error of a field has the name that the API gives it.
HttpAnswer in_names_of(const FieldNames& names, const std::function<HttpAnswer()>& make);
/// Waits for a job to end; cancels it if the peer is gone. Throws HttpError if it did not end well.
Job finished(Jobs& jobs, Job job, const HttpRequest& request);

}  // namespace brume::tools
