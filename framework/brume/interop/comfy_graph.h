#pragma once
// The graph of nodes that ComfyUI writes into pictures as the text "prompt".
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// What of a graph says how a picture was made.
struct ComfyRun {
  std::string model;  ///< the name of its file there
  std::string prompt, negative;
  std::string sampler, scheduler;  ///< by ComfyUI's names
  std::optional<uint64_t> seed;
  std::optional<int64_t> steps, width, height;
  std::optional<double> cfg, denoise;
  int64_t batch = 1;      ///< images that were made at once
  int64_t clip_skip = 0;  ///< last layers of the text encoder left out
  bool from_image = false;
  /// A second run on latents that were enlarged by a factor.
  struct Again {
    double factor = 1, denoise = 1;
  };
  std::optional<Again> again;
  /// Another model that takes the steps from a share of them on.
  struct Refined {
    std::string model;
    double from = 0;
  };
  std::optional<Refined> refined;
  int64_t first_step = 0;             ///< of a run on an image: the steps before it are left out
  std::vector<std::string> loras;     ///< NAME:STRENGTH, by the names of the files there
  std::vector<std::string> left_out;  ///< what was read of it and has no place above
};

/// Returns the run that ends in the picture; nothing if the text is no graph with a sampler.
std::optional<ComfyRun> comfy_run(std::string_view json);

}  // namespace brume
