// A first stage that learns (Esser et al. 2021, "Taming transformers for high-resolution image synthesis"; Rombach et al. 2022, section
// 3.1): what it gives back is to be near in pixels and in looks, and, from a step on, real in the eyes of a patch discriminator.
//
//   nll  = mean |y - x|  (or squares)  +  w_p d(y, x),          L = nll + penalty - lambda w mean D(y) + L_D
//   L_D  = (mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))) / 2
//   lambda = |grad nll| / (|grad of -mean D(y)| + 1e-4), in [0, 1e4], gradients by the weight of the last layer (eq. 7)
//
// One backward pass serves both modules: D's weights enter the generator's term detached, and y enters L_D detached.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/config/number.h"
#include "brume/core/boundary.h"
#include "brume/core/interruption.h"
#include "brume/core/noise.h"
#include "brume/core/perceptual_loss.h"
#include "brume/core/step_parts.h"
#include "brume/image/image.h"
#include "brume/nn/blocks/patch_discriminator.h"
#include "brume/train/learner.h"
#include "brume/train/reconstruction.h"

namespace brume {
namespace {

constexpr int64_t tested_images = 256;  ///< at most, at a checkpoint; `brume evaluate` takes them all

void move_to(at::Device device, const std::vector<Weight>& weights) {
  for (const Weight& w : weights)
    if (!device.is_cpu()) Tensor(w.tensor).set_data(w.tensor.to(device));
}

/// Returns the norm of the gradient of the whole batch's loss, which is the mean of those of its parts.
double norm_of_gradient(const Tensor& loss, const Tensor& weight) {
  const auto gradient = torch::autograd::grad({loss}, {weight}, {}, /*retain_graph=*/true, /*create_graph=*/false, /*allow_unused=*/true);
  return mean_over_parts(gradient[0].defined() ? gradient[0].to(at::kFloat) : at::zeros_like(weight, at::kFloat)).norm().item<double>();
}

/// Returns the number called `name` in a section, if it has one.
std::optional<double> number_in(const Value& section, const char* name) {
  const Value* v = section.is_map() ? section.find(name) : nullptr;
  return v && v->is_scalar() ? parse_number<double>(v->scalar) : std::nullopt;
}

class AutoencoderLearner final : public Learner {
 public:
  AutoencoderLearner(const Config& config, const Value& resolved, const Compute& compute, std::shared_ptr<const Dataset> data,
                     const LearnerOrigin& origin)
      : config_(config),
        resolved_(resolved),
        compute_(compute),
        models_(origin.models),
        data_(std::move(data)),
        shape_(config.autoencoder->image),
        network_(made(mix_seed(origin.seed, 2), origin.stored)) {
    if (network_->weights().empty()) throw ConfigError("autoencoder.network has no weights: there is nothing to train");
    const ReconstructionOptions& loss = config_.train->loss;
    if (!loss.perceptual_loss.neutral() && loss.perceptual_weight > 0) {
      perceptual_loss_ = loss.perceptual_loss.make({shape_, &models_, compute_.dtype});
      move_to(compute_.device, perceptual_loss_->weights());
    }
    if (loss.adversarial) {
      const nn::Builder build(mix_seed(origin.seed, 5));
      discriminator_.emplace(build["discriminator"], shape_.channels,
                             nn::PatchDiscriminatorOptions{loss.adversarial->channels, loss.adversarial->layers});
      discriminator_weights_ = build.weights();
      move_to(compute_.device, discriminator_weights_);
    }
    const Value* stds = resolved_.find("autoencoder")->find("network")->find("stds");
    if (config_.train->latents.center && stds && !stds->items.empty())
      throw ConfigError("measures one shift, and autoencoder.network.stds divides each channel by a number of its own")
          .located({}, "train.latents.center");
    if (config_.train->test) test_ = config_.train->test->data.make({shape_});
  }

  std::vector<TrainedModule> modules() const override {
    std::vector<TrainedModule> all{model_module(prefixed("autoencoder.", network_->weights()), *config_.train)};
    if (!discriminator_) return all;
    TrainedModule& discriminator = all.emplace_back(TrainedModule{.name = "discriminator", .weights = discriminator_weights_});
    if (const auto& own = config_.train->discriminator) {
      discriminator.optimizer = own->optimizer;
      discriminator.start = config_.train->loss.adversarial->start;
      discriminator.every = own->every;
    }
    return all;
  }

  Loss loss(const Batch& batch, int64_t step, at::Generator& random) override {
    const ReconstructionOptions& o = config_.train->loss;
    const Tensor x = batch.images.to(compute_.device);
    const Autoencoder::Reconstruction r =
        calling(*network_, "reconstruct()", [&] { return network_->reconstruct(x.to(compute_.dtype), random); });
    expect_shape(network_.get(), "reconstruct()", r.images, x.sizes().vec());
    if (r.penalty.defined() && r.penalty.numel() != 1) expect_shape(network_.get(), "reconstruct()", r.penalty, {});
    const Tensor y = r.images.to(at::kFloat);
    const Tensor error = o.pixel == ReconstructionOptions::Pixel::l1 ? (y - x).abs().mean() : (y - x).pow(2).mean();
    Metrics metrics{{"reconstruction", error.item<double>()}};
    Tensor nll = error;
    if (perceptual_loss_) {
      const Tensor seen = calling(*perceptual_loss_, "distance()", [&] { return perceptual_loss_->distance(y, x).mean(); });
      nll = nll + seen * o.perceptual_weight;
      metrics.emplace_back("perceptual", seen.item<double>());
    }
    Tensor total = nll;
    if (r.penalty.defined()) total = total + r.penalty.to(at::kFloat);
    metrics.emplace_back("penalty", r.penalty.defined() ? r.penalty.item<double>() : 0);
    metrics.emplace_back("latent_std", r.latents.detach().to(at::kFloat).std().item<double>());
    if (discriminator_) total = total + adversarial(x, y, nll, step, metrics);
    return {total, metrics};
  }

  bool needs_whole(int64_t step) const override { return discriminator_ && step >= config_.train->loss.adversarial->start && balances(); }

  bool updated(int64_t step, at::Generator& random) override {
    network_->updated(step, random);
    return true;
  }

  Metrics test(const std::vector<Weight>& averaged, const std::function<bool()>& stop) override {
    const at::NoGradGuard no_grad;
    take(averaged);
    ReconstructionScores scores;
    bool whole = true;
    for_spread(test_ ? *test_ : *data_, shape_, tested_images, config_.train->batch, [&](const Tensor& images) {
      const Tensor latents = averaged_->encode(images.to(compute_.device));
      stop_if_asked();
      scores.add(images, averaged_->decode(latents), latents);
      return whole = !(stop && stop());
    });
    if (!whole) return {};
    const std::string of = test_ ? "test_" : "train_";
    return {{of + "psnr", scores.psnr()},
            {of + "ssim", scores.ssim()},
            {of + "latent_mean", scores.latent_mean()},
            {of + "latent_std", scores.latent_std()}};
  }

  /// Originals above what became of them.
  bool preview(const std::vector<Weight>& averaged, const std::filesystem::path& file) override {
    const PreviewOptions& p = config_.train->preview;
    if (p.count == 0) return false;
    const at::NoGradGuard no_grad;
    take(averaged);
    const int64_t columns = p.columns > 0 ? p.columns : std::min<int64_t>(p.count, 8);
    std::vector<Image> tiles;
    for_spread(test_ ? *test_ : *data_, shape_, p.count, columns, [&](const Tensor& images) {
      const Tensor latents = averaged_->encode(images.to(compute_.device));
      stop_if_asked();
      const Tensor made = averaged_->decode(latents).cpu();
      for (const Tensor& row : {images, made}) {
        for (int64_t i = 0; i < row.size(0); ++i) tiles.push_back(to_image(row[i]));
        for (int64_t i = row.size(0); i < columns; ++i) tiles.emplace_back(shape_.height, shape_.width, tiles.front().channels, 255);
      }
      return true;
    });
    write_png(file.string(), grid(tiles, columns));
    return true;
  }

  /// Returns the section with the scale of the averaged weights' latents, if the network has one.
  ModelCard card(const std::vector<Weight>& averaged) override {
    ModelCard card;
    card.autoencoder = *resolved_.find("autoencoder");
    card.plugins = config_.model_plugins;
    Value& network = *card.autoencoder.find("network");
    const std::optional<double> scale = number_in(network, "scale"), shift = number_in(network, "shift");
    if (!scale) return card;
    take(averaged);
    const LatentOptions& o = config_.train->latents;
    const LatentSpread s = latent_spread(*averaged_, compute_.device, *data_, shape_, o.images, config_.train->batch);
    if (s.std > 0 && std::isfinite(s.std)) network.set("scale", Value::text(fmt::format("{}", *scale / s.std)));
    if (o.center && shift) network.set("shift", Value::text(fmt::format("{}", *shift + s.mean / *scale)));
    return card;
  }

 private:
  std::shared_ptr<Autoencoder> made(uint64_t seed, const Files* stored) const {
    auto network = config_.autoencoder->network.make({shape_, seed, stored, &models_, compute_.dtype});
    move_to(compute_.device, network->weights());
    return network;
  }

  /// Returns what the discriminator adds to the loss, its own learning included; nothing before its time.
  Tensor adversarial(const Tensor& x, const Tensor& y, const Tensor& nll, int64_t step, Metrics& metrics) const {
    const AdversarialOptions& o = *config_.train->loss.adversarial;
    Tensor sum = at::zeros({}, y.options());
    double generator = 0, learned = 0, balance = 0, real = 0, fake = 0;
    if (step >= o.start) {
      const Tensor g = -judged(y, false).mean();
      balance = o.weight * adaptive(nll, g);
      const int64_t every = config_.train->discriminator ? config_.train->discriminator->every : 1;
      const Tensor verdicts = judged(at::cat({x, y.detach()}), (step - o.start) % every == 0);
      const Tensor of_real = verdicts.narrow(0, 0, x.size(0)), of_fake = verdicts.narrow(0, x.size(0), x.size(0));
      const Tensor d = (at::relu(1 - of_real).mean() + at::relu(1 + of_fake).mean()) * 0.5;
      sum = g * balance + d;
      generator = g.item<double>(), learned = d.item<double>();
      real = of_real.mean().item<double>(), fake = of_fake.mean().item<double>();
    }
    metrics.insert(metrics.end(), {{"adversarial", generator},
                                   {"adversarial_weight", balance},
                                   {"discriminator", learned},
                                   {"verdict_real", real},
                                   {"verdict_fake", fake}});
    return sum;
  }

  Tensor judged(const Tensor& images, bool learns) const { return (*discriminator_)(images.to(compute_.dtype), learns).to(at::kFloat); }

  /// Returns true if the network has a last layer that learns.
  bool balances() const {
    const Tensor last = network_->last_layer();
    return last.defined() && last.requires_grad();
  }

  /// Returns the weight of eq. 7 of Esser et al. 2021; 1 if the network does not name its last layer, or that layer is frozen.
  double adaptive(const Tensor& nll, const Tensor& g) const {
    if (!balances()) return 1;
    const Tensor last = network_->last_layer();
    return std::clamp(norm_of_gradient(nll, last) / (norm_of_gradient(g, last) + 1e-4), 0.0, 1e4);
  }

  void take(const std::vector<Weight>& averaged) {
    const at::NoGradGuard no_grad;
    if (!averaged_) averaged_ = made(0, &no_files_);
    const std::vector<Weight> into = averaged_->weights();
    for (size_t i = 0; i < into.size(); ++i) Tensor(into[i].tensor).copy_(averaged[i].tensor);
  }

  Config config_;
  Value resolved_;
  Compute compute_;
  const ModelSource& models_;
  std::shared_ptr<const Dataset> data_, test_;
  ImageShape shape_;
  Files no_files_;
  std::shared_ptr<Autoencoder> network_, averaged_;
  std::shared_ptr<const PerceptualLoss> perceptual_loss_;
  std::optional<nn::PatchDiscriminator> discriminator_;
  std::vector<Weight> discriminator_weights_;
};

}  // namespace

std::unique_ptr<Learner> make_autoencoder_learner(const Config& config, const Value& resolved, const Compute& compute,
                                                  std::shared_ptr<const Dataset> data, const LearnerOrigin& origin) {
  return std::make_unique<AutoencoderLearner>(config, resolved, compute, std::move(data), origin);
}

}  // namespace brume
