#pragma once
// Options of the section `sample:` that a run does not depend on.
#include <string>
#include <vector>

#include "brume/diffusion/options.h"

namespace brume {
class Registry;
class Value;

/// Returns a warning for each option of the sampler and the spacing that somebody wrote into `root` (a file, the command line; not a
/// model's file) and without which a run has the same levels and, of a made-up denoiser, the same result: options that count with other
/// steps alone, with another noise schedule, or with other options. Options whose declaration warns already (Fields::unused) are left
/// out. Also names what steps, spacing and guidances ask of a sampler that does not read it. `options`: what `root` says, with defaults.
std::vector<std::string> unused_options(const Registry& registry, const Value& root, const ModelOptions& model, const ImageShape& latent,
                                        const SampleOptions& options);

}  // namespace brume
