#pragma once
#include <memory>

#include "brume/config/yaml.h"
#include "brume/core/network.h"
#include "brume/interop/import/import.h"
#include "brume/weights/model_weights.h"
#include "support/registry.h"

namespace brume::test {

/// The network of an imported model with its weights.
inline std::shared_ptr<Network> network_of(const Imported& model, const Network::Context& context) {
  const auto network = make<Network>(dump_yaml(*model.options.find("network")), context);
  NamedTensors own;
  for (const NamedTensor& t : model.tensors)
    if (t.name.starts_with("network.")) own.push_back({t.name.substr(8), t.tensor});
  load_weights("the reference", own, network->weights());
  return network;
}

}  // namespace brume::test
