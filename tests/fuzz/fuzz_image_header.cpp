// Image files before their pixels: chunks of PNG and WebP, segments of JPEG, directories of TIFF and Exif, the numbers of BMP and PNM.
#include "brume/image/image_header.h"
#include "brume/image/tiff.h"
#include "brume/image/webp.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return brume::fuzz::try_to(data, size, [] {
    using namespace brume;
    const ImageHeader header = read_image_header(fuzz::input, "input");
    if (header.format == ImageHeader::Format::webp) first_frame(fuzz::input, "input");
    if (header.format == ImageHeader::Format::tiff) TiffDirectory(fuzz::input).with(TiffDirectory::orientation_tag, 1);
  });
}
