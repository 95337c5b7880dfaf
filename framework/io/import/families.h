#pragma once
// The families, each in a file of its own.
#include "io/import/import.h"

namespace brume::io {

extern const Family diffusers_directory, tiny_autoencoder;

}  // namespace brume::io
