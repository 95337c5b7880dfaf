#pragma once
// For the source of an out-of-tree plugin:
//   BRUME_PLUGIN("my_sampler") { registry.add<brume::Sampler, MySampler>("my_sampler", "what it does"); }
#include <torch/version.h>

#include "brume/config/plugin_loader.h"

#define BRUME_PLUGIN(plugin_name)                                                                                                \
  extern "C" __attribute__((visibility("default"), used, section(".brume_abi"))) constexpr ::brume::PluginAbi brume_plugin_abi = \
      ::brume::make_plugin_abi(TORCH_VERSION, __VERSION__, _GLIBCXX_USE_CXX11_ABI, plugin_name);                                 \
  extern "C" __attribute__((visibility("default"))) void brume_plugin_register(::brume::Registry& registry)
