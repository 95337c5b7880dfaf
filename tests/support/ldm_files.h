#pragma once
// Files of CompVis' programs, put together from the weights of brume's own networks, which have the same names.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/core/autoencoder.h"
#include "brume/core/network.h"
#include "support/foreign_models.h"
#include "support/tokenizers.h"

namespace brume::test {

using Settings = std::map<std::string, std::string>;

/// All its numbers are one, in one place.
inline Tensor flat(at::IntArrayRef shape) { return at::zeros({}).expand(shape); }

inline Value yaml(const std::string& text) { return parse_yaml(text, "wanted"); }

class LdmImport : public testing::Test {
 protected:
  void add(const std::string& prefix, const std::vector<Weight>& weights, bool shapes = false) {
    for (const Weight& w : weights) tensors.push_back({prefix + w.name, shapes ? flat(w.tensor.sizes()) : w.tensor.detach()});
  }
  void add(const std::string& name, const Tensor& tensor) { tensors.push_back({name, tensor}); }
  Tensor& at(const std::string& name) {
    for (NamedTensor& t : tensors)
      if (t.name == name) return t.tensor;
    throw std::logic_error("no tensor " + name);
  }
  Source source() const { return {folder.path() / "model.safetensors", tensors, metadata}; }
  Imported import(const Settings& settings = {}) const { return import_model(source(), {settings, {}}); }
  std::string refusal(const Settings& settings = {}) const {
    return without(error_of([&] { import(settings); }), folder);
  }
  /// A folder with CLIP's tokenizer next to the file, of as many tokens as `rows` says.
  void tokenizer() { write_clip_tokenizer(folder, "tokenizer"); }
  static constexpr int64_t rows = 256 + 256 + 7 + 2;

  TempFolder folder;
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};

}  // namespace brume::test
