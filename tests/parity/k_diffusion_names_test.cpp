// Samplers that other programs take from k-diffusion, by those programs' names: the ends of k-diffusion's own runs (commit 4601bf0, in
// float64) on the exact denoisers of a Gaussian and of a mixture, its k-th draw the k-th wave.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "brume/config/yaml.h"
#include "brume/core/sampler.h"
#include "brume/like.h"
#include "support/exact_waves.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// From `first` to `last` > 0 in n steps, evenly in sigma^(1/7) or in log sigma, and a last one to 0 if asked.
std::vector<double> levels(double first, double last, int64_t n, bool karras, bool to_zero) {
  std::vector<double> all;
  const double p = karras ? 1.0 / 7 : 1;
  const auto at = [&](double a, double b, double u) {
    return karras ? std::pow(std::pow(a, p) + (std::pow(b, p) - std::pow(a, p)) * u, 7) : a * std::pow(b / a, u);
  };
  for (int64_t i = 0; i <= n; ++i) all.push_back(at(first, last, double(i) / double(n)));
  if (to_zero) all.push_back(0);
  return all;
}

const std::vector<double> karras10 = levels(15, 0.03, 9, true, true), exp12 = levels(10, 0.05, 11, false, true),
                          fast10 = levels(15, 0.03, 10, false, false), fast9 = levels(15, 0.03, 9, false, false), ends{15, 0.03};

struct Case {
  std::string sampler;  ///< YAML, or PROGRAM:NAME
  bool mixture;
  const std::vector<double>& sigmas;
  size_t calls;
  double sum, sum_abs;
  std::array<double, 4> first;
};

const std::vector<Case> cases{
    {"a1111:DPM2 a",
     false,
     karras10,
     19,
     24.646002129991935,
     25.153573635911084,
     {0.5154143221765559, 0.5127217854869107, 0.4150032033930346, 0.2575060558428472}},
    {"{type: dpm_2_ancestral, eta: 0.5, s_noise: 0.9}",
     false,
     exp12,
     23,
     24.118298624490752,
     37.73802150147826,
     {0.7792580687677862, 0.5956918896686321, 0.2845694440984076, -0.04188616844018422}},
    {"a1111:DPM++ 2S a",
     false,
     karras10,
     19,
     24.408446971520583,
     24.408446971520583,
     {0.4689979823764375, 0.4231850286310854, 0.314739758184533, 0.1827788099974174}},
    {"{type: dpmpp_2s_ancestral, eta: 0.6, s_noise: 1.1}",
     false,
     exp12,
     23,
     24.103787963563782,
     33.13700076546633,
     {0.6895199728232285, 0.5210718825601796, 0.2526861894771134, -0.01882932296707842}},
    {"a1111:DPM++ 3M SDE",
     false,
     karras10,
     10,
     23.74473725021517,
     47.237553108231324,
     {0.6606003996886443, 0.235190358302651, -0.1849778709539298, -0.4483479421115406}},
    {"{type: dpmpp_3m_sde, eta: 0.5, s_noise: 0.9}",
     false,
     exp12,
     12,
     24.064451260908278,
     24.064451260908278,
     {0.4692070199480876, 0.3837733223078925, 0.2490757873971423, 0.1137003500408}},
    {"{type: dpmpp_sde, eta: 0.7}",
     false,
     exp12,
     23,
     23.880077566530616,
     23.880077566530616,
     {0.4601172112983713, 0.3582234794117656, 0.2158659660573407, 0.08439359065121509}},
    {"{type: dpmpp_2m_sde, eta: 0.8, solver: heun}",
     false,
     exp12,
     12,
     24.050025629130694,
     24.050025629130694,
     {0.3888682159839827, 0.3194076850674717, 0.2244941683166209, 0.1383633474899743}},
    {"{type: euler_ancestral, eta: 0.4}",
     false,
     exp12,
     12,
     24.113491383668606,
     37.246120119095295,
     {0.7720594554369766, 0.5946848486146145, 0.2900985821598651, -0.03183387014295352}},
    {"a1111:DPM2 a",
     true,
     karras10,
     19,
     -0.40792533154853605,
     37.37437082908799,
     {0.3736864052365138, 0.6857838638532718, 0.5262696854058259, -0.03042204894357192}},
    {"{type: dpm_2_ancestral, eta: 0.5, s_noise: 0.9}",
     true,
     exp12,
     23,
     -1.3095935497763973,
     34.670640902356354,
     {-0.1519607534391229, -0.1224079248511091, -0.02502252427785696, 0.07628482102396629}},
    {"a1111:DPM++ 2S a",
     true,
     karras10,
     19,
     -0.651087647763334,
     35.80662010688273,
     {0.27376272778656, 0.5750350501598316, 0.4508798127964559, -0.03819372684566055}},
    {"{type: dpmpp_2s_ancestral, eta: 0.6, s_noise: 1.1}",
     true,
     exp12,
     23,
     -1.2726937807582246,
     30.797558366424923,
     {-0.1168575150002705, -0.03729738554057049, 0.04134665660690211, 0.06887698410456017}},
    {"a1111:DPM++ 3M SDE",
     true,
     karras10,
     10,
     -1.6991063006618332,
     37.10036227209068,
     {-0.5022264971688447, -0.6773673344664628, -0.5586631598481846, -0.2229359777881833}},
    {"{type: dpmpp_3m_sde, eta: 0.5, s_noise: 0.9}",
     true,
     exp12,
     12,
     -0.6013335468565911,
     33.24154307837233,
     {0.2219811245601005, 0.560535554825626, 0.4902167286007837, 0.05012273578813082}},
    {"{type: dpmpp_sde, eta: 0.7}",
     true,
     exp12,
     23,
     -1.7022421383218649,
     30.810310877535244,
     {-0.3556509930036377, -0.2810419756690349, -0.07675150128403531, 0.1536527309592794}},
    {"{type: dpmpp_2m_sde, eta: 0.8, solver: heun}",
     true,
     exp12,
     12,
     -0.7072035964433824,
     33.801030662273085,
     {0.1860971946629595, 0.5472360835871822, 0.491972491493462, 0.05618152088080496}},
    {"{type: euler_ancestral, eta: 0.4}",
     true,
     exp12,
     12,
     -1.2638474313123027,
     34.36033847232473,
     {-0.138372519665055, -0.1028309712472675, -0.01016849451027804, 0.07810488294659258}},
    {"a1111:DPM fast",
     false,
     fast10,
     10,
     24.577511007361935,
     45.84751438197824,
     {0.9368982276719752, 0.7715747743372449, 0.4151474351240091, -0.003819035725394576}},
    {"{type: dpm_fast, eta: 0.7}",
     false,
     fast9,
     9,
     24.33969340554766,
     67.5081400531354,
     {1.155655031088027, 0.6582798772844566, 0.01150976492239767, -0.5513627624725537}},
    {"a1111:DPM adaptive",
     false,
     ends,
     27,
     24.600098187378634,
     47.41056702861742,
     {0.9637636791071738, 0.7919742181053152, 0.4216065584980911, -0.01374621664231155}},
    {"{type: dpm_adaptive, order: 2, rtol: 0.01, shared_steps: true}",
     false,
     ends,
     34,
     24.593819028089726,
     46.972746770986404,
     {0.9562951749023497, 0.7863032420591697, 0.4198109441494856, -0.01098649408194913}},
    {"{type: dpm_adaptive, order: 3, eta: 0.6, shared_steps: true}",
     false,
     ends,
     30,
     24.549520534502385,
     31.645745205772236,
     {0.6618286067445138, 0.6519017832013516, 0.4949212642528915, 0.2475105454031347}},
    {"a1111:DPM fast",
     true,
     fast10,
     10,
     -0.9821562285198979,
     38.0853333560994,
     {-0.06039791428390136, -0.03233075294372632, 0.0392135654990353, 0.09818116323541592}},
    {"{type: dpm_fast, eta: 0.7}",
     true,
     fast9,
     9,
     -1.4570195546537033,
     46.73328609131707,
     {0.02326970121970871, -0.1563721434687793, -0.2552817446483978, -0.2667934714490707}},
    {"a1111:DPM adaptive",
     true,
     ends,
     30,
     -0.9588364343349589,
     39.10041729664187,
     {-0.04336796967978968, -0.02239494311988302, 0.04031448651255269, 0.0915757665657581}},
    {"{type: dpm_adaptive, order: 2, rtol: 0.01, shared_steps: true}",
     true,
     ends,
     36,
     -0.9465395260082505,
     39.13589314171359,
     {-0.03185624388743097, -0.008025237262328669, 0.04888915913953262, 0.08844059420277438}},
    {"{type: dpm_adaptive, order: 3, eta: 0.6, shared_steps: true}",
     true,
     ends,
     33,
     -0.9206795637704808,
     35.97933836953359,
     {-0.122921230823808, -0.004763445778470134, 0.1418449330549649, 0.2345331747030719}},
};

class Watched final : public Denoiser {
 public:
  explicit Watched(bool mixture) : mixture_(mixture) {}
  mutable size_t calls = 0;
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    ++calls;
    return {.x0 = mixture_ ? exact_mixture(x, sigma) : exact_gauss(x, sigma), .x0_uncond = {}, .variance = {}};
  }

 private:
  bool mixture_;
};

class KDiffusionName : public testing::TestWithParam<size_t> {};

TEST_P(KDiffusionName, GivesItsNumbers) {
  const Case& c = cases[GetParam()];
  SCOPED_TRACE(c.sampler);
  const bool yaml = c.sampler.front() == '{';
  const auto sampler = make<Sampler>(yaml ? c.sampler : dump_yaml(*likeness(c.sampler, "--like", true).sample.find("sampler")));
  const auto schedule = make<NoiseSchedule>("edm");
  const Condition none;
  int64_t draws = 0;
  CountedWaves noise([&] { return draws++; });
  brume::Run run{none, noise, {}, schedule.get()};
  const Watched denoiser(c.mixture);
  const Tensor end = sampler->sample(denoiser, wave(0) * c.sigmas.front(), c.sigmas, run), flat = end.flatten();
  const bool own_steps = c.sigmas.back() > 0;  // whose last step adds noise of the square root of a rounding error there
  const double tolerance = own_steps ? 1e-8 : 1e-9;
  const size_t saved = c.calls - denoiser.calls;  // a step that was refused is tried again without another call at its beginning
  EXPECT_LE(saved, &c.sigmas == &ends ? 3u : 0u) << denoiser.calls;
  EXPECT_NEAR(end.sum().item<double>(), c.sum, tolerance * c.sum_abs);
  EXPECT_NEAR(end.abs().sum().item<double>(), c.sum_abs, tolerance * c.sum_abs);
  for (int64_t i = 0; i < 4; ++i) EXPECT_NEAR(flat[i].item<double>(), c.first[size_t(i)], tolerance) << i;
}

INSTANTIATE_TEST_SUITE_P(Cases, KDiffusionName, testing::Range(size_t(0), cases.size()));

}  // namespace
}  // namespace brume::test
