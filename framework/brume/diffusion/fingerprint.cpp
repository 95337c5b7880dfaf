#include "brume/diffusion/fingerprint.h"
#include "brume/core/fnv.h"

#include <fmt/format.h>

#include <cstring>

#include "brume/config/yaml.h"

namespace brume {
namespace {

/// FNV-1a over words of eight bytes, then over the bytes left.
class Hash {
 public:
  void add(const void* data, size_t bytes) {
    const char* p = static_cast<const char*>(data);
    for (; bytes >= 8; bytes -= 8, p += 8) {
      uint64_t word;
      std::memcpy(&word, p, 8);
      mix(word);
    }
    for (; bytes > 0; --bytes, ++p) mix(uint8_t(*p));
  }
  void add(const std::string& text) { add(text.data(), text.size()), mix(text.size()); }
  uint64_t value() const { return hash_.value; }

 private:
  void mix(uint64_t word) {
    hash_.add(word);
    hash_.value ^= hash_.value >> 32;  // high bits of a word reach the low ones
  }
  Fnv1a hash_;
};

}  // namespace

std::string fingerprint(const Autoencoder& autoencoder, const std::string& type) {
  std::string name = type;
  if (const auto stored = autoencoder.stored_as()) {
    const Value root = parse_stored_yaml(*stored, "autoencoder");
    const Value* of = root.is_map() ? root.find("type") : &root;
    if (of) name = of->scalar;
  }
  return fingerprint(name, autoencoder.weights());
}

std::string fingerprint(const std::string& name, const std::vector<Weight>& weights, const Files& files) {
  Hash hash;
  hash.add(name);
  for (const Weight& w : weights) {
    const Tensor values = w.tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    hash.add(w.name);
    for (const int64_t n : values.sizes()) hash.add(&n, sizeof n);
    hash.add(values.data_ptr(), size_t(values.numel()) * sizeof(float));
  }
  for (const auto& [file, content] : files) hash.add(content);
  return fmt::format("{}-{:016x}", name, hash.value());
}

}  // namespace brume
