#include "brume/train/base_hash.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "brume/config/errors.h"
#include "brume/weights/model_hash.h"

namespace brume {

BaseHash::BaseHash(std::string file, std::string name, const StoredModel& base)
    : file_(std::move(file)),
      name_(std::move(name)),
      hash_(model_hash(file_, base.tensors)),
      resumed_(at::empty({int64_t(hash_.size())}, at::kByte)) {
  std::copy(hash_.begin(), hash_.end(), static_cast<char*>(resumed_.data_ptr()));
}

void BaseHash::check(const std::string& what) const {
  const std::string begun(static_cast<const char*>(resumed_.data_ptr()), size_t(resumed_.numel()));
  if (begun != hash_) throw ConfigError(fmt::format("{}: its SHA-256 is {}, and {} of a base with {}", file_, hash_, what, begun));
}

}  // namespace brume
