#pragma once
// The law of objects without state between calls.
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "brume/conform/law.h"
#include "brume/core/tensor.h"

namespace brume {

/// Appends the finding of "4 threads at once": result(0) to result(3), computed by four threads, equal those computed one by one.
void check_four_threads(std::vector<Finding>& findings, const std::string& meaning, const std::function<Tensor(size_t)>& result);

}  // namespace brume
