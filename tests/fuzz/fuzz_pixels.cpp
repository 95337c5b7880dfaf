// Image files that brume decodes itself, in part: grey TIFFs with transparency, BMPs with masks. Small ones: the rest is OpenCV's work.
#include "brume/image/image.h"
#include "brume/image/image_header.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brume;
  return fuzz::try_to(data, size, [] {
    const ImageHeader header = read_image_header(fuzz::input, "input");
    constexpr int64_t side = 128;
    if (header.format != ImageHeader::Format::tiff && header.format != ImageHeader::Format::bmp) return;
    if (header.height > side || header.width > side) return;
    for (const int64_t channels : {1, 3}) decode_image_file(fuzz::input, "input", channels);
  });
}
