// The figures that a Trainer gathers from step to step, and what it says of them.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "brume/core/warnings.h"
#include "brume/distributed/world.h"
#include "brume/train/checkpoints.h"
#include "brume/train/loss_trend.h"
#include "brume/train/run_log.h"
#include "brume/train/trainer.h"

namespace brume {
namespace fs = std::filesystem;

void Trainer::note_unread(const Batch& batch, Window& window) {
  window.unread += int64_t(batch.unread.size());
  for (const Unread& u : batch.unread)
    if (unread_.emplace(u.index, u.error).second) warn(fmt::format("left out: {}", u.error));
}

std::string Trainer::gathered(const Window& window) const {
  return nlohmann::json{window.sums, window.steps, window.skipped, window.unread, trend_->state()}.dump();
}

Trainer::Window Trainer::restored_window() {
  const auto before = nlohmann::json::parse(log_->gathered(), nullptr, false);
  const bool finite = log_->gathered().find("null") == std::string::npos;
  if (!finite || !before.is_array() || before.size() < 4) return {};
  if (before.size() > 4) trend_->restore(before[4].get<std::array<double, 4>>());
  return {before[0].get<Metrics>(), before[1].get<int64_t>(), before[2].get<int64_t>(), before[3].get<int64_t>()};
}

void Trainer::notice_growth(double loss) {
  const auto growth = trend_->add(loss);
  if (!growth || !judged()) return;
  if (held_ == 0) hold_checkpoint();
  warn(
      fmt::format("step {}: the training diverges: the mean of the loss has grown from {:.4g} to {:.4g}; a lower train.optimizer.lr may "
                  "help; {}",
                  step_, growth->least, growth->mean,
                  held_ > 0 ? fmt::format("the checkpoint of before is kept in checkpoints/step_{:06}", held_)
                            : "no checkpoint was written before (train.checkpoint_every)"));
}

bool Trainer::judged() const { return !several_ && world_->leads(); }

void Trainer::hold_checkpoint() {
  if (saved_ == 0 || !fs::exists(directory_ / "training.safetensors")) return;
  spare_checkpoint(directory_, saved_);
  held_ = saved_;
}

void Trainer::hold_if_loss_grows() {
  if (!judged() || trend_->told()) return;
  if (!trend_->grows())
    release_checkpoint();
  else if (held_ == 0)
    hold_checkpoint();
}

void Trainer::release_checkpoint() {
  if (held_ == 0 || trend_->told()) return;
  prune_spared(directory_, held_);
  held_ = 0;
}

void Trainer::log(const Window& window) {
  Metrics line;
  for (const auto& [name, sum] : window.sums) line.emplace_back(name, sum / double(window.steps));
  if (window.skipped > 0) line.emplace_back("skipped_steps", double(window.skipped));
  if (window.unread > 0) line.emplace_back("unread_images", double(window.unread));
  for (const Metrics& more : {optimization_->figures(step_ - 1), log_->machine()}) line.insert(line.end(), more.begin(), more.end());
  log_->append(step_, line);
}

}  // namespace brume
