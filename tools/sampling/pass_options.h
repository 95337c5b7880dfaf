#pragma once
// The options of `brume sample` for runs of more than one pass or model, and for variations of a seed.
#include <vector>

#include "program/option.h"

namespace brume::tools {
struct SampleArguments;

std::vector<Option<SampleArguments>> options_of_passes();

}  // namespace brume::tools
