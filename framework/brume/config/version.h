#pragma once
// The version of brume.
#include <string>

namespace brume {

/// Returns the version of this library, "0.2.0".
std::string version();

}  // namespace brume
