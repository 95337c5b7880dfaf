#include "commands/open_data.h"

#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/yaml.h"
#include "brume/core/image_files.h"
#include "program/progress.h"

namespace brume::tools {

std::shared_ptr<const Dataset> open_data(Program& program, const std::string& option, const std::string& text, const ImageShape& shape) {
  const bool file = text.ends_with(".yaml") || text.ends_with(".yml");
  Value value = file ? load_yaml(text) : parse_yaml(text, option);
  if (const Value* train = value.is_map() ? value.find("train") : nullptr; train && train->is_map())
    if (const Value* data = train->find("data")) value = Value(*data);
  return create_deferred<Dataset>(program.registry, value).make({shape});
}

void print_inventory(const std::string& name, const Dataset& data) {
  const auto* files = dynamic_cast<const ImageFiles*>(&data);
  std::string text = data.size() == 0 ? "endless" : counted(data.size(), "image");
  if (!data.classes().empty()) text += fmt::format(", {}", counted(data.classes().size(), "class"));
  if (files && files->inventory().captions > 0) text += fmt::format(", {}", counted(files->inventory().captions, "caption"));
  if (files && !files->inventory().left_out().empty()) text += "; left out: " + files->inventory().text();
  fmt::print(stderr, "{}: {}\n", name, text);
}

void check_images(const std::string& name, const Dataset& data) {
  const auto* files = dynamic_cast<const ImageFiles*>(&data);
  if (!files) return;
  constexpr int64_t most = 10;
  int64_t unread = 0;
  std::vector<Problem> problems;
  Progress progress(name, data.size(), "images");
  for (int64_t i = 0; i < data.size(); ++i) {
    if (interrupted.load()) throw Interrupted();
    try {
      files->check_image(i);
    } catch (const ConfigError& e) {
      if (++unread <= most) problems.push_back({{}, name, e.what()});
    }
    progress.update(i + 1, 1);
  }
  progress.finish();
  if (unread == 0) return;
  if (unread > most) problems.push_back({{}, name, fmt::format("and {} more", unread - most)});
  ConfigError error(std::move(problems));
  if (!files->skips_errors()) throw error;
  print_warning(fmt::format("{} of {} are left out:\n{}", counted(unread, "image"), name, error.what()));
}

}  // namespace brume::tools
