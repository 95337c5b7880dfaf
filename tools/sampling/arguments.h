#pragma once
// What the command line of `brume sample` says of the images and of the model that makes them.
#include <optional>
#include <string>
#include <vector>

#include "brume/diffusion/options.h"
#include "brume/model.h"
#include "program/option.h"
#include "program/program.h"
#include "sampling/size_arguments.h"

namespace brume::tools {

struct SampleArguments {
  std::string source;
  OpenOptions open;
  ImageRequest request;
  std::vector<std::string> import;                        ///< KEY=VALUE
  std::string prompts_file, image, mask, noise, refiner;  ///< files of what the request holds
  SizeArguments sizes, negative_sizes;                    ///< of models that are conditioned on sizes
  Overrides overrides;

  /// Returns all options, in the order in which an image records them.
  static const std::vector<Option<SampleArguments>>& options();
  /// Adds those options whose long names are given; all if none is.
  void add_to(Command command, const std::vector<std::string>& some = {});
  /// Adds those that say how a model is sampled, except what a SamplingGrid (sampling_grid.h) has, and the overrides.
  void add_sampling_to(Command command);
};

/// Returns the values by key of KEY=VALUE; `option` names it in messages.
std::map<std::string, std::string> import_settings(const std::string& option, const std::vector<std::string>& assignments);

/// Opens the model for a command, which has loaded the plugins of `registry`. Prints warnings on stderr.
Model open_model(Registry& registry, const SampleArguments& a);
/// Returns the same for a command that only has overrides; fp32 if they name no precision, because a measure must not depend on the
/// processor.
Model open_measured(Registry& registry, SampleArguments a);

/// Returns the request, with what its files hold. Throws ConfigError naming the option.
ImageRequest request_of(const SampleArguments& a, const Model& model);

/// Returns the values in "ddim,{type: heun}", or the items of a YAML list, as texts.
std::vector<std::string> list_of(const std::string& text, const std::string& option);

/// Returns the label of each image in a grid, its prompt or its class; none if an image has neither.
std::vector<std::string> labels_of(const std::vector<Annotation>& images, const std::vector<std::string>& classes);

}  // namespace brume::tools
