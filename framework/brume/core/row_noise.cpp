#include "brume/core/row_noise.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <stdexcept>

namespace brume {
namespace {

class ByRows final : public Noise {
 public:
  explicit ByRows(std::vector<std::unique_ptr<Noise>> rows) : rows_(std::move(rows)) {}
  Tensor draw(const Tensor& like, double from, double to) override {
    if (like.size(0) > int64_t(rows_.size())) throw std::logic_error("noise_by_rows: the batch has more rows than there are images");
    std::vector<Tensor> drawn;
    for (int64_t i = 0; i < like.size(0); ++i) drawn.push_back(rows_[size_t(i)]->draw(like.narrow(0, i, 1), from, to));
    return at::cat(drawn);
  }

 private:
  std::vector<std::unique_ptr<Noise>> rows_;
};

}  // namespace

std::unique_ptr<Noise> noise_by_rows(std::vector<std::unique_ptr<Noise>> rows) { return std::make_unique<ByRows>(std::move(rows)); }

}  // namespace brume
