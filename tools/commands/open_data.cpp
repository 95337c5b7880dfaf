#include "commands/open_data.h"

#include "brume/config/yaml.h"

namespace brume::tools {

std::shared_ptr<const Dataset> open_data(Program& program, const std::string& option, const std::string& text, const ImageShape& shape) {
  const bool file = text.ends_with(".yaml") || text.ends_with(".yml");
  Value value = file ? load_yaml(text) : parse_yaml(text, option);
  if (const Value* train = value.is_map() ? value.find("train") : nullptr; train && train->is_map())
    if (const Value* data = train->find("data")) value = Value(*data);
  return create_deferred<Dataset>(program.registry, value).make({shape});
}

}  // namespace brume::tools
