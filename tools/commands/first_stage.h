#pragma once
#include <memory>
#include <string>

#include "brume/diffusion/compute.h"
#include "brume/train/options.h"
#include "program/program.h"

namespace brume::tools {

/// A first stage as a command names it: the checkpoint of one, or a configuration with one whose weights are there.
struct OpenedFirstStage {
  std::shared_ptr<const Autoencoder> autoencoder;
  std::string type, fingerprint;
  ImageShape image;  ///< that it is for
  Compute compute;
  Deferred<Dataset> data;  ///< the training images of the configuration, if it has some
};
OpenedFirstStage open_first_stage(Program& program, const std::string& source, const Overrides& overrides);

}  // namespace brume::tools
