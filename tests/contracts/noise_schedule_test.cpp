// Every noise schedule keeps the laws of its kind (conform/noise_schedule.cpp).
#include "support/laws.h"
#include "support/registry.h"

namespace brume::test {
namespace {

class NoiseScheduleContract : public testing::TestWithParam<Specimen> {};

TEST_P(NoiseScheduleContract, KeepsItsLaws) { expect_to_hold(conform(*make<NoiseSchedule>(GetParam().yaml))); }

INSTANTIATE_TEST_SUITE_P(Registry, NoiseScheduleContract,
                         testing::ValuesIn(specimens("noise_schedule",
                                                     {"{type: linear, timesteps: 50, rescale: true}", "{type: linear, timesteps: 2}",
                                                      "{type: cosine, timesteps: 4000}", "{type: cosine, timesteps: 10}",
                                                      "{type: angle, min_signal: 0.001, max_signal: 0.999}", "{type: flow, shift: 3}",
                                                      "{type: flow, timestep: image}", "{type: zero_terminal_snr, schedule: cosine}",
                                                      "{type: vp, epsilon: 1.0e-05}"})),
                         readable);

}  // namespace
}  // namespace brume::test
