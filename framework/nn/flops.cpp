#include "nn/flops.h"

namespace brume::nn {
namespace {
thread_local FlopCounter* current = nullptr;
}

FlopCounter::FlopCounter() : outer_(current) { current = this; }
FlopCounter::~FlopCounter() { current = outer_; }

void FlopCounter::add(double flops) {
  for (FlopCounter* c = current; c; c = c->outer_) c->flops_ += flops;
}

}  // namespace brume::nn
