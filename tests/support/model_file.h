#pragma once
// Models with the weights they begin with, in files, and whether two files hold the same.
#include <cstdint>
#include <string>

#include "brume/diffusion/options.h"
#include "brume/interop/import/import.h"
#include "support/tempdir.h"

namespace brume::test {

struct ModelSection {
  ModelOptions model;
  void declare(Fields& f) { f.section("model", model, "of a test"); }
};

/// `yaml`: the section `model`. Writes model.safetensors as `brume train` does, and returns its path.
std::string model_file(const TempFolder& folder, const std::string& yaml);
/// Writes classifier.safetensors, of grey images of 16x16 pixels and 5 classes, with first weights of this seed; returns its path.
std::string classifier_file(const TempFolder& folder, uint64_t seed);
/// Every tensor, bit by bit; the configuration, too, if asked.
void expect_same(const Contents& got, const Contents& wanted, bool configuration);

}  // namespace brume::test
