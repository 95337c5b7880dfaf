#include "brume/weights/float8.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <unordered_map>

#include "brume/config/counted.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

/// Returns the value of a byte with this many bits of exponent; E4M3 has no infinities, and NaN is all ones.
float value_of_byte(uint8_t byte, int exponent_bits) {
  const int mantissa_bits = 7 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (byte >> mantissa_bits) & ((1 << exponent_bits) - 1), mantissa = byte & ((1 << mantissa_bits) - 1);
  const float sign = (byte & 0x80) != 0 ? -1 : 1;
  if (exponent_bits == 4 && (byte & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  if (exponent_bits == 5 && exponent == 31)
    return mantissa == 0 ? sign * std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  const float share = float(mantissa) / float(1 << mantissa_bits);
  return sign * (exponent == 0 ? std::ldexp(share, 1 - bias) : std::ldexp(1 + share, exponent - bias));
}

std::array<c10::BFloat16, 256> table_of(int exponent_bits) {
  std::array<c10::BFloat16, 256> table;
  for (int i = 0; i < 256; ++i) table[size_t(i)] = c10::BFloat16(value_of_byte(uint8_t(i), exponent_bits));
  return table;
}

/// The tensor by which a file says that its tensors of 8 bits are scaled, below the prefix of their module.
const std::string mark = "scaled_fp8";

/// Returns the names that programs give to the scale of "x.weight".
std::vector<std::string> scale_names(const std::string& name) {
  const std::string end = ".weight";
  std::vector<std::string> names{name + "_scale"};
  if (name.ends_with(end)) names.push_back(name.substr(0, name.size() - end.size()) + ".scale_weight");
  return names;
}

/// Returns the names of what programs keep next to "x.weight" and products in 8 bits alone need: the scale of the input, the name of the
/// format.
std::vector<std::string> unused_names(const std::string& name) {
  constexpr std::string_view end = ".weight";
  if (!name.ends_with(end)) return {};
  const std::string module = name.substr(0, name.size() - end.size());
  return {module + ".scale_input", module + ".input_scale", module + ".comfy_quant"};
}

at::Tensor scaled(const at::Tensor& values, const at::Tensor& scale, const std::string& name, const std::string& path) {
  const bool rows = values.dim() > 0 && scale.numel() == values.size(0);
  if (!scale.is_floating_point() || (scale.numel() != 1 && !rows))
    refuse(path, fmt::format("tensor '{}' has a scale of {}; one is expected, or one per row", name, counted(scale.numel(), "number")));
  std::vector<int64_t> shape(size_t(values.dim()), 1);
  if (scale.numel() != 1) shape[0] = values.size(0);
  return values.to(at::kFloat) * scale.to(at::kFloat).reshape(shape);
}

}  // namespace

bool is_float8(std::string_view dtype) { return dtype == "F8_E4M3" || dtype == "F8_E5M2"; }

at::Tensor from_float8(const uint8_t* bytes, const std::vector<int64_t>& shape, std::string_view dtype) {
  static const std::array<c10::BFloat16, 256> e4m3 = table_of(4), e5m2 = table_of(5);
  const auto& table = dtype == "F8_E4M3" ? e4m3 : e5m2;
  at::Tensor values = at::empty(shape, at::TensorOptions().dtype(at::kBFloat16));
  c10::BFloat16* out = values.numel() > 0 ? values.data_ptr<c10::BFloat16>() : nullptr;
  for (int64_t i = 0; i < values.numel(); ++i) out[i] = table[bytes[i]];
  return values;
}

void apply_float8_scales(NamedTensors& tensors, const std::vector<std::string>& names, const std::string& path) {
  std::unordered_map<std::string, at::Tensor*> by_name;
  for (NamedTensor& t : tensors) by_name.emplace(t.name, &t.tensor);
  std::vector<std::string> marked;  // what the names of scaled tensors begin with
  for (const NamedTensor& t : tensors)
    if (t.name == mark || t.name.ends_with("." + mark)) marked.push_back(t.name.substr(0, t.name.size() - mark.size()));
  const auto is_marked = [&](const std::string& name) {
    return std::any_of(marked.begin(), marked.end(), [&](const std::string& prefix) { return name.starts_with(prefix); });
  };
  std::set<std::string> used;
  for (const std::string& name : names) {
    for (const std::string& unused : unused_names(name)) used.insert(unused);
    const at::Tensor* scale = nullptr;
    for (const std::string& candidate : scale_names(name))
      if (const auto at = by_name.find(candidate); at != by_name.end()) scale = at->second, used.insert(candidate);
    if (scale)
      *by_name.at(name) = scaled(*by_name.at(name), *scale, name, path);
    else if (is_marked(name) && name.ends_with(".weight"))
      refuse(path, fmt::format("tensor '{}' has 8 bits and no scale ('{}'), and the file says that its tensors are scaled (scaled_fp8)",
                               name, scale_names(name).back()));
  }
  if (!names.empty()) std::erase_if(tensors, [&](const NamedTensor& t) { return used.contains(t.name) || t.name.ends_with(mark); });
}

}  // namespace brume
