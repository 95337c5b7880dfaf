#pragma once
// Models that the programs of Hugging Face have fetched, by their names on its hub.
#include <string>

namespace brume {

/// Returns where the files of a model lie if `path` is no file but a name on the hub, OWNER/NAME: in the cache of Hugging Face's programs
/// ($HF_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub), the snapshot of its branch main, or else the
/// only one; of a snapshot with one file of weights and no configuration, that file. Returns `path` if it exists or is no such name. Throws
/// ConfigError that says how to fetch the model if the cache lacks it: brume fetches nothing.
std::string from_hub(const std::string& path);

}  // namespace brume
