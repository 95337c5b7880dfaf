#include "brume/train/memory_advice.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/out_of_memory.h"
#include "brume/train/loader.h"

namespace brume {
namespace {

/// Returns a batch size whose loss and gradient fit into memory, less than `batch`; 0 if none is found. Leaves the learner as it was, but
/// without gradients.
int64_t batch_that_fits(Learner& learner, const Dataset& data, const ImageShape& image, int64_t batch) {
  const ImageShape shape = data.encoded() ? data.encoded()->shape : image;
  const int64_t size = data.size();
  const auto pick = [size](int64_t i) { return Pick{size > 0 ? i % size : i, uint64_t(i)}; };
  const std::vector<Weight> state = learner.state();
  std::vector<Tensor> before;
  for (const Weight& w : state) before.push_back(w.tensor.clone());
  const auto restore = [&] {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < state.size(); ++i) Tensor(state[i].tensor).copy_(before[i]);
    for (const TrainedModule& module : learner.modules())
      for (const Weight& w : module.weights) w.tensor.mutable_grad().reset();
  };
  const int64_t fits = largest_that_fits(batch / 2, 1, [&](int64_t images) {
    restore();
    const at::AutoGradMode with_grad(true);
    at::Generator random = at::detail::createCPUGenerator(0);
    learner.loss(read_batch(data, shape, images, pick), 0, random).loss.backward();
  });
  restore();
  return fits;
}

}  // namespace

std::string memory_advice(const std::string& asked, Learner& learner, const Dataset& data, const Config& config) {
  const int64_t parts = config.train->accumulate, batch = config.train->batch / parts;
  int64_t fits = 0;
  try {
    fits = batch_that_fits(learner, data, config.image(), batch);
  } catch (const std::exception&) {  // the error to report is the first one
  }
  return fmt::format("there is not enough memory{} to train on {} at once: {}", asked, counted(batch, "image"),
                     fits > 0 ? fmt::format("train.batch: {} fits", fits * parts) : "a smaller model, image or batch needs less");
}

}  // namespace brume
