// brume sample of bare networks of other programs, as they lie there, and of the brume files that they become.
#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "brume/interop/import/import.h"
#include "brume/weights/safetensors.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class ForeignNetwork : public testing::TestWithParam<const char*> {};

TEST_P(ForeignNetwork, SamplesAsTheBrumeFileItBecomes) {
  BRUME_NEED_REF(GetParam());
  const TempFolder folder;
  const std::string foreign = ref_path(GetParam()).string(), own = folder.file("model.safetensors");
  const Contents contents = contents_of(import_model(foreign));
  write_safetensors(own, contents.tensors, contents.metadata.entries());
  std::vector<std::vector<uint8_t>> pixels;
  for (const std::string& model : {foreign, own}) {
    const std::string out = folder.file("out.png");
    const Finished done = run_brume({"sample", model, "-n", "2", "--classes", "1,3", "--steps", "3", "--precision", "fp32", "-o", out});
    ASSERT_EQ(done.code, 0) << done.err;
    pixels.push_back(read_image(out).pixels);
  }
  EXPECT_EQ(pixels[0], pixels[1]);
}

INSTANTIATE_TEST_SUITE_P(Refs, ForeignNetwork,
                         testing::Values("net/gd_unet_adagn_class.pt", "net_edm/edm_songunet_ddpmpp_class.safetensors"),
                         [](const auto& info) { return info.index == 0 ? "GuidedDiffusion" : "Edm"; });

}  // namespace
}  // namespace brume::test
