# LibTorch's and the standard headers that most sources include: parsed once per target, not once per source.
set(BRUME_PRECOMPILED
  <ATen/core/Tensor.h> <ATen/TensorOperators.h> <ATen/core/grad_mode.h> <fmt/format.h> <algorithm> <array> <cmath> <cstdint> <filesystem>
  <fstream> <functional> <map> <memory> <optional> <set> <span> <sstream> <string> <string_view> <unordered_map> <utility> <variant> <vector>)
