#pragma once
// The controls of a request, as the list `sample.control` of a configuration.
#include <string>

#include "brume/request.h"

namespace brume {

/// FILE:SCALE@FROM-TO, as the command line takes it.
struct RequestedControl {
  std::string file;  ///< or a directory
  double scale = 1, from = 0, to = 1;
};
/// Throws ConfigError if there is no such file or if the numbers are none. `option` names it in messages.
RequestedControl requested_control(const std::string& text, const std::string& option);

/// Replaces `sample.control` in `root` by the request's controls, if it has any. Throws ConfigError.
void set_controls(const ImageRequest& request, Value& root);

}  // namespace brume
