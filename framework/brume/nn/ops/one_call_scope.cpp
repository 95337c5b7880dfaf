#include "brume/nn/ops/one_call_scope.h"

#include <cstdint>

namespace brume::nn {
namespace {

thread_local int64_t living = 0;

}  // namespace

OneCallScope::OneCallScope() { ++living; }
OneCallScope::~OneCallScope() { --living; }
bool OneCallScope::active() { return living > 0; }

}  // namespace brume::nn
