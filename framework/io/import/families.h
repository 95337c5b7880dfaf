#pragma once
// The families, each in a file of its own.
#include "io/import/import.h"

namespace brume::io {

extern const Family exported_directory, compvis_ldm, compvis_first_stage;

}  // namespace brume::io
