#include "brume/numerics/companion_network.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randint.h>

#include "brume/config/errors.h"
#include "brume/core/rows.h"
#include "brume/core/spacing.h"
#include "brume/numerics/noising.h"

namespace brume {

std::shared_ptr<Network> make_discriminator(const Deferred<Network>& network, const JointObjective::Context& model, bool pairs) {
  Network::Context context = model.network;
  if (context.image_channels > 0) throw ConfigError("a discriminator sees no images of the condition, and model.conditioner gives some");
  context.out_channels = 1;
  context.image_channels = pairs ? context.input.channels : 0;
  context.context_width = context.vector_width = context.size_ids = 0;
  context.guidance = false;
  context.noise = nullptr, context.parameterization = nullptr;
  std::shared_ptr<Network> made = network.make(context);
  if (made->weights().empty()) throw ConfigError("the discriminator has no weights");
  move_to(made->weights(), model.device);
  return made;
}

TrainableModel::Prediction CompanionModel::predict(const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) const {
  const Tensor input = x * each_image(sigmas, x, [&](double s) { return parameterization().c_in(s, schedule()); });
  const Tensor levels = noise_inputs(*network_, sigmas, schedule()).to(x.device());
  return {network_->forward(input.to(dtype_), levels, condition, nullptr).to(at::kFloat), {}};
}

void move_to(const std::vector<Weight>& weights, at::Device device) {
  for (const Weight& w : weights)
    if (!device.is_cpu()) Tensor(w.tensor).set_data(w.tensor.to(device));
}

Tensor noise_inputs(const Network& network, const std::vector<double>& sigmas, const NoiseSchedule& schedule) {
  std::vector<float> levels;
  for (const double s : sigmas) levels.push_back(float(noise_quantity(network.quantity(), s, schedule)));
  return at::tensor(levels);
}

Condition class_condition(const Condition& condition, const Tensor& image) {
  Condition known;
  known.classes = condition.classes;
  known.image = image;
  return known;
}

Tensor denoised(const TrainableModel& model, const Tensor& x, const std::vector<double>& sigmas, const Condition& condition) {
  const Parameterization& p = model.parameterization();
  return x * each_image(sigmas, x, [&](double s) { return p.c_skip(s); }) +
         model.network(x, sigmas, condition) * each_image(sigmas, x, [&](double s) { return p.c_out(s); });
}

Tensor few_step_images(const TrainableModel& model, const Spacing& spacing, int64_t steps, const Tensor& x0, const Condition& condition,
                       at::Generator& random) {
  const std::vector<double> sigmas = spacing.sigmas(model.schedule(), steps);
  const auto levels = int64_t(sigmas.size()) - 1;
  const Tensor drawn =
      draw_rows(x0.size(0), [&](int64_t n) { return at::randint(levels, {n}, random, at::TensorOptions().dtype(at::kLong)); });
  std::vector<double> from;
  for (int64_t i = 0; i < x0.size(0); ++i) from.push_back(sigmas[size_t(drawn.data_ptr<int64_t>()[i])]);
  const NoisyBatch b = add_noise(x0, from, random);
  return denoised(model, b.x, from, condition);
}

}  // namespace brume
