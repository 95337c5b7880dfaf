#pragma once
// The .pkl files of NVlabs' programs (EDM, EDM2): a dict whose networks are pickled by torch_utils/persistence.py with the source of their
// classes. The dict and the tensors are read; the classes are never made and their source is never run.
//
//   {"ema": network, "dataset_kwargs": …, "encoder": …, "loss_fn": …}
//   network = {"class_name": …, "module_src": …, "state": {"_parameters": …, "_buffers": …, "_modules": {name: network}, …}}
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "brume/weights/tensors.h"

namespace brume {

class MappedFile;

/// The key of metadata that only the networks of such pickles have: "class_name", "VPPrecond".
inline constexpr const char* pickled_class = "class_name";

/// Returns true if bytes begin as a pickle of the protocols 2 to 5.
bool is_pickle(std::string_view bytes);

/// Returns the parameters and buffers of the network "ema" (or "net", or the whole) under their dotted names, as copies. `metadata`
/// receives the numbers of its constructor that its modules keep ("img_resolution": "32", "resample_filter": "1, 1", "clip_act": "none"),
/// the width of its attention heads ("channels_per_head") and its class (pickled_class). Throws ConfigError naming what the pickle would
/// call, if it is anything else than tensors and such networks.
NamedTensors load_network_pickle(const std::shared_ptr<const MappedFile>& file, std::map<std::string, std::string>& metadata);

}  // namespace brume
