#include "brume/nn/ops/packed_weight.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/StorageImpl.h>

#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "brume/core/file_pages.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/one_call_scope.h"
#include "brume/nn/ops/onednn.h"
#include "brume/nn/ops/softmax.h"
#include "brume/nn/ops/tile_conv.h"
#include "brume/nn/ops/winograd.h"

namespace brume::nn {
namespace {

/// One shape of input: the primitive, and the weights as it wants them, undefined if they are packed at each call.
struct Ready {
  dnnl::convolution_forward::primitive_desc description;
  dnnl::convolution_forward primitive;
  Tensor weights;
};

/// Returns true if the weight is packed at each call. Kept in float32, the weights of a file of 16-bit floats take twice its size, and with
/// so many places per weight, the time of packing is lost in that of the product (docs/performance.md).
bool packed_at_each_call(const Tensor& x, const Tensor& weight, const Tensor& out) {
  constexpr int64_t places = 1024, large = int64_t{1} << 18;
  if (OneCallScope::active() && weight.numel() >= large) return true;
  return x.scalar_type() == at::kFloat && weight.element_size() < int64_t(sizeof(float)) && out.numel() / out.size(1) >= places;
}

/// Returns the weight as `wanted` says.
Tensor pack(const dnnl::memory::desc& wanted, const Tensor& weight, at::ScalarType type, Tensor (*memory)(size_t)) {
  const Tensor cast = weight.scalar_type() == at::kHalf ? from_half(weight, type) : weight.to(type),
               dense = cast.is_non_overlapping_and_dense() ? cast : cast.contiguous();
  Tensor result = memory(wanted.get_size());
  const dnnl::memory from = onednn::memory(onednn::plain(dense), dense), to = onednn::memory(wanted, result);
  onednn::reorder(dnnl::reorder(from, to), from, to);
  discard_file_pages(weight.data_ptr(), weight.nbytes());
  return result;
}

Tensor passing_memory(size_t bytes) { return at::empty({int64_t(bytes)}, at::kByte); }

/// How a layer adds: a property of the layer alone, so that an image's bits depend neither on the batch nor on who holds what is added.
enum class Adding {
  apart,     ///< in a pass of its own: without AMX, oneDNN's kernels lose more by adding than the pass costs (measured)
  in_place,  ///< to what the memory of the result holds, before rounding
  separate,  ///< what lies in another tensor, before rounding; zeros if nothing is to be added
};
Adding adding(const Tensor& weight, at::ScalarType type) {
  constexpr int64_t many = 960;
  if (isa() != Isa::amx || type != at::kBFloat16) return Adding::apart;
  return onednn::adding_separate_helps && weight.size(1) >= many && weight.size(2) == 3 ? Adding::separate : Adding::in_place;
}

/// Returns true if nothing else sees the memory of x, which is channels last.
bool alone(const Tensor& x) {
  return x.use_count() == 1 && x.storage().use_count() == 1 && !x.requires_grad() && x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

/// Returns the same numbers, channels last, in memory that nothing else sees.
Tensor owned(Tensor x) {
  if (alone(x)) return x;
  return at::empty(x.sizes(), x.options(), at::MemoryFormat::ChannelsLast).copy_(x);
}

/// Returns as many zeros as x has numbers, of this thread.
const Tensor& zeros_for(const Tensor& x) {
  thread_local Tensor own;
  if (!own.defined() || own.nbytes() < x.nbytes()) own = at::zeros({int64_t(x.nbytes())}, at::kByte);
  return own;
}

}  // namespace

bool packing(at::ScalarType type) {
  return isa() != Isa::reference && at::globalContext().userEnabledMkldnn() && at::hasMKLDNN() &&
         (type == at::kFloat || type == at::kBFloat16);
}

struct PackedWeight::State {
  using Shape = std::tuple<at::ScalarType, int64_t, int64_t, int64_t, Adding, bool, bool>;

  std::mutex mutex;
  std::map<Shape, std::shared_ptr<const Ready>> ready;
  std::shared_ptr<const WinogradWeight> winograd;
  std::shared_ptr<const TileWeight> tiles;
  // Which tensor it is. The weak reference keeps the address of the storage from being given to another one.
  c10::weak_intrusive_ptr<c10::StorageImpl> storage{c10::intrusive_ptr<c10::StorageImpl>()};
  int64_t offset = -1;
  uint32_t version = 0;

  void follow(const Tensor& weight) {
    c10::StorageImpl* const now = weight.storage().unsafeGetStorageImpl();
    if (storage._unsafe_get_target() == now && offset == weight.storage_offset() && version == weight._version()) return;
    ready.clear();
    winograd.reset();
    tiles.reset();
    storage = c10::weak_intrusive_ptr<c10::StorageImpl>(weight.storage().getWeakStorageImpl());
    offset = weight.storage_offset(), version = weight._version();
  }

  /// Weights that lie as `wanted` says: those of another shape of input, if they are the same.
  Tensor packed(const dnnl::memory::desc& wanted, const Tensor& weight, at::ScalarType type) const {
    for (const auto& [_, other] : ready)
      if (other->weights.defined() && other->description.weights_desc() == wanted) return other->weights;
    return pack(wanted, weight, type, lasting_memory);
  }

  std::shared_ptr<const WinogradWeight> for_winograd(const Tensor& weight) {
    const std::lock_guard lock(mutex);
    follow(weight);
    if (winograd) return winograd;
    winograd = std::make_shared<const WinogradWeight>(winograd_weight(weight, lasting_memory));
    discard_file_pages(weight.data_ptr(), weight.nbytes());
    return winograd;
  }

  std::shared_ptr<const TileWeight> for_tiles(const Tensor& weight) {
    const std::lock_guard lock(mutex);
    follow(weight);
    if (tiles) return tiles;
    tiles = std::make_shared<const TileWeight>(tile_weight(weight, false, lasting_memory));
    discard_file_pages(weight.data_ptr(), weight.nbytes());
    return tiles;
  }

  std::shared_ptr<const Ready> find(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out, int64_t stride,
                                    int64_t padding, Adding how, bool adds) {
    const std::lock_guard lock(mutex);
    follow(weight);
    const bool passing = packed_at_each_call(x, weight, out);
    const Shape shape{x.scalar_type(), x.size(0), x.size(2), x.size(3), how, adds, passing};
    if (const auto it = ready.find(shape); it != ready.end()) return it->second;
    onednn::check_room_for_code();
    constexpr size_t shapes = 16;  // of batches and images, which rarely change
    const dnnl::memory::desc any({weight.sizes().begin(), weight.sizes().end()}, onednn::type(x), dnnl::memory::format_tag::any);
    dnnl::post_ops after;
    if (how == Adding::in_place && adds) after.append_sum();
    if (how == Adding::separate) after.append_binary(dnnl::algorithm::binary_add, onednn::nhwc(out));
    auto description =
        onednn::convolution(dnnl::prop_kind::forward_inference, onednn::nhwc(x), any,
                            bias.defined() ? onednn::line(bias) : dnnl::memory::desc(), onednn::nhwc(out), stride, padding, after);
    Tensor weights;
    if (!passing) weights = packed(description.weights_desc(), weight, x.scalar_type());
    if (ready.size() >= shapes) ready.clear();  // weights that were found stay
    return ready[shape] = std::make_shared<const Ready>(Ready{description, dnnl::convolution_forward(description), weights});
  }
};

PackedWeight::PackedWeight() : state_(std::make_unique<State>()) {}
PackedWeight::~PackedWeight() = default;

Tensor PackedWeight::conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding, Tensor sum) const {
  const bool adds = sum.defined();
  if (onednn::widens(x)) {
    const auto wide = [](const Tensor& t) { return t.defined() ? t.to(at::kFloat) : t; };
    return conv2d(wide(x), weight, wide(bias), stride, padding, wide(sum)).to(x.scalar_type());
  }
  if (winograd_fits(x.scalar_type(), x.size(2), x.size(3), weight, stride, padding)) {
    const Tensor dense = bias.defined() ? bias.contiguous() : bias;
    Tensor result = adds && alone(sum) ? sum : onednn::convolved(x, weight, stride, padding);
    const Tensor added = adds ? sum.contiguous(at::MemoryFormat::ChannelsLast) : sum;
    winograd_conv2d(x, *state_->for_winograd(weight), dense, added, result);
    return result;
  }
  if (tile_conv_fits(TilePass::forward, x.scalar_type(), weight, stride, padding)) {
    Tensor result = adds && alone(sum) ? sum : onednn::convolved(x, weight, stride, padding);
    const Tensor added = adds ? sum.contiguous(at::MemoryFormat::ChannelsLast) : sum;
    tile_conv2d(x, *state_->for_tiles(weight), bias, added, result);
    return result;
  }
  const Adding how = adding(weight, x.scalar_type());
  Tensor out = how == Adding::in_place && adds ? owned(std::exchange(sum, Tensor())) : onednn::convolved(x, weight, stride, padding);
  const std::shared_ptr<const Ready> ready = state_->find(x, weight, bias, out, stride, padding, how, adds);
  const auto& d = ready->description;
  const Tensor weights = ready->weights.defined() ? ready->weights : pack(d.weights_desc(), weight, x.scalar_type(), passing_memory);
  std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, onednn::memory(d.src_desc(), x)},
                                                  {DNNL_ARG_WEIGHTS, onednn::memory(d.weights_desc(), weights)},
                                                  {DNNL_ARG_DST, onednn::memory(d.dst_desc(), out)}};
  if (bias.defined()) arguments.emplace(DNNL_ARG_BIAS, onednn::memory(d.bias_desc(), bias));
  const Tensor separate = how != Adding::separate ? Tensor() : adds ? sum.contiguous(at::MemoryFormat::ChannelsLast) : zeros_for(out);
  if (separate.defined())
    arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, onednn::memory(onednn::nhwc(out), separate));
  onednn::execute(d, ready->primitive, std::move(arguments));
  return how == Adding::apart && adds ? out.add_(sum) : out;
}

}  // namespace brume::nn
