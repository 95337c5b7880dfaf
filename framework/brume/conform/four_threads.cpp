#include "brume/conform/four_threads.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <exception>
#include <thread>

namespace brume {

void check_four_threads(std::vector<Finding>& findings, const std::string& meaning, const std::function<Tensor(size_t)>& result) {
  check(findings, {"4 threads at once", meaning}, [&](Finding& f) {
    std::vector<Tensor> serial, parallel(4);
    for (size_t i = 0; i < 4; ++i) serial.push_back(result(i));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < 4; ++i)
      threads.emplace_back([&, i] {
        const at::NoGradGuard no_grad;
        try {
          parallel[i] = result(i);
        } catch (const std::exception&) {  // an undefined result counts against it
        }
      });
    for (std::thread& t : threads) t.join();
    int64_t same = 0;
    for (size_t i = 0; i < 4; ++i) same += parallel[i].defined() && at::equal(serial[i], parallel[i]);
    f.measured = fmt::format("{} of 4 equal", same), f.wanted = "4 of 4, bit for bit", f.holds = same == 4;
  });
}

}  // namespace brume
