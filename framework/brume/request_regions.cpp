#include "brume/request_regions.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/errors.h"
#include "brume/config/file_hint.h"
#include "brume/config/utf8.h"
#include "brume/image/control_image.h"
#include "brume/text/prompt_schedule.h"

namespace brume {

Tensor regions_of(const ImageRequest& r, const SampleOptions& options, const std::vector<Annotation>& images, const ImageShape& shape) {
  if (r.regions.empty()) return {};
  const std::string name = called(r.names, "regions");
  if (!options.prompts.changes)
    throw ConfigError(fmt::format("{}: are those of prompts joined by AND, which {} reads", name, called(r.names, "prompt_changes")));
  for (const Annotation& image : images)
    if (const size_t parts = text::prompts_between_ands(image.caption).size(); parts != r.regions.size())
      throw ConfigError(fmt::format("{}: {} for {} part{} joined by AND in {}; one for each, 'all' for everywhere", name, r.regions.size(),
                                    parts, parts == 1 ? "" : "s", in_quotes(image.caption)));
  std::vector<Tensor> masks;
  for (const std::string& file : r.regions) {
    if (file != "all" && !std::filesystem::is_regular_file(file)) {
      const std::string near = file_hint(file);
      throw ConfigError(
          fmt::format("{}: there is no file '{}'{}", name, file, near.empty() ? "; a region is the file of a mask, or 'all'" : near));
    }
    masks.push_back(file == "all" ? at::ones({1, 1, shape.height, shape.width}) : control_mask(file, shape.height, shape.width));
  }
  return at::cat(masks);
}

}  // namespace brume
