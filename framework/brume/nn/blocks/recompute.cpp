#include "brume/nn/blocks/recompute.h"

#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <mutex>
#include <optional>
#include <stdexcept>
#include <vector>

#include "brume/config/counted.h"
#include "brume/config/fields.h"
#include "brume/core/rows.h"

namespace brume::nn {
namespace {

using torch::autograd::Engine;
using torch::autograd::SavedVariableHooks;

/// A value that a node of the graph keeps for its backward pass.
struct Slot {
  Tensor value{};  ///< undefined until it is computed again, and once it was used
  bool stays = false;
};

thread_local Recomputation::Saving* current = nullptr;

}  // namespace

/// A run of a block. Lives as long as a node of the graph waits for one of its values.
struct Recomputation::Frame {
  std::function<void(at::Generator*)> again;
  at::Generator random{};  ///< in the state before the run; undefined = none
  std::optional<BatchPart> part{};
  std::vector<std::weak_ptr<Slot>> slots{};  ///< in the order of saving
  void run();
};

/// What this thread saves into: the slots of a first run, or those that a second one fills.
struct Recomputation::Saving {
  std::shared_ptr<Frame> first{};  ///< null in a second run
  Frame* second = nullptr;
  size_t next = 0;  ///< slot of a second run
  Saving* outer = nullptr;
};

namespace {

class FirstRun final : public SavedVariableHooks {
 public:
  explicit FirstRun(std::shared_ptr<Recomputation::Frame> frame) : frame_(std::move(frame)), slot_(std::make_shared<Slot>()) {
    frame_->slots.push_back(slot_);
  }
  void call_pack_hook(const Tensor& tensor) override {
    slot_->stays = tensor.is_leaf() && tensor.requires_grad();  // a weight, which is kept anyway
    if (slot_->stays) slot_->value = tensor.tensor_data();      // no reference to the graph, which would be a circle
  }
  Tensor call_unpack_hook() override {
    if (slot_->stays) return slot_->value;
    if (!slot_->value.defined()) frame_->run();
    if (!slot_->value.defined()) throw std::logic_error("a block that is computed again keeps other values than before");
    return std::move(slot_->value);
  }

 private:
  std::shared_ptr<Recomputation::Frame> frame_;
  std::shared_ptr<Slot> slot_;
};

/// Of the graph of a second run, which is dropped at its end.
class SecondRun final : public SavedVariableHooks {
 public:
  explicit SecondRun(std::shared_ptr<Slot> slot) : slot_(std::move(slot)) {}
  void call_pack_hook(const Tensor& tensor) override {
    if (slot_ && !slot_->stays) slot_->value = tensor.tensor_data();
    slot_.reset();
  }
  Tensor call_unpack_hook() override { throw std::logic_error("the graph of a block that is computed again has no backward pass"); }

 private:
  std::shared_ptr<Slot> slot_;  ///< null if its node is done
};

/// LibTorch's engine; it asks these hooks what a node keeps, as that of Python asks saved_tensors_hooks.
class HookedEngine final : public Engine {
 public:
  std::unique_ptr<SavedVariableHooks> get_default_saved_variable_hooks() override {
    if (!current) return nullptr;
    if (current->first) return std::make_unique<FirstRun>(current->first);
    const auto& slots = current->second->slots;
    const size_t i = current->next++;
    return std::make_unique<SecondRun>(i < slots.size() ? slots[i].lock() : nullptr);
  }
};

Engine& hooked_engine() {
  static auto* const engine = new HookedEngine;  // never destroyed, as its threads end with the program
  return *engine;
}

/// Makes `saving` that of this thread.
class SavingScope {
 public:
  explicit SavingScope(Recomputation::Saving& saving) {
    saving.outer = current;
    current = &saving;
  }
  ~SavingScope() { current = current->outer; }
  SavingScope(const SavingScope&) = delete;
  SavingScope& operator=(const SavingScope&) = delete;
};

}  // namespace

void Recomputation::Frame::run() {
  const at::AutoGradMode with_grad(true);
  std::optional<BatchPartScope> rows;
  if (part) rows.emplace(*part);
  at::Generator copy = random.defined() ? random.clone() : at::Generator();
  Saving saving{.second = this};
  const SavingScope scope(saving);
  again(copy.defined() ? &copy : nullptr);
  if (saving.next != slots.size())
    throw std::logic_error(
        fmt::format("a block kept {} for its backward pass, and {} when it ran again", counted(slots.size(), "value"), saving.next));
}

bool Recomputation::possible() { return at::GradMode::is_enabled() && !current; }

Recomputation::Recomputation(const at::Generator* random, std::function<void(at::Generator*)> again) {
  static std::once_flag once;
  std::call_once(once, [] { torch::autograd::set_default_engine_stub(hooked_engine); });
  auto frame = std::make_shared<Frame>(Frame{.again = std::move(again)});
  if (random) frame->random = random->clone();
  if (const BatchPart* part = batch_part()) frame->part = *part;
  saving_ = std::make_unique<Saving>(Saving{.first = std::move(frame)});
  saving_->outer = current;
  current = saving_.get();
}

Recomputation::~Recomputation() { current = saving_->outer; }

void declare_checkpoint(Fields& f, bool& checkpoint) {
  f.field("checkpoint", checkpoint,
          "in training, keep the inputs of the blocks alone and compute the blocks again in the backward pass: less memory, the same "
          "gradients");
}

}  // namespace brume::nn
