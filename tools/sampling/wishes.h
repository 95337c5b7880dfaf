#pragma once
// What each image of `brume sample` is to be: a class, a prompt.
#include <string>
#include <vector>

#include "brume/core/guidance.h"
#include "commands/program.h"

namespace brume::tools {

struct Wishes {
  std::vector<std::string> classes, prompts;  ///< taken in turn
  std::string prompts_file;                   ///< more prompts, one a line
  std::vector<std::string> negatives;         ///< one for all, or one a prompt
  int64_t per_prompt = 0;                     ///< images of each prompt, one after the other; 0 = prompts are taken in turn
  int64_t count = 0;                          ///< of images; 0 = one a prompt or class named, or 16
  int64_t first = 0;                          ///< number of the first image
  void add_to(CLI::App& command);

  /// What images first ... first + count - 1 are to be. `names`: of the classes that can be asked for. Throws ConfigError where this is
  /// not for a model with these controls.
  std::vector<Annotation> images(const Controls& controls, const std::vector<std::string>& names) const;
};

/// The label of an image in a grid: its prompt, or its class.
std::vector<std::string> labels_of(const std::vector<Annotation>& images, const std::vector<std::string>& names);

}  // namespace brume::tools
