#pragma once
// A world over c10d's process group, if the build has one.
#include "brume/distributed/world.h"

namespace brume {

/// Returns the world of more than one process, as join_world(). Throws std::logic_error in a build without gloo.
std::shared_ptr<World> c10d_world(const WorldPlace& place, std::chrono::seconds join, std::chrono::seconds timeout);

}  // namespace brume
