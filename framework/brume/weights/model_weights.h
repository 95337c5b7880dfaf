#pragma once
// A model's weights from a file.
#include <string>
#include <vector>

#include "brume/core/files.h"
#include "brume/core/network.h"
#include "brume/weights/tensors.h"

namespace brume {

/// What the tensors are called that hold the files of a model (a tokenizer): this, then the path the configuration names.
inline constexpr std::string_view files_prefix = "files/";

/// Copies the file's tensors (safetensors or a PyTorch state dict) into `weights` by name, whatever floating type they are stored in.
/// Throws ConfigError naming every tensor that is missing, unknown or of another shape; then nothing is copied.
/// Files are left alone.
void load_weights(const std::string& path, const std::vector<Weight>& weights);
/// Copies tensors at hand; `source` names them in messages.
void load_weights(const std::string& source, const NamedTensors& tensors, const std::vector<Weight>& weights);

/// Returns the tensor of each weight, unconverted. Throws ConfigError as load_weights does, and if one is of whole numbers.
std::vector<at::Tensor> fitting(const std::string& source, const NamedTensors& tensors, const std::vector<Weight>& weights);

/// Copies those of the file's tensors that `weights` name; published files may hold more: the other half of CLIP, the decoder of T5. Throws
/// ConfigError naming those that are missing or of another shape; then nothing is copied.
void load_published(const std::string& path, const std::vector<Weight>& weights);
/// Does the same, but weights of any dtype become views of the file, in the dtype they are stored in.
void view_weights(const std::string& path, const std::vector<Weight>& weights);

/// Returns the files among a checkpoint's tensors; none if it holds none.
Files files_in(const NamedTensors& tensors);
/// Returns the tensors that hold them there.
NamedTensors file_tensors(const Files& files);

}  // namespace brume
