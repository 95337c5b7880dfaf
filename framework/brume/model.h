#pragma once
// The front door: opens a model and makes images with it.
//
//   const auto model  = brume::Model::open("model.safetensors");
//   const auto images = model.sample({.prompts = {"a red circle"}, .seed = 7, .steps = 30, .cfg = 4});
//   brume::write_png("out.png", images[0]);
//
// docs/library.md says more. User's mistakes are thrown as brume::ConfigError, whose what() is the text that the program prints.
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "brume/config/errors.h"
#include "brume/core/denoiser.h"
#include "brume/core/model_source.h"
#include "brume/image/image.h"
#include "brume/request.h"

namespace brume {
class Pipeline;
struct SampleOptions;

/// Receives a warning, without a line end.
using Warn = std::function<void(const std::string& text)>;

/// How a model is opened.
struct OpenOptions {
  std::string device{};                          ///< "cpu", "cuda" or "cuda:1"; "" = "cpu", or what a configuration says
  std::string precision{};                       ///< "fp32", "bf16", "int8" or "auto": int8 of such a file, else the faster one
  std::optional<int64_t> threads{};              ///< processor threads, of the whole process; 0 = all cores
  Registry* registry = nullptr;                  ///< the caller's plugins, which outlive the model; null = the built-in ones
  std::vector<std::filesystem::path> plugins{};  ///< plugin libraries to load into the registry
  std::vector<std::string> loras{};              ///< FILE or FILE:STRENGTH, added to the weights, instead of those of `sample.lora`
  std::map<std::string, std::string> import{};   ///< settings of the importer of another program's model, as `brume import` takes them
  std::vector<std::string> settings{};           ///< "sample.steps=20", laid over the model's configuration
  Warn warn{};                                   ///< receives warnings of opening and of sampling, also from several threads
  FieldNames names{};                            ///< what messages call these fields
};

/// A trained diffusion model. Copies share it; `const` use is safe from several threads.
class Model {
 public:
  /// Opens model.safetensors, the directory of a training, a model of another program (a diffusers directory, a .ckpt), or a configuration
  /// whose network has no weights. Throws ConfigError.
  static Model open(const std::filesystem::path& path, const OpenOptions& options = {});

  /// Returns images [N, C, H, W] in [-1, 1], float32 on the host. Throws ConfigError, and Interrupted if `progress` returned false; images
  /// of earlier batches were then given to `made`.
  Tensor sample(const ImageRequest& request = {}) const;
  /// Makes the same images for `request.made` alone: none is kept, so memory does not grow with their number.
  void sample_batches(const ImageRequest& request) const;

  /// Returns the latents of images [N, C, H, W] in [-1, 1]: float32 on the host. The mode, if latents are drawn.
  Tensor encode(const Tensor& images) const;
  /// Returns images [N, C, H, W] in [-1, 1] of latents, float32 on the host. `tile`: see ImageRequest.
  Tensor decode(const Tensor& latents, int64_t tile = 0) const;

  /// Returns D(x, sigma, condition) in the frame x = x0 + sigma * noise, without guidance. It keeps the model alive.
  std::shared_ptr<const Denoiser> denoiser() const;
  /// Returns the same with the guidances of the request.
  std::shared_ptr<const Denoiser> denoiser(const ImageRequest& request) const;
  /// Returns the condition of a batch, one row per annotation.
  Condition condition(const std::vector<Annotation>& annotations) const;

  /// Returns the shape of the images that it was trained for, and that of their latents.
  ImageShape shape() const;
  ImageShape latent() const;
  /// Returns the names of the classes that can be requested, the guidances' included; numbers for those without a name.
  std::vector<std::string> classes(const ImageRequest& request = {}) const;
  /// Returns true if images are requested in words.
  bool captions() const;
  /// Returns what each image of the request shows.
  std::vector<Annotation> annotations(const ImageRequest& request) const;

  // For programs of brume's own that do more than sample.
  /// Returns how the request is sampled: the model's section `sample:` with the request's settings laid over it. Throws ConfigError.
  SampleOptions sampling(const ImageRequest& request = {}) const;
  const Pipeline& pipeline() const;
  /// Opens models that guidances name; relative paths are looked for in the model's folder, then in the current one.
  const ModelSource& others() const;

 private:
  struct Opened;
  explicit Model(std::shared_ptr<const Opened> opened);
  Tensor make(const ImageRequest& request, bool keep) const;
  std::shared_ptr<const Opened> opened_;
};

}  // namespace brume
