// Parity with small formulas of training: EDM's preconditioning (shared/refs/edm_samplers.json) and min-SNR weights (training_misc.json).
#include <fmt/format.h>

#include <cmath>

#include "brume/core/noise_embedding.h"
#include "brume/core/objective.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

TEST(EdmPreconditioning, IsReproduced) {
  BRUME_NEED_REF("edm_samplers.json");
  const auto p = make<Parameterization>("{type: edm, sigma_data: 0.5}");
  const auto w = make<Weighting>("{type: edm, sigma_data: 0.5}");
  const auto schedule = make<NoiseSchedule>("cosine");  // neither c_in nor c_noise ask it
  Closeness closeness;
  for (const auto& [text, wanted] : ref_json("edm_samplers.json")["edm_precond_sigma_data_0.5"].items()) {
    const double sigma = std::stod(text);
    const auto near = [&](double got, const char* key) {
      closeness.near(got, wanted[key], 1e-12 * std::abs(wanted[key].get<double>()) + 1e-15, fmt::format("{} at {}", key, text));
    };
    near(p->c_skip(sigma), "c_skip");
    near(p->c_out(sigma), "c_out");
    near(p->c_in(sigma, *schedule), "c_in");
    near(noise_quantity(NoiseQuantity::quarter_log, sigma, *schedule), "c_noise");
    near(w->weight(sigma, Target::image), "loss_weight");
  }
  closeness.print("EDM preconditioning");
}

TEST(MinSnr, IsReproduced) {
  BRUME_NEED_REF("training_misc.json");
  const auto& wanted = ref_json("training_misc.json")["snr_sd_scaled_linear"];
  const auto schedule = make<NoiseSchedule>("scaled_linear");
  const auto w = make<Weighting>("{type: min_snr, gamma: 5}");
  Closeness closeness;
  for (size_t i = 0; i < wanted["t"].size(); ++i) {
    // The reference has alpha_bar in float32, of which 1 - alpha_bar keeps less the larger the SNR is.
    const double snr = wanted["snr"][i], sigma = schedule->sigma(wanted["t"][i]);
    closeness.near(1 / (sigma * sigma), snr, 2e-6 * (1 + snr) * snr, fmt::format("snr[{}]", i));
    const auto near = [&](Target target, const char* key) {
      closeness.near(w->weight(1 / std::sqrt(snr), target), wanted[key][i], 1e-6 * wanted[key][i].get<double>(),
                     fmt::format("{}[{}]", key, i));
    };
    near(Target::noise, "min_snr5_eps");
    near(Target::v, "min_snr5_v");
  }
  closeness.print("min-SNR weights");
}

}  // namespace
}  // namespace brume::test
