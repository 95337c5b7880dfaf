#pragma once
// The studio's page and its files.
#include "serve/http.h"

namespace brume::tools {

void add_page_routes(Server& server);

}  // namespace brume::tools
