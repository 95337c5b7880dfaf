#pragma once
// The API of AUTOMATIC1111's stable-diffusion-webui (its page /docs): /sdapi/v1.
#include "serve/http.h"
#include "serve/jobs.h"

namespace brume::tools {

void add_a1111_routes(Server& server, Jobs& jobs);

}  // namespace brume::tools
