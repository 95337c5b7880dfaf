#pragma once
// Prompts that change from step to step, and prompts side by side, as A1111's web UI writes them.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace brume::text {

/// Returns the prompt at `step` of a run, from 0, of `steps` steps. [a:b:when] is a up to step `when` and b after it, [b:when] and
/// [a::when] have one of them empty; `when` is a share of the steps if it has a point or is less than 1, else a step. [a|b] takes a and b
/// in turn. Steps count from 1 there, and the first two are the same. Other brackets, and \[ \] \( \), stay as they are.
std::string prompt_at(std::string_view prompt, int64_t step, int64_t steps);

/// A prompt of several side by side, and how much it counts.
struct PromptPiece {
  std::string text;
  double weight = 1;
  bool operator==(const PromptPiece&) const = default;
};

/// Returns the prompts between the words AND (Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models"); a
/// number after a colon at the end of one is its weight.
std::vector<PromptPiece> prompts_between_ands(std::string_view prompt);

}  // namespace brume::text
