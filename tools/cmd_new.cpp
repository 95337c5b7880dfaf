#include "program.h"
namespace brume::tools {
void add_new(CLI::App&, Program&, int&) {}
}  // namespace brume::tools
