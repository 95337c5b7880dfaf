// A YAML document; one that is read is written and read again, with the same result.
#include <cstdlib>

#include "brume/config/inline_yaml.h"
#include "brume/config/yaml.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brume;
  return fuzz::try_to(data, size, [] {
    const std::string block = dump_yaml(parse_yaml(fuzz::input, "input"));
    const Value again = parse_yaml(block, "again");
    if (dump_yaml(again) != block) std::abort();
    if (!again.is_null()) inline_yaml(again);
  });
}
