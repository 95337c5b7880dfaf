#pragma once
// OpenAI's API for images (https://platform.openai.com/docs/api-reference/images).
#include "serve/http.h"
#include "serve/jobs.h"

namespace brume::tools {

void add_openai_routes(Server& server, Jobs& jobs);

}  // namespace brume::tools
