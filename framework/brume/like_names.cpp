// The names of samplers and spacings in A1111's web UI, ComfyUI, stable-diffusion.cpp and diffusers, and what they are here.
#include "brume/like.h"

namespace brume {
namespace {

constexpr const char* brownian = "its Brownian noise is drawn by torchsde, which brume does not have";
constexpr const char* on_timesteps = "schedule";  // where x keeps its variance
constexpr const char* plus_plus = "the guidance is cfg_plus_plus there (sample.guidance: [{type: cfg_plus_plus}])";

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
    {"DPM fast", "{type: dpm_fast, last_call: false}"},
    {"DPM adaptive", "{type: dpm_adaptive, order: 3, eta: 0, shared_steps: true, last_call: false}"},
    {"LCM", "consistency"},
    {"DDIM", "{type: ddim, eta: 0}", "Timesteps", false, "", on_timesteps},
    {"PLMS", "plms", "Timesteps", false, "", on_timesteps},
    {"UniPC", "{type: unipc, order: 3, solver: bh1}", "Uniform", true},
};

const std::vector<LikeName> a1111_spacings{
    {"Uniform", "normal", "", true},
    {"Automatic", "normal", "", true},
    {"Karras", "karras", "", true},
    {"Exponential", "exponential", "", true},
    {"Polyexponential", "{type: exponential, rho: 1}", "", true},
    {"SGM Uniform", "sgm_uniform"},
    {"KL Optimal", "kl_optimal", "", false, "its steps are divided by the number of steps, here by one less"},
    {"Align Your Steps", "ays"},
    {"Simple", "simple"},
    {"Normal", "normal", "", true},
    {"DDIM", "{type: ddim_uniform, fill: true}"},
    {"Beta", "beta"},
    {"Timesteps", "{type: leading, offset: 1, final: minimum}"},
};

const LikeName in_frame(LikeName name) {
  name.in_flow = LikeFlow::frame;
  return name;
}
const LikeName in_log_snr(LikeName name) {
  name.in_flow = LikeFlow::log_snr;
  return name;
}
const LikeName otherwise(LikeName name, const char* flow) {
  name.flow = flow;
  return name;
}

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
    {"euler_a", "euler_ancestral"},
    {"heun", "heun"},
    {"dpm2", "dpm_2"},
    {"dpm++2s_a", "dpmpp_2s_ancestral"},
    {"dpm++2m", "dpmpp_2m"},
    {"dpm++2mv2", "dpmpp_2m", "", false, "dpm++2mv2 weighs the last two estimates by other step lengths; dpm++2m is the nearest"},
    {"ipndm", "{type: ipndm, euler_at_final: true}"},
    {"ipndm_v", "ipndm_v"},
    {"lcm", "consistency"},
    {"ddim_trailing", "{type: ddim, eta: 0}", "trailing", false, "", on_timesteps},
    {"tcd", "tcd", "trailing"},
    {"res_multistep", "res_multistep"},
    {"res_2s", "res_2s"},
    {"er_sde", "er_sde"},
};

const std::vector<LikeName> sdcpp_spacings{
    {"discrete", "normal", "", true},
    {"default", "normal", "", true},
    {"karras", "karras", "", true},
    {"exponential", "exponential", "", true},
    {"ays", "ays"},
    {"gits", "gits"},
    {"simple", "simple"},
    {"sgm_uniform", "sgm_uniform"},
    {"smoothstep", "smoothstep"},
    {"bong_tangent", "bong_tangent"},
    {"lcm", "lcm"},
    {"kl_optimal", "kl_optimal"},
    {"trailing", "trailing"},
};

}  // namespace

const std::vector<LikeProgram>& like_programs() {
  static const std::vector<LikeProgram> all{
      {"a1111", "{weights: true, long: chunks, emphasis: chunk_mean, comma_tokens: 20, changes: true}",
       "{noise_order: per_seed, noise_generator: cuda}", "{start: sigma, timestep_rounding: exact}", a1111_samplers, a1111_spacings},
      {"comfyui", "{weights: true, long: chunks, emphasis: empty, absolute: true}", "{noise_order: batch, noise_generator: cpu}",
       "{start: schedule_at_max, timestep_rounding: nearest}", comfy_samplers, comfy_spacings},
      {"sdcpp", "{weights: true, long: chunks, emphasis: mean}", "{noise_order: per_seed, noise_generator: cuda}",
       "{start: sigma, timestep_rounding: exact}", sdcpp_samplers, sdcpp_spacings},
      {"diffusers", "{weights: false, long: cut}", "{noise_order: batch, noise_generator: cpu}", "{}", {}, {}},
  };
  return all;
}

}  // namespace brume
