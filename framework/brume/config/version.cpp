#include "brume/config/version.h"

namespace brume {

std::string version() { return BRUME_VERSION; }  // the one source that is compiled again if the version changes

}  // namespace brume
