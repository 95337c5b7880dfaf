#pragma once
// A safetensors file of random weights, written tensor by tensor, so that it may be larger than the memory. The header, whose length is
// not known before, comes last, into room kept for it.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>

#include "brume/core/network.h"
#include "brume/files/refuse.h"
#include "brume/weights/safetensors_header.h"
#include "brume/weights/tensors.h"

namespace brume::test {

/// Returns a random weight of that shape in a type of two bytes, of the size that layers begin with: 1 for gains of norms, 0 for biases.
inline Tensor random_weight(const std::string& name, at::IntArrayRef sizes, at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type);
  if (sizes.size() < 2) return at::full(sizes, name.ends_with("bias") ? 0.0 : 1.0, options);
  const double fan_in = std::max(1.0, double(c10::multiply_integers(sizes.slice(1))));
  return at::empty(sizes, at::kFloat).uniform_(-1, 1).mul_(1 / std::sqrt(fan_in)).to(type);
}

class GrowingFile {
 public:
  GrowingFile(const std::string& path, at::ScalarType type) : path_(path), stream_(path, std::ios::binary), type_(type) {
    stream_.seekp(std::streamoff(sizeof(uint64_t) + header_room));
  }
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;

  /// Adds a random tensor for each of these, whose numbers are not read.
  void add(const std::string& prefix, const NamedTensors& shapes) {
    for (const NamedTensor& t : shapes) {
      const Tensor weight = random_weight(t.name, t.tensor.sizes(), type_);
      header_.entries.push_back({prefix + t.name, type_ == at::kHalf ? "F16" : "BF16", weight.sizes().vec(), end_, end_ + weight.nbytes()});
      end_ += weight.nbytes();
      stream_.write(static_cast<const char*>(weight.data_ptr()), std::streamsize(weight.nbytes()));
    }
  }
  void add(const std::string& prefix, const std::vector<Weight>& weights) {
    NamedTensors shapes;
    for (const Weight& w : weights) shapes.push_back({w.name, w.tensor});
    add(prefix, shapes);
  }

  ~GrowingFile() noexcept(false) {
    std::string text = format_safetensors_header(header_, path_);
    if (text.size() > header_room) throw std::logic_error("the header has outgrown its room");
    text.resize(header_room, ' ');
    stream_.seekp(0);
    stream_.write(reinterpret_cast<const char*>(&header_room), sizeof(header_room));
    stream_.write(text.data(), std::streamsize(text.size()));
    stream_.close();
    if (!stream_) refuse(path_, "cannot be written");
    fmt::print("{}: {} tensors, {} bytes\n", path_, header_.entries.size(), end_ + sizeof(header_room) + header_room);
  }

 private:
  static constexpr uint64_t header_room = uint64_t{1} << 20;
  std::string path_;
  std::ofstream stream_;
  at::ScalarType type_;
  SafetensorsHeader header_{{}, {{"format", "pt"}}};
  uint64_t end_ = 0;
};

}  // namespace brume::test
