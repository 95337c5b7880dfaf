// A pickle that may speak of tensors, without the archive around it, whose checksums a fuzzer does not get right.
#include <ATen/ops/zeros.h>

#include "brume/files/refuse.h"
#include "brume/weights/pickle.h"
#include "brume/weights/torch_file.h"
#include "brume/weights/torch_vocabulary.h"
#include "input.h"

namespace {

/// Sixteen elements of any type under any key.
class AnyStorage final : public brume::TorchStorages {
 public:
  at::Tensor load(const std::string& /*key*/, at::ScalarType type, int64_t count) override {
    if (count > 16) brume::refuse("input", "its storage is too small");
    return at::zeros({16}, type);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    static const std::string name = "input";
    AnyStorage storages;
    brume::TorchVocabulary vocabulary(storages, name);
    const auto value = brume::read_pickle(brume::fuzz::input, vocabulary, name);
    value.summary();
    brume::fuzz::touch(brume::state_dict(value));
  });
}
