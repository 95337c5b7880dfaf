// The names of samplers and spacings in A1111's web UI, ComfyUI, stable-diffusion.cpp and diffusers, and what they are here.
#include "brume/like.h"

namespace brume {
namespace {

constexpr const char* brownian = "its Brownian noise is drawn by torchsde, which brume does not have";
constexpr const char* plus_plus = "the guidance is cfg_plus_plus there (sample.guidance: [{type: cfg_plus_plus}])";

LikeName on_its_own(LikeName name) {
  name.own_spacing = true;
  return name;
}
LikeName in_frame(LikeName name) {
  name.in_flow = LikeFlow::frame;
  return name;
}
LikeName in_log_snr(LikeName name) {
  name.in_flow = LikeFlow::log_snr;
  return name;
}
LikeName otherwise(LikeName name, const char* flow) {
  name.flow = flow;
  return name;
}
/// Samplers on training times of CompVis: img2img there cuts the list of times, and adds the noise of the first that is left out.
LikeName on_times(LikeName name) {
  name.own_spacing = true;
  name.start = "schedule";  // x keeps its variance
  name.image_loss =
      "with an image it takes fewer steps there, and the image gets the noise of one level more than that of the first of them";
  return name;
}
LikeName of_sdxl(LikeName name, const char* sdxl) {
  name.sdxl = sdxl;
  return name;
}

const std::vector<LikeName> a1111_samplers{
    {"Euler a", "euler_ancestral"},
    {"Euler", "euler"},
    {"LMS", "lms"},
    {"Heun", "heun"},
    {"DPM2", "dpm_2", "Karras", true},
    {"DPM2 a", "dpm_2_ancestral", "Karras", true},
    {"DPM++ 2S a", "dpmpp_2s_ancestral", "Karras"},
    {"DPM++ 2M", "dpmpp_2m", "Karras"},
    {"DPM++ SDE", "dpmpp_sde", "Karras", false, brownian},
    {"DPM++ 2M SDE", "dpmpp_2m_sde", "Exponential", false, brownian},
    {"DPM++ 2M SDE Heun", "{type: dpmpp_2m_sde, solver: heun}", "Exponential", false, brownian},
    {"DPM++ 3M SDE", "dpmpp_3m_sde", "Exponential", true, brownian},
    on_its_own({"DPM fast", "{type: dpm_fast, last_call: false}"}),
    on_its_own({"DPM adaptive", "{type: dpm_adaptive, order: 3, eta: 0, shared_steps: true, last_call: false}"}),
    {"Restart", "{type: restart, intervals: [{levels: 10, times: 1, t_min: 0.1, t_max: 2}]}", "Karras", false,
     "the steps of its ways back are part of its steps, here they are added; there are none below 20 steps, and two from 36 on"},
    {"LCM", "consistency", "", false, "its lowest level is training time 19, and its other levels are those of 50 times"},
    on_times({"DDIM", "{type: ddim, eta: 0}", "Timesteps"}),
    on_times({"PLMS", "plms", "Timesteps"}),
    on_times({"UniPC", "{type: unipc, order: 3, solver: bh1}", "Time uniform", false,
              "it takes as many steps as training times at a stride of 1000 div steps, 31 for 30"}),
    {"DDPM", "ddpm"},
    {"HeunPP2", "heunpp2"},
    {"IPNDM", "ipndm"},
    {"IPNDM_V", "ipndm_v", "", false, "its last step is not one of Euler's"},
    {"DEIS", "{type: deis, order: 3, variable: vp_time, lower_order_final: false}"},
};

const std::vector<LikeName> a1111_spacings{
    {"Uniform", "normal", "", true},
    {"Automatic", ""},
    {"Karras", "karras", "", true},
    {"Exponential", "exponential", "", true},
    {"Polyexponential", "{type: exponential, rho: 1}", "", true},
    {"SGM Uniform", "sgm_uniform"},
    {"KL Optimal", "{type: kl_optimal, inclusive: false, final: minimum}"},
    of_sdxl({"Align Your Steps", "{type: ays, inclusive: true}"}, "{type: ays, inclusive: true, model: sdxl}"),
    of_sdxl({"Align Your Steps 11", "{type: ays, inclusive: true}"}, "{type: ays, inclusive: true, model: sdxl}"),
    of_sdxl({"Align Your Steps GITS", "{type: gits, list: sd15, inclusive: true}"}, "{type: gits, list: sdxl, inclusive: true}"),
    {"Simple", "simple"},
    {"Normal", "normal", "", true},
    {"DDIM", "{type: ddim_uniform, fill: true}"},
    {"Beta", "beta"},
    {"Turbo", "{type: trailing, halves: even}"},
    {"Timesteps", "{type: trimmed, spacing: {type: leading, offset: 1, fill: true}, inclusive: true, end: lowest}"},
    {"Time uniform", "{type: normal, inclusive: false, final: minimum}"},
};

const std::vector<LikeName> comfy_samplers{
    {"euler", "euler"},
    {"euler_cfg_pp", "euler", "", false, plus_plus},
    otherwise({"euler_ancestral", "euler_ancestral"}, "{type: euler_ancestral, split: flow}"),
    {"euler_ancestral_cfg_pp", "euler_ancestral", "", false, plus_plus},
    in_frame({"heun", "heun"}),
    in_frame({"heunpp2", "heunpp2"}),
    in_log_snr({"exp_heun_2_x0", "exp_heun_2_x0"}),
    in_log_snr({"exp_heun_2_x0_sde", "exp_heun_2_x0_sde"}),
    in_frame({"dpm_2", "dpm_2", "", true}),
    otherwise({"dpm_2_ancestral", "dpm_2_ancestral", "", true}, "{type: dpm_2_ancestral, split: flow}"),
    in_frame({"lms", "{type: lms, euler_at_final: true}"}),
    in_frame({"dpm_fast", "{type: dpm_fast, last_call: false}"}),
    in_frame({"dpm_adaptive", "{type: dpm_adaptive, order: 3, eta: 0, shared_steps: true, last_call: false}"}),
    otherwise({"dpmpp_2s_ancestral", "dpmpp_2s_ancestral"}, "{type: dpmpp_2s_ancestral, split: flow}"),
    {"dpmpp_2s_ancestral_cfg_pp", "dpmpp_2s_ancestral", "", false, plus_plus},
    in_log_snr({"dpmpp_sde", "dpmpp_sde", "", false, brownian}),
    in_log_snr({"dpmpp_sde_gpu", "dpmpp_sde", "", false, brownian}),
    in_frame({"dpmpp_2m", "dpmpp_2m"}),
    in_frame({"dpmpp_2m_cfg_pp", "dpmpp_2m", "", false, plus_plus}),
    in_log_snr({"dpmpp_2m_sde", "dpmpp_2m_sde", "", false, brownian}),
    in_log_snr({"dpmpp_2m_sde_gpu", "dpmpp_2m_sde", "", false, brownian}),
    in_log_snr({"dpmpp_2m_sde_heun", "{type: dpmpp_2m_sde, solver: heun}", "", false, brownian}),
    in_log_snr({"dpmpp_2m_sde_heun_gpu", "{type: dpmpp_2m_sde, solver: heun}", "", false, brownian}),
    in_log_snr({"dpmpp_3m_sde", "dpmpp_3m_sde", "", false, brownian}),
    in_log_snr({"dpmpp_3m_sde_gpu", "dpmpp_3m_sde", "", false, brownian}),
    in_frame({"ddpm", "ddpm"}),
    {"lcm", "consistency"},
    in_frame({"ipndm", "{type: ipndm, euler_at_final: true}"}),
    in_frame({"ipndm_v", "ipndm_v"}),
    in_frame({"deis", "{type: deis, order: 3, variable: vp_time, lower_order_final: false}"}),
    in_frame({"res_multistep", "res_multistep"}),
    in_frame({"res_multistep_cfg_pp", "res_multistep", "", false, plus_plus}),
    in_frame({"res_multistep_ancestral", "res_multistep_ancestral"}),
    in_frame({"res_multistep_ancestral_cfg_pp", "res_multistep_ancestral", "", false, plus_plus}),
    in_frame({"gradient_estimation", "gradient_estimation"}),
    in_frame({"gradient_estimation_cfg_pp", "gradient_estimation", "", false, plus_plus}),
    in_log_snr({"er_sde", "er_sde"}),
    in_log_snr({"seeds_2", "seeds_2"}),
    in_log_snr({"seeds_3", "seeds_3"}),
    in_log_snr(
        {"sa_solver", "{type: sa_solver, before_zero: true, predictor_order: 3, corrector_order: 4, simple_order_2: false, tau_at: end}"}),
    in_log_snr({"sa_solver_pece",
                "{type: sa_solver_pece, before_zero: true, predictor_order: 3, corrector_order: 4, simple_order_2: false, tau_at: end}"}),
    {"ddim", "euler"},
    in_frame({"uni_pc", "{type: unipc, order: 3, solver: bh1}", "", true, "it ends at sigma 0.001, not 0"}),
    in_frame({"uni_pc_bh2", "{type: unipc, order: 3, solver: bh2}", "", true, "it ends at sigma 0.001, not 0"}),
};

const std::vector<LikeName> comfy_spacings{
    {"normal", "normal", "", true},
    {"simple", "simple"},
    {"sgm_uniform", "sgm_uniform"},
    otherwise({"karras", "karras", "", true}, "{type: flow, curve: karras}"),
    otherwise({"exponential", "exponential", "", true}, "{type: flow, curve: exponential}"),
    {"ddim_uniform", "{type: ddim_uniform, fill: true}"},
    {"beta", "{type: beta_time, merge: true}"},
    {"linear_quadratic", "linear_quadratic"},
    {"kl_optimal", "kl_optimal"},
    {"bong_tangent", "bong_tangent"},
    {"beta57", "beta57"},
    {"align_your_steps", "{type: ays, digits: levels}"},
    {"gits", "gits"},
};

const std::vector<LikeName> sdcpp_samplers{
    {"euler", "euler"},
    otherwise({"euler_a", "euler_ancestral"}, "{type: euler_ancestral, split: flow}"),
    in_frame({"heun", "heun"}),
    in_frame({"dpm2", "dpm_2"}),
    otherwise({"dpm++2s_a", "dpmpp_2s_ancestral"}, "{type: dpmpp_2s_ancestral, split: flow}"),
    in_frame({"dpm++2m", "dpmpp_2m"}),
    in_frame({"dpm++2mv2", "dpmpp_2m", "", false, "dpm++2mv2 weighs the last two estimates by other step lengths; dpm++2m is the nearest"}),
    in_frame({"ipndm", "ipndm"}),
    in_frame({"ipndm_v", "ipndm", "", false, "its second step has a weight by the lengths of the steps, here that of equal ones"}),
    {"lcm", "consistency", "lcm"},
    {"ddim_trailing", "euler", "simple"},
    {"tcd", "{type: tcd, eta: 0}", "lcm", false, "it ends at the lowest training time, here at 0"},
    in_frame({"res_multistep", "res_multistep"}),
    in_frame({"res_2s", "res_2s"}),
    in_log_snr({"er_sde", "er_sde"}),
    {"euler_cfg_pp", "euler", "", false, plus_plus},
    {"euler_a_cfg_pp", "euler_ancestral", "", false, plus_plus},
    in_frame({"euler_ge", "gradient_estimation"}),
    in_frame({"dpm++2m_sde", "dpmpp_2m_sde"}),
    in_frame({"dpm++2m_sde_bt", "dpmpp_2m_sde", "", false, "its Brownian noise is drawn otherwise"}),
    in_frame({"lms", "lms", "", false, "it takes the slopes of one step earlier from the third on"}),
};

const std::vector<LikeName> sdcpp_spacings{
    otherwise({"discrete", "normal", "", true}, "{type: linspace, round: false}"),
    otherwise({"default", "normal", "", true}, "{type: linspace, round: false}"),
    otherwise({"normal", "normal", "", true}, "{type: linspace, round: false}"),
    otherwise({"karras", "karras", "", true}, "{type: flow, curve: karras}"),
    otherwise({"exponential", "exponential", "", true}, "{type: flow, curve: exponential}"),
    of_sdxl({"ays", "{type: ays, digits: levels}"}, "{type: ays, digits: levels, model: sdxl}"),
    {"gits", "gits"},
    {"simple", "{type: simple, precision: single}"},
    otherwise({"sgm_uniform", "sgm_uniform"}, "{type: linspace, round: false, inclusive: false}"),
    {"smoothstep", "smoothstep"},
    otherwise({"bong_tangent", "bong_tangent"}, "{type: bong_tangent, end: lowest}"),
    {"lcm", "lcm"},
    {"kl_optimal", "kl_optimal"},
    {"beta", "{type: beta_time, merge: true}"},
    {"trailing", "trailing"},
};

}  // namespace

const std::vector<LikeProgram>& like_programs() {
  static const std::vector<LikeProgram> all{
      {"a1111", "{weights: true, long: chunks, emphasis: chunk_mean, comma_tokens: 20, changes: true}",
       "{noise_order: per_seed, noise_generator: cuda}", "{start: sigma, timestep_rounding: exact}", a1111_samplers, a1111_spacings,
       LikeStrength::one_more,
       "a mask is blurred there, by 4 pixels if nothing else is asked for, made as small as the latents by bicubic interpolation, and "
       "rounded; here each latent reads one of its pixels"},
      {"comfyui", "{weights: true, long: chunks, emphasis: empty, absolute: true}", "{noise_order: batch, noise_generator: cpu}",
       "{start: schedule_at_max, timestep_rounding: nearest}", comfy_samplers, comfy_spacings, LikeStrength::all,
       "a mask is made as small as the latents by bilinear interpolation there, and what is known keeps its noise in every step; here each "
       "latent reads one pixel of the mask, and a sampler that adds noise does so everywhere",
       "the noise of steps is drawn by a second generator there, of seed + 1 on the processor and CUDA's on a GPU; here it follows that of "
       "the start",
       true},
      {"sdcpp", "{weights: true, long: chunks, emphasis: chunk_mean}", "{noise_order: per_seed, noise_generator: cuda}",
       "{start: sigma, timestep_rounding: exact}", sdcpp_samplers, sdcpp_spacings, LikeStrength::one_more,
       "a latent is generated there if any of its pixels is white in the mask, here if the one that it reads is"},
      {"diffusers", "{weights: false, long: cut}", "{noise_order: batch, noise_generator: cpu}", "{}", {}, {}},
  };
  return all;
}

}  // namespace brume
