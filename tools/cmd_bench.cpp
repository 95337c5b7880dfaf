#include "program.h"
namespace brume::tools {
void add_bench(CLI::App&, Program&, int&) {}
}  // namespace brume::tools
