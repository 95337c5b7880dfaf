// write_sd15 FILE.safetensors: a checkpoint of the shape of Stable Diffusion 1.5 with random weights, as CompVis lays it out in one file
// (half precision, 2.1 GB), for measuring how fast and in how much memory such files open:
//
//   model.diffusion_model.*   cond_stage_model.transformer.*   first_stage_model.*
//
// Names, shapes and first values are those of brume's own networks. One network exists at a time, each tensor is written as it is
// converted, and the header, whose length is not known before, comes last, into room kept for it.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>

#include "brume/config/errors.h"
#include "brume/files/refuse.h"
#include "brume/nn/blocks/first_stage.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/weights/safetensors_header.h"
#include "support/registry.h"

namespace brume::test {
namespace {

constexpr ImageShape image{3, 512, 512}, latent{4, 64, 64};
constexpr int64_t width = 768;  // of a token

/// A safetensors file, tensor by tensor.
class GrowingFile {
 public:
  explicit GrowingFile(const std::string& path) : path_(path), stream_(path, std::ios::binary) {
    stream_.seekp(std::streamoff(sizeof(uint64_t) + header_room));
  }

  void add(const std::string& prefix, const std::vector<Weight>& weights) {
    for (const Weight& w : weights) {
      const Tensor half = w.tensor.to(at::kHalf).contiguous();
      header_.entries.push_back({prefix + w.name, "F16", half.sizes().vec(), end_, end_ + half.nbytes()});
      end_ += half.nbytes();
      stream_.write(static_cast<const char*>(half.data_ptr()), std::streamsize(half.nbytes()));
    }
  }

  void finish() {
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
  static constexpr uint64_t header_room = uint64_t{1} << 18;
  std::string path_;
  std::ofstream stream_;
  SafetensorsHeader header_{{}, {{"format", "pt"}}};
  uint64_t end_ = 0;
};

void add_unet(GrowingFile& file) {
  const Network::Context context{.input = latent, .out_channels = latent.channels, .context_width = width};
  file.add("model.diffusion_model.",
           make<Network>("{type: unet, channels: 320, multipliers: [1, 2, 4, 4], attention_resolutions: [64, 32, 16], heads: 8, "
                         "scale_shift: false, zero_init: false, transformer: {depth: [1]}}",
                         context)
               ->weights());
}

void add_text_encoder(GrowingFile& file) {
  const nn::Builder build(0);
  const nn::TextEncoder encoder(build["text_model"], {49408, 77, width, 12, 12, 3072, true});
  file.add("cond_stage_model.transformer.", build.weights());
}

void add_autoencoder(GrowingFile& file) {
  nn::FirstStageOptions options;
  options.channels = 128;
  options.multipliers = {1, 2, 4, 4};
  const nn::Builder build(0);
  const nn::FirstStageNetwork network(build, options, image, 2 * latent.channels);
  file.add("first_stage_model.", build.weights());
}

}  // namespace
}  // namespace brume::test

int main(int count, char** arguments) try {
  if (count != 2) {
    std::cerr << "usage: write_sd15 FILE.safetensors\n";
    return 1;
  }
  const at::NoGradGuard no_grad;
  brume::test::GrowingFile file(arguments[1]);
  brume::test::add_unet(file);
  brume::test::add_text_encoder(file);
  brume::test::add_autoencoder(file);
  file.finish();
} catch (const brume::ConfigError& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 2;
}
