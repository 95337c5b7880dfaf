// The reading of scheduler_config.json beyond the runs that are recorded (parity/scheduler_import_test.cpp): every class builds with what
// it knows, what Stable Diffusion's pipelines force, and what is refused.
#include "brume/interop/import/diffusers_scheduler.h"

#include <fmt/format.h>

#include <cmath>

#include "support/flow.h"
#include "support/parity.h"

namespace brume::test {
namespace {

using nlohmann::json;

DiffusersScheduler read(const json& values, bool stable_diffusion = false) {
  return read_diffusers_scheduler(DiffusersConfig(values, "scheduler_config.json", "a scheduler of brume"), stable_diffusion);
}

SchedulerConfig built(const json& values) {
  const DiffusersScheduler s = read(values);
  return read_scheduler(
      fmt::format("noise: {}\nparameterization: {}\nsample: {{sampler: {}, spacing: {}, steps: 10, guidance: {}, start: {}, "
                  "timestep_rounding: {}}}\n",
                  flow(s.noise), flow(s.parameterization), flow(s.sampler), flow(s.spacing), flow(Value::list(s.guidance)), s.start,
                  s.timestep_rounding));
}

std::string refusal(const json& values) {
  return error_of([&] { read(values); });
}

const std::vector<std::string> classes{"DDPM",
                                       "DDPMParallel",
                                       "DDIM",
                                       "DDIMParallel",
                                       "PNDM",
                                       "LMSDiscrete",
                                       "EulerDiscrete",
                                       "EulerAncestralDiscrete",
                                       "HeunDiscrete",
                                       "KDPM2Discrete",
                                       "KDPM2AncestralDiscrete",
                                       "DPMSolverSDE",
                                       "DPMSolverMultistep",
                                       "DPMSolverSinglestep",
                                       "DEISMultistep",
                                       "UniPCMultistep",
                                       "SASolver",
                                       "LCM",
                                       "TCD"};

// A file keeps the keys of the class that it was made from: whatever they say, each class builds, and its sigmas fall.
TEST(DiffusersSchedulers, EveryClassWithTheKeysOfOthers) {
  const std::vector<json> keys{{{"timestep_spacing", "leading"}, {"steps_offset", 1}},
                               {{"timestep_spacing", "trailing"}, {"prediction_type", "v_prediction"}},
                               {{"timestep_spacing", "linspace"}, {"prediction_type", "sample"}, {"beta_schedule", "squaredcos_cap_v2"}},
                               {{"use_karras_sigmas", true}, {"beta_schedule", "scaled_linear"}, {"final_sigmas_type", "sigma_min"}},
                               {{"use_exponential_sigmas", true}, {"beta_schedule", "sigmoid"}},
                               {{"use_beta_sigmas", true}, {"timestep_spacing", "trailing"}},
                               {{"use_lu_lambdas", true}, {"beta_schedule", "exp"}},
                               {{"thresholding", true}, {"sample_max_value", 2.5}, {"clip_sample", true}, {"clip_sample_range", 3.0}},
                               {{"solver_order", 3}, {"algorithm_type", "deis"}, {"solver_type", "logrho"}, {"lower_order_final", false}},
                               {{"solver_order", 1}, {"algorithm_type", "dpmsolver"}, {"solver_type", "bh1"}, {"euler_at_final", true}},
                               {{"rescale_betas_zero_snr", true}, {"timestep_spacing", "trailing"}, {"prediction_type", "v_prediction"}},
                               {{"skip_prk_steps", true}, {"set_alpha_to_one", false}, {"lambda_min_clipped", "-inf"}},
                               {{"trained_betas", {0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12, 0.13}},
                                {"num_train_timesteps", 13},
                                {"original_inference_steps", 13}},
                               json::object()};
  for (const std::string& name : classes)
    for (json values : keys) {
      values["_class_name"] = name + "Scheduler";
      if (name == "SASolver") values.erase("algorithm_type");
      SCOPED_TRACE(values.dump());
      const SchedulerConfig config = built(values);
      const std::vector<double> sigmas = config.sigmas();
      ASSERT_EQ(sigmas.size(), 11u);
      for (size_t i = 1; i < 10; ++i) EXPECT_LT(sigmas[i], sigmas[i - 1]);
      EXPECT_LE(sigmas[10], sigmas[9]) << "some end where the last step begins";
    }
}

TEST(DiffusersSchedulers, WhatStableDiffusionForces) {
  const json pndm{{"_class_name", "PNDMScheduler"}, {"skip_prk_steps", true}};
  EXPECT_EQ(flow(read(pndm).spacing), "{type: leading, offset: 0, final: minimum}");
  EXPECT_EQ(flow(read(pndm, true).spacing), "{type: leading, offset: 1, final: minimum}");
  const json ddim{{"_class_name", "DDIMScheduler"}};
  EXPECT_EQ(flow(Value::list(read(ddim).guidance)), "[{type: clip, range: 1, keep_direction: true}]");
  EXPECT_TRUE(read(ddim, true).guidance.empty());
}

json with(const char* name, const json& more) {
  json values{{"_class_name", std::string(name) + "Scheduler"}};
  values.update(more);
  return values;
}

const std::string begin = "scheduler_config.json: ", part = "; a scheduler of brume supports ";

TEST(DiffusersSchedulers, WhatIsRefused) {
  EXPECT_EQ(refusal(with("DEISMultistep", {{"use_flow_sigmas", true}})), begin + "use_flow_sigmas is true" + part + "null only");
  EXPECT_EQ(refusal(with("UniPCMultistep", {{"use_flow_sigmas", true}, {"final_sigmas_type", "sigma_min"}})),
            begin + "final_sigmas_type is \"sigma_min\"" + part + "zero, with use_flow_sigmas, only");
  EXPECT_EQ(refusal(with("DPMSolverMultistep", {{"lambda_min_clipped", "low"}})),
            begin + "lambda_min_clipped is \"low\"" + part + "a number, and -Infinity only");
  EXPECT_EQ(refusal(with("DPMSolverMultistep", {{"lambda_min_clipped", -5.1}, {"timestep_spacing", "trailing"}})),
            begin + "timestep_spacing is \"trailing\"" + part + "linspace and leading, with lambda_min_clipped, only");
  EXPECT_EQ(refusal(with("DPMSolverMultistep", {{"algorithm_type", "dpm"}})),
            begin + "algorithm_type is \"dpm\"" + part + "dpmsolver, dpmsolver++, sde-dpmsolver and sde-dpmsolver++ only");
  EXPECT_EQ(refusal(with("DPMSolverMultistep", {{"solver_type", "rk4"}})),
            begin + "solver_type is \"rk4\"" + part + "midpoint and heun only");
  EXPECT_EQ(refusal(with("EulerDiscrete", {{"timestep_spacing", "even"}})),
            begin + "timestep_spacing is \"even\"" + part + "linspace, leading and trailing only");
  EXPECT_EQ(refusal(with("EulerDiscrete", {{"interpolation_type", "cubic"}})),
            begin + "interpolation_type is \"cubic\"" + part + "linear and log_linear only");
  EXPECT_EQ(refusal(with("EulerDiscrete", {{"use_karras_sigmas", true}, {"use_beta_sigmas", true}})),
            begin + "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and use_lu_lambdas: one at most");
  EXPECT_EQ(refusal(with("EulerDiscrete", {{"final_sigmas_type", "zeros"}})),
            begin + "final_sigmas_type is \"zeros\"" + part + "zero and sigma_min only");
  EXPECT_EQ(refusal(with("SASolver", {{"algorithm_type", "dpmsolver++"}})),
            begin + "algorithm_type is \"dpmsolver++\"" + part + "data_prediction and noise_prediction only");
  EXPECT_EQ(refusal(with("DDPM", {{"prediction_type", "flow"}})),
            begin + "prediction_type is \"flow\"" + part + "epsilon, sample and v_prediction only");
  EXPECT_EQ(refusal(with("DDPM", {{"variance_type", "learned"}})),
            begin + "variance_type is \"learned\"" + part + "fixed_small, fixed_small_log, fixed_large and learned_range only");
  EXPECT_EQ(refusal(with("DDPM", {{"beta_start", "small"}})), begin + "beta_start is \"small\", which is not what diffusers writes there");
  EXPECT_EQ(refusal(with("DDPM", {{"num_train_timesteps", 1000.5}})),
            begin + "num_train_timesteps is 1000.5, which is not what diffusers writes there");
  EXPECT_TRUE(refusal(with("VQDiffusion", json::object()))
                  .starts_with(begin + "no scheduler of brume stands for _class_name 'VQDiffusionScheduler', which is of discrete codes; "
                                       "those that are imported: DDPMScheduler, "));
  EXPECT_TRUE(refusal(with("EDMEulr", json::object())).ends_with("ScoreSdeVeScheduler; did you mean 'EDMEulerScheduler'?"));
  EXPECT_EQ(refusal(with("UnCLIP", {{"beta_schedule", "linear"}})),
            begin + "beta_schedule is \"linear\"" + part + "\"squaredcos_cap_v2\" only");
}

TEST(DiffusersSchedulers, WhatIsRefusedOfContinuousOnes) {
  EXPECT_EQ(refusal(with("EDMEuler", {{"prediction_type", "sample"}})),
            begin + "prediction_type is \"sample\"" + part + "epsilon and v_prediction only");
  EXPECT_EQ(refusal(with("EDMEuler", {{"sigma_schedule", "beta"}})),
            begin + "sigma_schedule is \"beta\"" + part + "karras and exponential only");
  EXPECT_EQ(refusal(with("EDMDPMSolverMultistep", {{"algorithm_type", "dpmsolver"}})),
            begin + "algorithm_type is \"dpmsolver\"" + part + "dpmsolver++ and sde-dpmsolver++ only");
  for (const char* key : {"use_dynamic_shifting", "invert_sigmas"})
    EXPECT_EQ(refusal(with("FlowMatchEulerDiscrete", {{key, true}})), begin + key + " is true" + part + "null only");
  EXPECT_EQ(refusal(with("FlowMatchEulerDiscrete", {{"use_karras_sigmas", true}, {"use_beta_sigmas", true}})),
            begin + "use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas: one at most");
  EXPECT_EQ(refusal(with("FlowMatchLCM", {{"scale_factors", {0.5}}})), begin + "scale_factors is [0.5]" + part + "null only");
  EXPECT_EQ(refusal(with("FlowMatchEulerDiscrete", {{"num_train_timesteps", 1}})),
            begin + "num_train_timesteps is 1" + part + "2 to 1000000 only");
}

// What multistep solvers read of a file besides the keys that every class has.
TEST(DiffusersSchedulers, WhatMultistepSolversRead) {
  for (const char* name : {"DPMSolverMultistep", "DPMSolverSinglestep", "SASolver"}) {
    for (const char* variance : {"learned", "learned_range"})
      EXPECT_TRUE(read(with(name, {{"variance_type", variance}})).learned_range) << name;
    const Value spacing = read(with(name, {{"lambda_min_clipped", -2.5}, {"beta_schedule", "squaredcos_cap_v2"}})).spacing;
    EXPECT_EQ(flow(spacing), fmt::format("{{type: linspace, final: {}, inclusive: false, sigma_max: {}}}",
                                         std::string(name) == "SASolver" ? "minimum" : "zero", std::exp(2.5)));
  }
  EXPECT_FALSE(read(with("DPMSolverSDE", {{"variance_type", "learned_range"}, {"lambda_min_clipped", -2.5}})).learned_range);
  EXPECT_EQ(flow(read(with("SASolver", {{"algorithm_type", "noise_prediction"}})).sampler),
            "{type: sa_solver, predictor_order: 2, corrector_order: 2, lower_order_final: true, prediction: noise, tau_start: 0.2, "
            "tau_end: 0.8}");
  const DiffusersScheduler inverse = read(with("DPMSolverMultistepInverse", {{"solver_order", 3}}));
  EXPECT_EQ(flow(inverse.sampler), flow(read(with("DPMSolverMultistep", {{"solver_order", 3}})).sampler));
  EXPECT_EQ(inverse.losses.size(), 1u);
  EXPECT_EQ(flow(read(with("EulerDiscrete", {{"interpolation_type", "log_linear"}})).spacing),
            "{type: exponential, inclusive: false, final: minimum}");
  EXPECT_EQ(flow(read(with("LCM", {{"set_alpha_to_one", false}})).spacing), "{type: lcm, original_steps: 50, final: zero}");
}

// UnCLIP's is DDPM's on the cosine schedule, at times from end to end.
TEST(DiffusersSchedulers, UnClipIsDdpm) {
  for (const char* variance : {"fixed_small_log", "learned_range"}) {
    const json own{{"_class_name", "UnCLIPScheduler"}, {"variance_type", variance}, {"clip_sample_range", 5}};
    json ddpm = own;
    ddpm.update({{"_class_name", "DDPMScheduler"}, {"beta_schedule", "squaredcos_cap_v2"}, {"timestep_spacing", "linspace"}});
    const DiffusersScheduler a = read(own), b = read(ddpm);
    EXPECT_EQ(flow(a.noise), flow(b.noise));
    EXPECT_EQ(flow(a.sampler), flow(b.sampler));
    EXPECT_EQ(flow(a.spacing), flow(b.spacing));
    EXPECT_EQ(flow(Value::list(a.guidance)), flow(Value::list(b.guidance)));
    EXPECT_EQ(a.learned_range, b.learned_range);
  }
}

// Of diffusers' schedulers without a table: networks that receive an angle or sigma.
TEST(DiffusersSchedulers, AnglesAndScores) {
  const DiffusersScheduler ipndm = read({{"_class_name", "IPNDMScheduler"}}),
                           score = read({{"_class_name", "ScoreSdeVeScheduler"}, {"sigma_max", 50}, {"correct_steps", 2}});
  EXPECT_TRUE(ipndm.losses.empty());
  EXPECT_EQ(flow(ipndm.sampler), "{type: ipndm, zero_first: true}");
  const SchedulerConfig angles = built({{"_class_name", "IPNDMScheduler"}});
  const std::vector<double> sigmas = angles.sigmas();
  for (size_t i = 1; i < 10;
       ++i) {  // set_timesteps of that class: sin^2 of even angles is the noise, and the network receives 2 / pi of its angle
    const double noise = std::pow(std::sin(M_PI / 2 * (1 - double(i) / 10)), 2), angle = std::asin(noise);
    EXPECT_NEAR(std::atan(sigmas[i]), angle, 1e-4);
    EXPECT_NEAR(angles.noise->timestep(sigmas[i]), 2 / M_PI * angle, 1e-4);
  }
  EXPECT_TRUE(score.unit_range);
  EXPECT_EQ(flow(score.noise_embedding), "{input: sigma}");
  EXPECT_EQ(flow(score.sampler), "{type: predictor_corrector, norms: batch, snr: 0.15, corrections: 2}");
  EXPECT_EQ(refusal({{"_class_name", "ScoreSdeVeScheduler"}, {"sampling_eps", 0.001}}),
            "scheduler_config.json: sampling_eps is 0.001; a scheduler of brume supports 1e-05 only");
}

// KDPM2 rounds the times of its steps on Karras' curve, and nothing else.
TEST(DiffusersSchedulers, WhatIsRounded) {
  for (const char* name : {"KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}) {
    EXPECT_EQ(read({{"_class_name", name}, {"use_karras_sigmas", true}}).timestep_rounding, "nearest_step");
    EXPECT_EQ(read({{"_class_name", name}, {"use_exponential_sigmas", true}}).timestep_rounding, "exact");
    EXPECT_EQ(read({{"_class_name", name}}).timestep_rounding, "exact");
  }
}

// How wide the noise is that a run starts from, in the network's frame or, of EDM's, in that of sigma.
TEST(DiffusersSchedulers, WhereContinuousOnesStart) {
  const auto starts = [](const char* name, const json& more = json::object()) {
    json values{{"_class_name", name}};
    values.update(more);
    const SchedulerConfig config = built(values);
    const double sigma = config.sigmas().front();
    return config.noise->start_std(sigma) * config.noise->signal(sigma);
  };
  EXPECT_DOUBLE_EQ(starts("EDMEulerScheduler"), std::sqrt(80.0 * 80 + 1));
  EXPECT_DOUBLE_EQ(starts("EDMDPMSolverMultistepScheduler", {{"sigma_max", 10}}), std::sqrt(101.0));
  EXPECT_DOUBLE_EQ(starts("CMStochasticIterativeScheduler"), 80);
  EXPECT_DOUBLE_EQ(starts("FlowMatchHeunDiscreteScheduler", {{"shift", 3}}), 1);
}

}  // namespace
}  // namespace brume::test
