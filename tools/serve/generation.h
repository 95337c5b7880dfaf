#pragma once
// What a request asks to be made, in the names of /api/v1/jobs.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace brume::tools {

/// What the server makes at most.
struct GenerationLimits {
  int64_t images = 64;
  int64_t pixels = int64_t(4096) * 4096;  ///< of an image, also of one that is given
};

struct Generation {
  std::string model, client;
  std::vector<std::string> prompts, negatives, classes;
  int64_t count = 0;
  uint64_t seed = 0;
  std::optional<int64_t> steps;
  std::optional<double> cfg, strength;
  int64_t width = 0, height = 0;
  std::string sampler, spacing;    ///< YAML; "" = as the model has it
  std::string guidance;            ///< YAML of a list; "" = as the model has it
  std::string like;                ///< names of another program, of ImageRequest::like
  std::string image, mask;         ///< bytes of picture files
  std::vector<std::string> loras;  ///< FILE or FILE:STRENGTH
  int64_t preview = 0;             ///< steps between previews; 0 = none
  std::vector<std::string> warnings;
};

/// Reads a body of POST /api/v1/jobs. Throws HttpError.
Generation generation_of(const nlohmann::json& body, const GenerationLimits& limits);

/// Throws HttpError if the size, the pictures or the number of images exceed the limits.
void check_limits(const Generation& g, const GenerationLimits& limits);

/// Returns what was asked for as a body of POST /api/v1/jobs; pictures are `true`.
nlohmann::ordered_json json_of(const Generation& g);

/// Returns what two requests must have in common to be sampled in one batch; "" if it can be in none.
std::string batch_key(const Generation& g);

}  // namespace brume::tools
