#pragma once
// How a LoRA is asked for: FILE, FILE:STRENGTH, FILE:STRENGTH@PART=STRENGTH,PART=STRENGTH.
#include <map>
#include <string>
#include <vector>

namespace brume {

/// A LoRA file and how much of it is added.
struct LoraRequest {
  std::string path;
  double strength = 1;                  ///< of all parts that `parts` does not name
  std::map<std::string, double> parts;  ///< by part: "text", "text2", "network", "down", "mid", "up", "in3", "out5"

  /// Returns the strength for a weight of the model: that of the narrowest part that is named and has the weight.
  double of(const std::string& weight) const;
};

/// Reads what was asked. Throws ConfigError if there is no such file, or a strength or a part is unknown.
LoraRequest read_lora_request(const std::string& asked);

/// Returns the parts that a weight of the model is of, the widest first: "network", "down", "in3" of "network.input_blocks.3.…"; "text" and
/// "text2" of the first and second text encoder.
std::vector<std::string> lora_parts(const std::string& weight);

}  // namespace brume
