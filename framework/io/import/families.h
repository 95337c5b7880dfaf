#pragma once
// The families, each in a file of its own.
#include "io/import/import.h"

namespace brume::io {

}  // namespace brume::io
