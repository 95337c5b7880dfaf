#pragma once
#include "brume/config/value.h"

namespace brume {

/// Returns the map that a name is short for: {type: ddim} of `sampler: ddim`.
Value written_out(const Value& name);

}  // namespace brume
