#pragma once
// Routes of /api/v1 for runs, trainings, checks and plots: what the studio shows besides images.
#include <filesystem>

#include "brume/config/registry.h"
#include "serve/http.h"
#include "serve/trainings.h"

namespace brume::tools {

/// Adds the routes. All that is given outlives the server. `runs`: the folder of run directories.
void add_run_routes(Server& server, const Registry& registry, const std::filesystem::path& runs, Trainings& trainings);

}  // namespace brume::tools
