#include "brume/distributed/world.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "brume/config/errors.h"
#include "brume/distributed/c10d_world.h"

namespace brume {
namespace {

class WorldOfOne final : public World {
 public:
  WorldOfOne() : World({}) {}
  std::unique_ptr<Pending> begin_all_reduce(const Tensor&, Reduction) override { return std::make_unique<Done>(); }
  Tensor all_gather(const Tensor& tensor) override { return tensor.unsqueeze(0); }
  std::unique_ptr<Pending> begin_broadcast(const Tensor&, int64_t) override { return std::make_unique<Done>(); }
  void barrier() override {}
  void leave(const std::string&) override {}

 private:
  struct Done final : Pending {
    void wait() override {}
  };
};

}  // namespace

NumberRange part_of(const WorldPlace& place, int64_t count) {
  return {count * place.rank / place.size, count * (place.rank + 1) / place.size};
}

Tensor World::all_gather_rows(const Tensor& rows) {
  if (size() == 1) return rows;
  const Tensor counts = all_gather(at::zeros({1}, at::kLong).fill_(rows.size(0))).flatten();
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = counts.max().item<int64_t>();
  const Tensor padded = at::zeros(shape, rows.options());
  padded.narrow(0, 0, rows.size(0)).copy_(rows);
  const Tensor all = all_gather(padded);
  std::vector<Tensor> parts;
  for (int64_t r = 0; r < size(); ++r) parts.push_back(all[r].narrow(0, 0, counts[r].item<int64_t>()));
  return at::cat(parts);
}

std::vector<std::string> World::all_gather(const std::string& text) {
  if (size() == 1) return {text};
  const Tensor counts = all_gather(at::zeros({1}, at::kLong).fill_(int64_t(text.size()))).flatten();
  const Tensor bytes = at::zeros({std::max<int64_t>(1, counts.max().item<int64_t>())}, at::kByte);
  std::memcpy(bytes.data_ptr(), text.data(), text.size());
  const Tensor gathered = all_gather(bytes).contiguous();
  std::vector<std::string> texts;
  for (int64_t r = 0; r < size(); ++r)
    texts.emplace_back(static_cast<const char*>(gathered[r].data_ptr()), size_t(counts[r].item<int64_t>()));
  return texts;
}

std::shared_ptr<World> world_of_one() {
  static const auto one = std::make_shared<WorldOfOne>();
  return one;
}

std::shared_ptr<World> join_world(const WorldPlace& place, std::chrono::seconds join, std::chrono::seconds timeout) {
  if (place.size == 1) return world_of_one();
  if (world_backend().empty())
    throw ConfigError(
        fmt::format("this is process {} of {}, and this build of brume computes in one process only: it was made without gloo "
                    "(Debian: libgloo-dev)",
                    place.rank, place.size));
  if (place.rank < 0 || place.rank >= place.size)
    throw ConfigError(fmt::format("rank {} is outside a world of {}", place.rank, place.size));
  return c10d_world(place, join, timeout);
}

}  // namespace brume
