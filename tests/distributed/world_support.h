#pragma once
// A world whose processes are threads of the test.
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "brume/distributed/world.h"
#include "support/tempdir.h"

namespace brume::test {

/// Runs `run` in each process of a world. Returns what each threw, "" if nothing.
inline std::vector<std::string> in_world(int64_t size, const std::function<void(const std::shared_ptr<World>&)>& run) {
  const TempFolder folder;
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      std::shared_ptr<World> world;
      try {
        world = join_world({r, size, r, size, "file://" + folder.file("store")}, std::chrono::seconds(60), std::chrono::seconds(60));
        run(world);
      } catch (const std::exception& e) {
        errors[size_t(r)] = e.what();
        if (world) world->leave(e.what());
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace brume::test
