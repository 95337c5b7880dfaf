// Compares the images that a first stage gives back with JPEG of as many bytes.
#include "commands/evaluate_autoencoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "brume/config/counted.h"
#include "brume/files/atomic_file.h"
#include "brume/image/image_codec.h"
#include "brume/train/reconstruction.h"
#include "commands/first_stage.h"
#include "commands/open_data.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

constexpr int64_t of_endless = 1000;  ///< images of an endless set, if no limit is given

/// Bytes of the scan of a JPEG: headers and tables, which all images could share, are not counted (ITU T.81, B.1.1).
int64_t scan_bytes(const std::string& jpeg) {
  const auto byte = [&](size_t i) { return size_t(uint8_t(jpeg.at(i))); };
  for (size_t at = 2;;) {
    const size_t length = byte(at + 2) << 8 | byte(at + 3), next = at + 2 + length;
    if (byte(at + 1) == 0xda) return int64_t(jpeg.size() - next) - 2;  // to the end of the image
    at = next;
  }
}

/// Returns the best JPEG whose scan takes at most so many bytes, or the smallest there is.
std::string jpeg_of(const Image& image, int64_t bytes) {
  int lo = 1, hi = 100;
  while (lo < hi) {
    const int middle = (lo + hi + 1) / 2;
    if (scan_bytes(encode_jpeg(image, middle)) <= bytes)
      lo = middle;
    else
      hi = middle - 1;
  }
  return encode_jpeg(image, lo);
}

struct Jpegs {
  ReconstructionScores scores;
  double bytes = 0;
  int64_t too_large = 0;

  void add(const Tensor& images, int64_t budget) {
    std::vector<Tensor> decoded;
    for (int64_t i = 0; i < images.size(0); ++i) {
      const Image image = to_image(images[i]);
      const std::string jpeg = jpeg_of(image, budget);
      bytes += double(scan_bytes(jpeg));
      too_large += scan_bytes(jpeg) > budget;
      decoded.push_back(to_tensor(decode_image_file(jpeg, "JPEG", image.channels)));
    }
    scores.add(images, at::stack(decoded), at::zeros({1}));
  }
};

}  // namespace

int evaluate_autoencoder(Program& program, const AutoencoderEvaluation& a) {
  const at::NoGradGuard no_grad;
  const OpenedFirstStage stage = open_first_stage(program, a.source, a.overrides);
  const auto data = open_data(program, "--data", a.data, stage.image);
  const ImageShape latent = stage.autoencoder->latent(stage.image);
  const std::optional<int64_t> codes = stage.autoencoder->codes();
  const int64_t code_bits = codes ? int64_t(std::ceil(std::log2(double(*codes)))) : 0;
  const int64_t bits = codes ? latent.height * latent.width * code_bits : latent.numel() * a.bits;
  const int64_t budget = std::max<int64_t>(1, (bits + 7) / 8);
  const int64_t limit = a.limit > 0 ? a.limit : of_endless, count = data->size() == 0 ? limit
                                                                    : a.limit > 0     ? std::min(limit, data->size())
                                                                                      : data->size();
  const bool has_jpeg = stage.image.channels == 1 || stage.image.channels == 3;
  ReconstructionScores own;
  Jpegs jpegs;
  Progress progress("images", count, "images");
  for_spread(*data, stage.image, count, a.batch, [&](const Tensor& images) {
    const Tensor latents = stage.autoencoder->encode(images.to(stage.compute.device));
    own.add(images, stage.autoencoder->decode(latents), latents);
    if (has_jpeg) jpegs.add(images, budget);
    progress.update(own.images(), double(images.size(0)));
    if (interrupted.load()) throw Interrupted();
    return true;
  });
  progress.finish();
  fmt::print("{}: {} to latents of {}, mean {:.4f}, standard deviation {:.4f}; {}\n", a.source, stage.image.text(), latent.text(),
             own.latent_mean(), own.latent_std(), counted(own.images(), "image"));
  fmt::print("{:<12} {:>14} {:>10} {:>8}\n", "", "bytes per image", "PSNR (dB)", "SSIM");
  fmt::print("{:<12} {:>14} {:>10.2f} {:>8.4f}\n", stage.type, budget, own.psnr(), own.ssim());
  nlohmann::ordered_json json{{"autoencoder", a.source}, {"images", own.images()},           {"psnr", own.psnr()},
                              {"ssim", own.ssim()},      {"latent_mean", own.latent_mean()}, {"latent_std", own.latent_std()},
                              {"bytes", budget}};
  if (has_jpeg) {
    const double bytes = jpegs.bytes / double(own.images());
    fmt::print("{:<12} {:>14.0f} {:>10.2f} {:>8.4f}\n", "JPEG", bytes, jpegs.scores.psnr(), jpegs.scores.ssim());
    fmt::print("bytes: {} bits a {} of a latent; of JPEG the scan, without headers and tables\n", codes ? code_bits : a.bits,
               codes ? "position" : "value");
    if (jpegs.too_large > 0)
      fmt::print("note: {} do not fit into {} bytes even at the lowest quality of JPEG\n", counted(jpegs.too_large, "image"), budget);
    json["jpeg"] = {{"bytes", bytes}, {"psnr", jpegs.scores.psnr()}, {"ssim", jpegs.scores.ssim()}};
  }
  if (!a.json.empty()) write_file(a.json, json.dump(1) + "\n");
  return 0;
}

}  // namespace brume::tools
