#include "brume/nn/blocks/inception.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/stack.h>

#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

struct Layer {
  std::string name;
  int64_t in, out, height, width;  ///< channels, and the sides of the kernel
};

class Layers {
 public:
  std::vector<Layer> all;
  void add(const std::string& name, int64_t in, int64_t out, int64_t height, int64_t width) {
    all.push_back({prefix_ + name, in, out, height, width});
  }
  void square(const std::string& name, int64_t in, int64_t out, int64_t side) { add(name, in, out, side, side); }
  void block(const std::string& name) { prefix_ = name + "."; }

 private:
  std::string prefix_;
};

void stem(Layers& l) {
  l.square("Conv2d_1a_3x3", 3, 32, 3);
  l.square("Conv2d_2a_3x3", 32, 32, 3);
  l.square("Conv2d_2b_3x3", 32, 64, 3);
  l.square("Conv2d_3b_1x1", 64, 80, 1);
  l.square("Conv2d_4a_3x3", 80, 192, 3);
}

void block_a(Layers& l, const std::string& name, int64_t in, int64_t pool) {
  l.block(name);
  l.square("branch1x1", in, 64, 1);
  l.square("branch5x5_1", in, 48, 1);
  l.square("branch5x5_2", 48, 64, 5);
  l.square("branch3x3dbl_1", in, 64, 1);
  l.square("branch3x3dbl_2", 64, 96, 3);
  l.square("branch3x3dbl_3", 96, 96, 3);
  l.square("branch_pool", in, pool, 1);
}

void block_b(Layers& l, const std::string& name) {
  l.block(name);
  l.square("branch3x3", 288, 384, 3);
  l.square("branch3x3dbl_1", 288, 64, 1);
  l.square("branch3x3dbl_2", 64, 96, 3);
  l.square("branch3x3dbl_3", 96, 96, 3);
}

void block_c(Layers& l, const std::string& name, int64_t middle) {
  l.block(name);
  l.square("branch1x1", 768, 192, 1);
  l.square("branch7x7_1", 768, middle, 1);
  l.add("branch7x7_2", middle, middle, 1, 7);
  l.add("branch7x7_3", middle, 192, 7, 1);
  l.square("branch7x7dbl_1", 768, middle, 1);
  l.add("branch7x7dbl_2", middle, middle, 7, 1);
  l.add("branch7x7dbl_3", middle, middle, 1, 7);
  l.add("branch7x7dbl_4", middle, middle, 7, 1);
  l.add("branch7x7dbl_5", middle, 192, 1, 7);
  l.square("branch_pool", 768, 192, 1);
}

void block_d(Layers& l, const std::string& name) {
  l.block(name);
  l.square("branch3x3_1", 768, 192, 1);
  l.square("branch3x3_2", 192, 320, 3);
  l.square("branch7x7x3_1", 768, 192, 1);
  l.add("branch7x7x3_2", 192, 192, 1, 7);
  l.add("branch7x7x3_3", 192, 192, 7, 1);
  l.square("branch7x7x3_4", 192, 192, 3);
}

void block_e(Layers& l, const std::string& name, int64_t in) {
  l.block(name);
  l.square("branch1x1", in, 320, 1);
  l.square("branch3x3_1", in, 384, 1);
  l.add("branch3x3_2a", 384, 384, 1, 3);
  l.add("branch3x3_2b", 384, 384, 3, 1);
  l.square("branch3x3dbl_1", in, 448, 1);
  l.square("branch3x3dbl_2", 448, 384, 3);
  l.add("branch3x3dbl_3a", 384, 384, 1, 3);
  l.add("branch3x3dbl_3b", 384, 384, 3, 1);
  l.square("branch_pool", in, 192, 1);
}

std::vector<Layer> layers() {
  Layers l;
  stem(l);
  block_a(l, "Mixed_5b", 192, 32), block_a(l, "Mixed_5c", 256, 64), block_a(l, "Mixed_5d", 288, 64);
  block_b(l, "Mixed_6a");
  block_c(l, "Mixed_6b", 128), block_c(l, "Mixed_6c", 160), block_c(l, "Mixed_6d", 160), block_c(l, "Mixed_6e", 192);
  block_d(l, "Mixed_7a");
  block_e(l, "Mixed_7b", 1280), block_e(l, "Mixed_7c", 2048);
  return l.all;
}

Tensor average_pool(const Tensor& x) { return at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, false, false); }
Tensor halving_pool(const Tensor& x) { return at::max_pool2d(x, {3, 3}, {2, 2}); }

/// Returns the mean over the positions, image by image: a reduction over a whole batch takes other paths for small ones.
Tensor average(const Tensor& x) {
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < x.size(0); ++i) rows.push_back(x.select(0, i).flatten(1).mean(1));
  return at::stack(rows);
}

}  // namespace

std::vector<Weight> InceptionV3::layout() {
  std::vector<Weight> all;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) { all.push_back({name, at::empty(shape, at::kFloat), false}); };
  for (const Layer& l : layers()) {
    add(l.name + ".conv.weight", {l.out, l.in, l.height, l.width});
    for (const char* part : {"weight", "bias", "running_mean", "running_var"}) add(l.name + ".bn." + part, {l.out});
  }
  add("fc.weight", {classes, width});
  add("fc.bias", {classes});
  return all;
}

InceptionV3::InceptionV3(const std::vector<Weight>& weights, at::Device device) {
  std::map<std::string, Tensor> named;
  for (const Weight& w : weights) named[w.name] = w.tensor.to(at::kDouble);
  for (const Layer& l : layers()) {
    const auto of = [&](const char* part) { return named.at(l.name + part); };
    const Tensor scale = of(".bn.weight") / (of(".bn.running_var") + 0.001).sqrt();
    const Tensor weight = (of(".conv.weight") * scale.view({-1, 1, 1, 1})).to(at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
    const Tensor bias = (of(".bn.bias") - of(".bn.running_mean") * scale).to(at::kFloat);
    convs_[l.name] = {weight.to(device), bias.to(device), 1, 0, std::make_shared<PackedWeight>()};
  }
  fc_ = {named.at("fc.weight").to(device, at::kFloat), {}, std::make_shared<PackedWeight>()};
}

Tensor InceptionV3::conv(const std::string& name, const Tensor& x, int64_t stride, bool valid) const {
  const Conv2d& c = convs_.at(name);
  const int64_t h = valid ? 0 : c.weight.size(2) / 2, w = valid ? 0 : c.weight.size(3) / 2;
  const Tensor padded = h == w ? x : at::constant_pad_nd(x, {w, w, h, h});
  return conv2d(padded, c.weight, c.bias, stride, h == w ? h : 0, c.packed.get()).relu_();
}

Tensor InceptionV3::block_a(const std::string& n, const Tensor& x) const {
  const Tensor five = conv(n + ".branch5x5_2", conv(n + ".branch5x5_1", x));
  const Tensor three = conv(n + ".branch3x3dbl_3", conv(n + ".branch3x3dbl_2", conv(n + ".branch3x3dbl_1", x)));
  return at::cat({conv(n + ".branch1x1", x), five, three, conv(n + ".branch_pool", average_pool(x))}, 1);
}

Tensor InceptionV3::block_b(const std::string& n, const Tensor& x) const {
  const Tensor twice = conv(n + ".branch3x3dbl_3", conv(n + ".branch3x3dbl_2", conv(n + ".branch3x3dbl_1", x)), 2, true);
  return at::cat({conv(n + ".branch3x3", x, 2, true), twice, halving_pool(x)}, 1);
}

Tensor InceptionV3::block_c(const std::string& n, const Tensor& x, Tensor* spatial) const {
  const Tensor one = conv(n + ".branch1x1", x);
  if (spatial) *spatial = one.narrow(1, 0, 7).permute({0, 2, 3, 1}).flatten(1);
  const Tensor seven = conv(n + ".branch7x7_3", conv(n + ".branch7x7_2", conv(n + ".branch7x7_1", x)));
  Tensor twice = conv(n + ".branch7x7dbl_1", x);
  for (const char* layer : {"2", "3", "4", "5"}) twice = conv(n + ".branch7x7dbl_" + layer, twice);
  return at::cat({one, seven, twice, conv(n + ".branch_pool", average_pool(x))}, 1);
}

Tensor InceptionV3::block_d(const std::string& n, const Tensor& x) const {
  const Tensor three = conv(n + ".branch3x3_2", conv(n + ".branch3x3_1", x), 2, true);
  const Tensor seven = conv(n + ".branch7x7x3_3", conv(n + ".branch7x7x3_2", conv(n + ".branch7x7x3_1", x)));
  return at::cat({three, conv(n + ".branch7x7x3_4", seven, 2, true), halving_pool(x)}, 1);
}

Tensor InceptionV3::block_e(const std::string& n, const Tensor& x, bool max_pool) const {
  const Tensor three = conv(n + ".branch3x3_1", x), twice = conv(n + ".branch3x3dbl_2", conv(n + ".branch3x3dbl_1", x));
  const Tensor pooled = max_pool ? at::max_pool2d(x, {3, 3}, {1, 1}, {1, 1}) : average_pool(x);
  return at::cat({conv(n + ".branch1x1", x), conv(n + ".branch3x3_2a", three), conv(n + ".branch3x3_2b", three),
                  conv(n + ".branch3x3dbl_3a", twice), conv(n + ".branch3x3dbl_3b", twice), conv(n + ".branch_pool", pooled)},
                 1);
}

InceptionV3::Output InceptionV3::operator()(const Tensor& images, int64_t dims) const {
  Tensor x = conv("Conv2d_1a_3x3", images, 2, true);
  x = conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", x, 1, true));
  x = halving_pool(x);
  if (dims == 64) return {average(x), {}, {}};
  x = halving_pool(conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x), 1, true));
  if (dims == 192) return {average(x), {}, {}};
  for (const char* name : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) x = block_a(name, x);
  x = block_b("Mixed_6a", x);
  Output out;
  x = block_c("Mixed_6c", block_c("Mixed_6b", x));
  x = block_c("Mixed_6e", block_c("Mixed_6d", x, &out.spatial));
  if (dims == 768) return {average(x), {}, {}};
  x = block_e("Mixed_7c", block_e("Mixed_7b", block_d("Mixed_7a", x), false), true);
  out.features = average(x);
  out.logits = linear(out.features, fc_.weight, {}, fc_.packed.get());
  return out;
}

}  // namespace brume::nn
