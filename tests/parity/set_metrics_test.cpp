// Metrics of sets from images to figures, against pytorch-fid, torch-fidelity and ADM's evaluator, with weights by a rule.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <stdexcept>

#include "brume/core/features.h"
#include "brume/train/feature_summary.h"
#include "brume/weights/npz.h"
#include "support/inception.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

constexpr const char* numbers = "../refs3/end_to_end/end_to_end.json";

class EndToEnd : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_inception(folder_->file("w.safetensors"), 1);
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::shared_ptr<const Features> extractor(const std::string& more) {
    return make<Features>("{type: inception, path: " + folder_->file("w.safetensors") + "}", Features::Context{}, more);
  }
  /// The first `count` images of a file; 0 = all.
  static FeatureSummary summary(const Features& extractor, const std::string& name, int64_t count, const SetMetric::Needs& needs,
                                int64_t batch) {
    const Tensor all = NpzFile(ref_path("../refs3/end_to_end/" + name + ".npz").string()).array("arr_0").clone();
    const int64_t n = count > 0 ? count : all.size(0);
    FeatureSummarizer summarizer(extractor, needs, name);
    for (int64_t i = 0; i < n; i += batch)
      summarizer.add(all.narrow(0, i, std::min(batch, n - i)).permute({0, 3, 1, 2}).to(at::kFloat).contiguous() / 127.5 - 1);
    return summarizer.summary();
  }
  static double figure(const std::string& yaml, const std::string& name, const FeatureSummary& set, const FeatureSummary& real) {
    for (const SetMetric::Figure& f : make<SetMetric>(yaml)->score(set, real))
      if (f.name == name) return f.value;
    throw std::logic_error("no figure " + name);
  }
  static TempFolder* folder_;
};
TempFolder* EndToEnd::folder_ = nullptr;

void near(double got, double wanted, double relative) { EXPECT_NEAR(got, wanted, relative * wanted); }

TEST_F(EndToEnd, PytorchFid) {
  BRUME_NEED_REF(numbers);
  const auto features = extractor("dims: 64");
  const SetMetric::Needs needs{.statistics = true};
  const double fid = figure("fid", "fid", summary(*features, "fake", 0, needs, 32), summary(*features, "real", 0, needs, 32));
  near(fid, ref_json(numbers)["pytorch_fid"]["dims_64"], 1e-3);
  EXPECT_EQ(fid, figure("fid", "fid", summary(*features, "fake", 0, needs, 7), summary(*features, "real", 0, needs, 1)))
      << "the same bits from any batch";
}

TEST_F(EndToEnd, TorchFidelityAndAdm) {
  BRUME_NEED_REF(numbers);
  const auto features = extractor("resize: torch_fidelity");
  const SetMetric::Needs needs{.statistics = true, .spatial = true, .rows = true, .logits = true};
  const int64_t n = ref_json(numbers)["n_first_for_torch_fidelity"];
  const FeatureSummary fake = summary(*features, "fake", n, needs, 8), real = summary(*features, "real", n, needs, 8);
  const auto& fidelity = ref_json(numbers)["torch_fidelity_2048"];
  near(figure("fid", "fid", fake, real), fidelity["frechet_inception_distance"], 1e-4);
  near(figure("{type: inception_score, splits: 3}", "inception_score", fake, real), fidelity["inception_score_mean"], 1e-4);
  near(figure("{type: inception_score, splits: 3}", "inception_score_std", fake, real), fidelity["inception_score_std"], 1e-4);
  near(figure("kid", "kid", fake, real), fidelity["kernel_inception_distance_mean"], 1e-4);
  EXPECT_NEAR(figure("precision_recall", "precision", fake, real), fidelity["precision"].get<double>(), 1.001 / double(n));
  EXPECT_NEAR(figure("precision_recall", "recall", fake, real), fidelity["recall"].get<double>(), 1.001 / double(n));
  const auto& adm = ref_json(numbers)["adm_convention"];
  near(figure("fid", "fid", fake, real), adm["FID_exact"], 1e-4);
  near(figure("sfid", "sfid", fake, real), adm["sFID_exact"], 1e-4);
  near(figure("{type: inception_score, split_size: 5000}", "inception_score", fake, real), adm["IS_adm_all_in_one_split"], 1e-4);
}

}  // namespace
}  // namespace brume::test
