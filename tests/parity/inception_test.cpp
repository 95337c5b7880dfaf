// The Inception features of FID against pytorch-fid and torch-fidelity, with weights by a rule.
#include <ATen/TensorOperators.h>

#include "brume/core/features.h"
#include "brume/core/warnings.h"
#include "brume/nn/blocks/inception.h"
#include "brume/weights/safetensors.h"
#include "support/inception.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class Inception : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    write_inception(folder_->file("w.safetensors"), 1);
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::shared_ptr<const Features> extractor(const std::string& more) {
    return make<Features>("{type: inception, path: " + folder_->file("w.safetensors") + "}", Features::Context{}, more);
  }
  static TempFolder* folder_;
};
TempFolder* Inception::folder_ = nullptr;

void expect_near(const Tensor& got, const Tensor& wanted, double tolerance, const std::string& what) {
  ASSERT_EQ(got.sizes(), wanted.sizes()) << what;
  EXPECT_LE((got - wanted).abs().max().item<double>(), tolerance) << what;
}

Tensor images_of(const SafetensorsFile& file) { return file.tensor("images").to(at::kFloat) / 127.5 - 1; }

TEST_F(Inception, HasTheTensorsOfThePublishedFile) {
  BRUME_NEED_REF("../refs3/inception/inception_keys.json");
  const auto& reference = ref_json("../refs3/inception/inception_keys.json");
  std::map<std::string, std::vector<int64_t>> wanted;
  for (const auto& [name, shape] : reference["keys"].items())
    if (!name.ends_with(".num_batches_tracked")) wanted[name] = shape.get<std::vector<int64_t>>();
  std::map<std::string, std::vector<int64_t>> got;
  for (const Weight& w : nn::InceptionV3::layout()) got[w.name] = w.tensor.sizes().vec();
  EXPECT_EQ(got, wanted);
  const SafetensorsFile file(folder_->file("w.safetensors"));
  for (const auto& [name, values] : reference["example_values"].items())
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_EQ(file.tensor(name).flatten()[int64_t(i)].item<double>(), values[i].get<double>()) << name;
}

TEST_F(Inception, IsTorchFidelitys) {
  BRUME_NEED_REF("../refs3/inception/tf_32.json");
  for (const std::string id : {"tf_32", "tf_64"}) {
    const SafetensorsFile file(ref_path("../refs3/inception/" + id + ".safetensors").string());
    const auto& tolerance = ref_json("../refs3/inception/" + id + ".json")["tolerance"];
    const auto y = extractor("resize: torch_fidelity")->extract(images_of(file));
    expect_near(y.features, file.tensor("pool3"), tolerance["pool3"], id + " pool3");
    expect_near(y.logits, file.tensor("logits_unbiased"), tolerance["logits_unbiased"], id + " logits");
    expect_near(y.spatial, file.tensor("spatial"), tolerance["spatial"], id + " spatial");
    for (const std::string dims : {"64", "192", "768"})
      expect_near(extractor("resize: torch_fidelity, dims: " + dims)->extract(images_of(file)).features, file.tensor("features_" + dims),
                  tolerance["features_" + dims], id + " " + dims);
  }
}

TEST_F(Inception, IsPytorchFids) {
  BRUME_NEED_REF("../refs3/inception/pf_32.json");
  const SafetensorsFile file(ref_path("../refs3/inception/pf_32.safetensors").string());
  for (const auto& [name, dims] :
       {std::pair{"block3_2048", "2048"}, std::pair{"block2_768", "768"}, std::pair{"block1_192", "192"}, std::pair{"block0_64", "64"}}) {
    Tensor wanted = file.tensor(name);
    if (wanted.dim() == 4) wanted = wanted.flatten(2).mean(2);
    const Tensor got = extractor(std::string("dims: ") + dims)->extract(images_of(file)).features;
    expect_near(got, wanted, 2e-5 * wanted.abs().max().item<double>(), name);
  }
}

TEST_F(Inception, TheResizingIsNamed) {
  EXPECT_EQ(extractor("")->preprocessing(), "rounded to 8 bits, resized to 299x299, bilinear, as pytorch-fid does");
  EXPECT_EQ(extractor("resize: torch_fidelity")->preprocessing(),
            "rounded to 8 bits, resized to 299x299, bilinear, as torch-fidelity does");
}

TEST_F(Inception, UnknownWeightsAreSaidAndOthersRefused) {
  std::string said;
  const WarningScope scope([&](const std::string& text) { said = text; });
  const std::string hash = extractor("")->hash();
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_NE(said.find("its SHA-256 begins with " + hash.substr(0, 8) + ", not with 6726825d"), std::string::npos) << said;
  NamedTensors tensors = SafetensorsFile(folder_->file("w.safetensors")).tensors();
  tensors.pop_back();
  tensors.push_back({"AuxLogits.fc.weight", tensors[0].tensor});
  write_safetensors(folder_->file("other.safetensors"), tensors);
  const std::string error =
      error_of([&] { make<Features>("{type: inception, path: " + folder_->file("other.safetensors") + "}", Features::Context{}); });
  EXPECT_NE(error.find("lacks the tensor"), std::string::npos) << error;
  EXPECT_NE(error.find("has a tensor 'AuxLogits.fc.weight' that the model does not"), std::string::npos) << error;
  EXPECT_EQ(error_of([&] { make<Features>("inception", Features::Context{}); }),
            "test.yaml:1:1: features: path: the file of the weights is missing (pt_inception-2015-12-05-6726825d.pth)");
}

}  // namespace
}  // namespace brume::test
