#include "brume/nn/ops/tile_conv.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "brume/nn/ops/blocking.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/tile_conv_kernel.h"
#include "brume/nn/ops/softmax.h"

namespace brume::nn {
namespace {

using namespace kernels;

const TileKernel& kernel() {
#if defined(__x86_64__)
  return tile_conv_amx();
#else
  throw std::logic_error("no instruction set of this processor has tiles");
#endif
}

int64_t up(int64_t n, int64_t to) { return quotient_up(n, to) * to; }

/// Returns the first cache line of memory.
char* aligned(const Tensor& memory) {
  char* const begin = data_or_null<char>(memory);
  return begin + (64 - reinterpret_cast<uintptr_t>(begin) % 64) % 64;
}

/// Memory of this thread that begins at a cache line and grows to the largest that was asked for. `T` tells one use from another.
template <class T>
T* work(int64_t count) {
  thread_local Tensor own;
  const int64_t bytes = count * int64_t(sizeof(T)) + 64;
  if (!own.defined() || int64_t(own.nbytes()) < bytes) own = at::empty({bytes}, at::kByte);
  return reinterpret_cast<T*>(aligned(own));
}

/// Bytes that begin at a cache line.
struct Bytes {
  explicit Bytes(int64_t count) : memory(at::empty({count + 64}, at::kByte)), begin(aligned(memory)) {}
  Tensor memory;
  char* begin;
};

/// All pixels of a convolution of 1x1 are one row.
TileShape shape_of(const Tensor& x, int64_t channels, int64_t out, int64_t size) {
  if (size == 1) return {1, 1, x.size(0) * x.size(2) * x.size(3), channels, out, size};
  return {x.size(0), x.size(2), x.size(3), channels, out, size};
}

/// What is multiplied: positions from `first` on, of which the first lies at `at`.
struct Packed {
  const char* at;
  int64_t row_bytes, first;
};

/// One convolution.
class Convolution {
 public:
  Convolution(const Tensor& x, const TileWeight& weight, const Tensor& bias, const Tensor& sum, const Tensor& y)
      : s_(shape_of(x, weight.channels, weight.out, weight.kernel)),
        x_(data_or_null<const uint16_t>(x)),
        weights_(data_or_null<const char>(weight.stored)),
        bias_(data_or_null<const float>(bias)),
        sum_(data_or_null<const uint16_t>(sum)),
        y_(data_or_null<uint16_t>(y)) {}

  void run() const {
    constexpr int64_t share = int64_t(768) << 10;  // bytes of x that stay in a cache, with weights
    const int64_t threads = at::get_num_threads(), total = s_.positions();
    const int64_t parts = quotient_up(total * s_.row_bytes(), share), weights = s_.pairs() * s_.steps() * 2 * tile_bytes;
    if (parts < 2 * threads && weights > share && s_.pairs() >= threads) return by_channels(threads);
    const int64_t each = up(quotient_up(total, up(parts, threads)), tile_block);
    at::parallel_for(0, quotient_up(total, each), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * each, count = std::min(each, total - first);
        multiply(packed(first, count), count, 0, s_.pairs());
      }
    });
  }

 private:
  /// Each thread takes some output channels of all positions.
  void by_channels(int64_t threads) const {
    constexpr int64_t most = int64_t(3) << 20;
    const int64_t total = s_.positions(), groups = std::min(s_.pairs(), up(quotient_up(s_.pairs(), together), threads));
    const int64_t each = std::max(tile_block, most / s_.row_bytes() / tile_block * tile_block), before = s_.reach();
    const Bytes all(in_place() ? 0 : (total + 2 * before + tile_block) * s_.row_bytes());
    if (!in_place())
      at::parallel_for(0, total + 2 * before + tile_block, 64, [&](int64_t begin, int64_t end) {
        kernel().pack(s_, x_, begin - before, end - begin, all.begin + begin * s_.row_bytes());
      });
    at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group)
        for (int64_t first = 0; first < total; first += each) {
          const Packed x = in_place() ? packed(first, 0) : Packed{all.begin + (first + before) * s_.row_bytes(), s_.row_bytes(), first};
          multiply(x, std::min(each, total - first), s_.pairs() * group / groups, s_.pairs() * (group + 1) / groups);
        }
    });
  }

  /// Returns true if x can be read as it is: whole tiles, whose rows do not evict each other.
  bool in_place() const {
    return s_.kernel == 1 && s_.channels % tile_depth == 0 && s_.depths() % 16 != 0 && s_.positions() % tile_side == 0;
  }

  Packed packed(int64_t first, int64_t count) const {
    if (in_place()) return {reinterpret_cast<const char*>(x_ + first * s_.channels), s_.channels * 2, first};
    const int64_t before = s_.reach(), all = count + 2 * before + tile_block;
    char* const to = work<char>(all * s_.row_bytes());
    kernel().pack(s_, x_, first - before, all, to);
    return {to + before * s_.row_bytes(), s_.row_bytes(), first};
  }

  /// `count` positions by the pairs of output channels [begin, end): some of those at a time, and some of the sums' steps, whose weights
  /// stay in a cache.
  void multiply(const Packed& x, int64_t count, int64_t begin, int64_t end) const {
    constexpr int64_t steps = 64;
    const int64_t units = s_.kernel * s_.depths(), parts = quotient_up(units * s_.kernel, steps),
                  floats = up(count, tile_block) * tile_pair;
    float* const sums = parts > 1 ? work<float>(together * floats) : nullptr;
    for (int64_t group = begin; group < end; group += together)
      for (int64_t part = 0; part < parts; ++part)
        for (int64_t pair = group; pair < std::min(group + together, end); ++pair)
          kernel().multiply(s_,
                            {x.at, x.row_bytes, weights_ + pair * s_.steps() * 2 * tile_bytes, pair, x.first, count, units * part / parts,
                             units * (part + 1) / parts, sums ? sums + (pair - group) * floats : nullptr, bias_, sum_, y_});
  }

  static constexpr int64_t together = 4;  // pairs of output channels
  const TileShape s_;
  const uint16_t* x_;
  const char* weights_;
  const float* bias_;
  const uint16_t* sum_;
  uint16_t* y_;
};

/// One gradient by weight. Positions are cut into chunks; the sums of all chunks are added up in order.
class Gradient {
 public:
  Gradient(const Tensor& x, const Tensor& dy, int64_t size)
      : s_(shape_of(x, x.size(1), dy.size(1), size)),
        x_(data_or_null<const uint16_t>(x)),
        dy_(data_or_null<const uint16_t>(dy)),
        chunk_(std::min(up(s_.positions(), tile_depth),
                        std::clamp<int64_t>((int64_t(1) << 20) / (s_.channels + s_.out), 512, 8192) / 32 * 32)),
        around_(up(chunk_ + 2 * s_.reach(), tile_depth)),
        row_(((around_ * 2 + 64) / 64 | 1) * 64),
        outs_(s_.out / tile_side),
        pairs_(quotient_up(s_.channels, tile_pair)),
        columns_(s_.out * row_),
        rows_(up(s_.channels, tile_pair) * chunk_ * 2),
        sums_(outs_ * size * size * pairs_ * 2 * tile_bytes) {}

  void run(float* bias) {
    for (int64_t first = 0; first < s_.positions(); first += chunk_) {
      pack(first);
      if (s_.kernel == 1)
        at::parallel_for(0, quotient_up(outs_, 3), 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) multiply(i * 3, 0, std::min<int64_t>(3, outs_ - i * 3), first == 0, bias);
        });
      else
        at::parallel_for(0, outs_ * 3, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) multiply(i / 3, i % 3, 3, first == 0, bias);
        });
    }
  }

  /// dw: [O, C, k, k].
  void store(const Tensor& dw) const {
    float* const to = data_or_null<float>(dw);
    const int64_t size = s_.kernel, step_o = dw.stride(0), step_c = dw.stride(1);
    at::parallel_for(0, outs_ * tile_side, 1, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        for (int64_t tap = 0; tap < size * size; ++tap)
          for (int64_t c = 0; c < s_.channels; c += tile_side) {
            const float* const from =
                tile(o / tile_side, tap / size, c / tile_pair, tap % size, c / tile_side % 2) + o % tile_side * tile_side;
            float* const place = to + o * step_o + c * step_c + tap / size * dw.stride(2) + tap % size * dw.stride(3);
            for (int64_t i = 0; i < tile_side; ++i) place[i * step_c] = from[i];
          }
    });
  }

 private:
  void pack(int64_t first) {
    const int64_t steps = chunk_ / tile_depth, all = around_ / tile_depth;
    at::parallel_for(0, all, 4, [&](int64_t begin, int64_t end) {
      for (int64_t o = 0; o < s_.out; o += tile_side)
        kernel().columns(s_, dy_, s_.out, o, first - s_.reach() + begin * tile_depth, end - begin, columns_.begin + o * row_ + begin * 64,
                         row_);
      const int64_t last = std::min(end, steps);
      for (int64_t c = 0; begin < last && c < s_.channels; c += tile_side)
        kernel().pairs(s_, x_, s_.channels, c, first + begin * tile_depth, last - begin,
                       rows_.begin + (c / tile_side * steps + begin) * tile_bytes);
    });
  }

  /// `tiles` of output channels from the tile `out` on, or of taps of one row, by all channels of x.
  void multiply(int64_t out, int64_t row, int64_t tiles, bool begin, float* bias) {
    const int64_t steps = chunk_ / tile_depth, half = steps * tile_bytes;
    const bool taps = s_.kernel > 1;
    // The tap at distance s multiplies x with the dy of s positions before.
    const char* const dy = columns_.begin + out * tile_side * row_ + 2 * (taps ? s_.reach() - (row - 1) * s_.line() + 1 : 0);
    for (int64_t pair = 0; pair < pairs_; ++pair) {
      const bool both = pair * tile_pair + tile_side < s_.channels;
      kernel().gradient({dy, row_, taps ? -2 : tile_side * row_, rows_.begin + pair * 2 * half, both ? half : 0, steps, begin,
                         tile(out, row, pair, 0, 0)},
                        tiles);
    }
    if (bias && row == 0)
      for (int64_t o = out; o < out + (taps ? 1 : tiles); ++o)
        kernel().sum(columns_.begin + o * tile_side * row_ + 2 * s_.reach(), row_, chunk_, bias + o * tile_side);
  }

  /// Returns the sums of 16 output channels and 16 channels of x: of 3x3 [out, row, pair, tap, half], of 1x1 [out / 3, pair, out % 3,
  /// half].
  float* tile(int64_t out, int64_t row, int64_t pair, int64_t tap, int64_t half) const {
    constexpr int64_t floats = tile_bytes / 4;
    float* const begin = reinterpret_cast<float*>(sums_.begin);
    if (s_.kernel > 1) return begin + ((((out * 3 + row) * pairs_ + pair) * 3 + tap) * 2 + half) * floats;
    const int64_t group = out / 3, tiles = std::min<int64_t>(3, outs_ - group * 3);
    return begin + (group * 3 * pairs_ + pair * tiles + out % 3) * 2 * floats + half * floats;
  }

  const TileShape s_;
  const uint16_t *x_, *dy_;
  const int64_t chunk_, around_;  ///< positions of a chunk, and those that its windows reach
  const int64_t row_;             ///< bytes of a channel of dy
  const int64_t outs_, pairs_;    ///< tiles of output channels; pairs of tiles of channels of x
  const Bytes columns_, rows_, sums_;
};

}  // namespace

bool tile_conv_fits(TilePass pass, at::ScalarType type, const Tensor& weight, int64_t stride, int64_t padding) {
  static const char* const text = std::getenv("BRUME_TILES");
  constexpr int64_t many = 128;  // channels with which oneDNN is no slower
  const bool measured = pass != TilePass::forward && std::max(weight.size(0), weight.size(1)) < many;
  if (!(text ? std::string_view(text) == "1" : measured)) return false;
  if (isa() != Isa::amx || type != at::kBFloat16 || stride != 1 || weight.dim() != 4) return false;
  const int64_t size = weight.size(2);
  if ((size != 1 && size != 3) || weight.size(3) != size || padding != size / 2) return false;
  return weight.size(0) % tile_side == 0 && weight.size(1) % tile_side == 0 && weight.numel() > 0;
}

TileWeight tile_weight(const Tensor& weight, bool gradient, Tensor (*memory)(size_t)) {
  const Tensor cast = weight.scalar_type() == at::kHalf ? from_half(weight, at::kBFloat16) : weight.to(at::kBFloat16);
  const Tensor w = cast.contiguous(at::MemoryFormat::ChannelsLast);
  const int64_t in = w.size(gradient ? 0 : 1), out = w.size(gradient ? 1 : 0), size = w.size(2);
  const TileShape s{1, 1, 1, in, out, size};
  const int64_t bytes = s.steps() * 2 * tile_bytes;
  TileWeight result{memory(size_t(s.pairs() * bytes)), in, out, size};
  char* const to = data_or_null<char>(result.stored);
  at::parallel_for(0, s.pairs(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) kernel().weights(s, data_or_null<const uint16_t>(w), gradient, pair, to + pair * bytes);
  });
  return result;
}

void tile_conv2d(const Tensor& x, const TileWeight& weight, const Tensor& bias, const Tensor& sum, const Tensor& y) {
  if (x.numel() == 0) return;
  const Tensor line = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  Convolution(x, weight, line, sum, y).run();
}

void tile_conv_gradient(const Tensor& x, const Tensor& dy, const Tensor& dw, const Tensor& db) {
  if (db.defined()) db.zero_();
  if (x.numel() == 0) {
    dw.zero_();
    return;
  }
  Gradient gradient(x, dy, dw.size(2));
  gradient.run(data_or_null<float>(db));
  gradient.store(dw);
}

}  // namespace brume::nn
