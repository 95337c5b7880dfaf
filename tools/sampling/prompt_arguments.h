#pragma once
// The arguments of `brume sample` that choose classes and prompts.
#include <string>
#include <vector>

#include "brume/core/guidance.h"
#include "commands/program.h"

namespace brume::tools {

struct PromptArguments {
  std::vector<std::string> classes, prompts;  ///< taken in turn
  std::string prompts_file;                   ///< more prompts, one per line
  std::vector<std::string> negatives;         ///< one for all, or one per prompt
  int64_t per_prompt = 0;                     ///< images of each prompt, one after the other; 0 = prompts are taken in turn
  int64_t count = 0;                          ///< of images; 0 = one per prompt or class named, or 16
  int64_t first = 0;                          ///< number of the first image
  void add_to(CLI::App& command);

  /// Returns the class or prompt of images first ... first + count - 1. `names`: of the classes. Throws ConfigError if these arguments are
  /// not for a model with these controls.
  std::vector<Annotation> images(const Controls& controls, const std::vector<std::string>& names) const;
};

/// The label of an image in a grid: its prompt, or its class.
std::vector<std::string> labels_of(const std::vector<Annotation>& images, const std::vector<std::string>& names);

}  // namespace brume::tools
