#include "sampling/pass_options.h"

#include "sampling/arguments.h"

namespace brume::tools {
using A = SampleArguments;

std::vector<Option<A>> options_of_passes() {
  return {
      option<A>(
          "--hires", "hires", [](auto& a) -> auto& { return a.request.hires; },
          "a second pass: enlarges the images by this factor and samples them again", type_name("FACTOR")),
      option<A>(
          "--hires-strength", "hires_strength", [](auto& a) -> auto& { return a.request.hires_strength; },
          "share of the steps of the second pass; 0.5 if not given"),
      option<A>(
          "--hires-of", "hires_of", [](auto& a) -> auto& { return a.request.hires_of; },
          "what is enlarged: pixels, by bicubic interpolation, or latents, by bilinear interpolation; pixels if not given"),
      option<A>(
          "--variation-seed", "variation_seed", [](auto& a) -> auto& { return a.request.variation_seed; },
          "seed of noise that is blended into the initial noise"),
      option<A>(
          "--variation", "variation", [](auto& a) -> auto& { return a.request.variation; },
          "share of that noise: 0 = the seed's alone, 1 = the variation seed's alone; 0.1 if not given"),
      option<A>(
          "--refiner", "refiner", [](auto& a) -> auto& { return a.refiner; }, "a model that takes the last steps (SDXL's refiner)",
          type_name("CHECKPOINT")),
      option<A>(
          "--refine-from", "refine_from", [](auto& a) -> auto& { return a.request.refine_from; },
          "share of the way that the base model runs; 0.8 if not given"),
  };
}

}  // namespace brume::tools
