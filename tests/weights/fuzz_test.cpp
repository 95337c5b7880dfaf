// Damaged files of every format, thousands of them, always the same ones: whatever a file holds, a reader returns or throws
// ConfigError. Under -fsanitize=address,undefined this is where memory errors would show.
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <random>

#include "brume/image/image.h"
#include "brume/interop/inspect.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

/// One to four changes: bytes replaced, counted up or down, cut out, doubled, or the end cut off.
std::string mutated(std::string bytes, std::mt19937& random) {
  const auto below = [&random](size_t limit) { return limit == 0 ? 0 : random() % limit; };
  constexpr char telling[] = {'\0', '\1', '\x7f', '\x80', '\xff', '(', 't', '.'};
  for (auto changes = 1 + below(4); changes > 0 && !bytes.empty(); --changes) {
    const auto at = below(bytes.size());
    const auto length = std::min<size_t>(1 + below(8), bytes.size() - at);
    switch (below(8)) {
      case 0: bytes[at] = static_cast<char>(random()); break;
      case 1: bytes[at] = telling[below(sizeof(telling))]; break;
      case 2: bytes[at] = static_cast<char>(bytes[at] + 1); break;
      case 3: bytes[at] = static_cast<char>(bytes[at] - 1); break;
      case 4: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
      case 5: bytes.erase(at, length); break;
      case 6: bytes.insert(below(bytes.size()), bytes.substr(at, length)); break;
      default: bytes.replace(at, length, std::string(length, telling[below(sizeof(telling))])); break;
    }
  }
  if (below(16) == 0) bytes.resize(below(bytes.size() + 1));
  return bytes;
}

void fuzz(const std::string& seed_file, int count, const std::function<void(const std::string&)>& read) {
  const TemporaryFolder folder;
  std::mt19937 random(1);
  int accepted = 0;
  for (int i = 0; i < count; ++i) {
    const auto path = folder.file("x", mutated(seed_file, random));
    try {
      read(path);
      ++accepted;
    } catch (const ConfigError& error) {
      EXPECT_EQ(std::string_view(error.what()).substr(0, path.size()), path);  // every error names its file
    } catch (const std::exception& error) {
      std::filesystem::copy_file(path, std::filesystem::temp_directory_path() / "brume_fuzz_failure",
                                 std::filesystem::copy_options::overwrite_existing);
      FAIL() << "mutation " << i << " throws something else than ConfigError: " << error.what();
    }
    std::filesystem::remove(path);  // ext4 flushes a file that is cut to nothing and written again: slow
  }
  EXPECT_LT(accepted, count);
}

/// Reads, and touches every byte.
void use_tensors(const std::string& path) {
  std::map<std::string, std::string> metadata;
  double total = 0;
  for (const auto& [name, tensor] : load_tensors(path, &metadata)) {
    if (tensor.numel() < 10000) total += tensor.to(at::kDouble).sum().item<double>();
  }
  EXPECT_FALSE(inspect(path).empty());
}

TEST(Fuzz, Safetensors) {
  const TemporaryFolder folder;
  const auto path = folder.file("seed");
  write_safetensors(path, {{"a", at::arange(6, at::kFloat)}, {"b.c", at::ones({2, 2}, at::kBool)}, {"h", at::ones({3}, at::kHalf)}},
                    {{"k", "v"}});
  fuzz(content_of(path), 4000, use_tensors);
}

TEST(Fuzz, Gguf) {
  const auto text = [](const std::string& s) { return raw<uint64_t>(s.size()) + s; };
  std::string head = "GGUF" + raw<uint32_t>(3) + raw<uint64_t>(2) + raw<uint64_t>(2) + text("k") + raw<uint32_t>(8) + text("v") +
                     text("l") + raw<uint32_t>(9) + raw<uint32_t>(5) + raw<uint64_t>(2) + raw<int32_t>(1) + raw<int32_t>(2) + text("a") +
                     raw<uint32_t>(2) + raw<uint64_t>(2) + raw<uint64_t>(3) + raw<uint32_t>(0) + raw<uint64_t>(0) + text("b") +
                     raw<uint32_t>(1) + raw<uint64_t>(32) + raw<uint32_t>(8) + raw<uint64_t>(32);
  head.resize((head.size() + 31) / 32 * 32);
  fuzz(head + numbers<float>({0, 1, 2, 3, 4, 5}) + std::string(8, '\0') + std::string(34, '\1'), 8000, use_tensors);
}

std::string torch_seed(bool compress) {
  const auto floats = pickle::storage("FloatStorage", "0", 6), booleans = pickle::storage("BoolStorage", "1", 2);
  const auto value = pickle::dict(
      {{"state_dict", pickle::dict({{"a", pickle::tensor(floats, 1, {2, 2}, {2, 1})}, {"b", pickle::tensor(booleans, 0, {2}, {1})}})},
       {"epoch", "K\x03"},
       {"list", "](G?\xf0" + std::string(6, '\0') + "\x8a\x02\x01\x02" + "q\x01h\x01" + "e"}});
  return torch_bytes(pickle::whole(value), {numbers<float>({0, 1, 2, 3, 4, 5}), std::string("\0\1", 2)}, compress);
}

TEST(Fuzz, TorchFile) { fuzz(torch_seed(false), 8000, use_tensors); }

TEST(Fuzz, CompressedTorchFile) { fuzz(torch_seed(true), 3000, use_tensors); }

/// The pickle alone changes, inside an archive that stays whole: deeper than changes of the whole file reach.
TEST(Fuzz, Pickle) {
  const auto seed = torch_seed(false);
  const auto begin = seed.find("\x80\x02"), end = seed.find("PK\x03\x04", begin);
  const TemporaryFolder folder;
  fuzz(seed.substr(begin, end - begin), 8000, [&folder](const std::string& path) {
    const auto archive = torch_bytes(content_of(path), {numbers<float>({0, 1, 2, 3, 4, 5}), std::string("\0\1", 2)});
    const auto file = folder.file("archive", archive);
    try {
      use_tensors(file);
      std::filesystem::remove(file);
    } catch (const ConfigError& error) {
      std::filesystem::remove(file);
      throw ConfigError(path + std::string(error.what()).substr(file.size()));
    }
  });
}

TEST(Fuzz, Png) {
  const TemporaryFolder folder;
  const auto path = folder.file("seed");
  write_png(path, Image(4, 4, 3, 9), {{"key", "é"}, {"seed", "1"}});
  const auto read = [](const std::string& file) {
    EXPECT_LE(read_image(file).height, 1 << 16);
    read_png_text(file);
  };
  fuzz(content_of(path), 3000, read);
}

TEST(Fuzz, OtherImages) {
  // Decoding is OpenCV's; what is ours is the walk through the segments of a JPEG.
  const std::string header("\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00", 20);
  const auto jpeg = header + std::string("\xff\xda\x00\x04\x01\x02zz\xff\x00z\xff\xd0z\xff\xd9", 16);
  fuzz(jpeg, 300, [](const std::string& file) { read_image(file); });
  fuzz("P6 2 1 255\nabcdef", 300, [](const std::string& file) { read_image(file); });
  fuzz(std::string("RIFF\x0e\0\0\0WEBPVP8 \x02\0\0\0\1\2", 22), 300, [](const std::string& file) { read_image(file); });
}

}  // namespace
}  // namespace brume
