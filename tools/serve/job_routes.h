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
/// Waits for a job to end; cancels it if the peer is gone. Throws HttpError if it did not end well.
Job finished(Jobs& jobs, Job job, const HttpRequest& request);

}  // namespace brume::tools
