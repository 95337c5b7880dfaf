// Makes four images with a model and writes them: embed MODEL FOLDER
#include <brume/model.h>

#include <cstdio>
#include <string>

int main(int argc, char** argv) try {
  if (argc != 3) return std::fputs("usage: embed MODEL FOLDER\n", stderr), 2;
  const auto model = brume::Model::open(argv[1], {.warn = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }});
  const auto progress = [](const brume::SampleProgress& p) {
    std::fprintf(stderr, "\r%ld/%ld", long(p.done), long(p.total));
    return true;  // false cancels
  };
  const auto images = model.sample({.count = 4, .seed = 7, .steps = 20, .progress = progress});
  for (int64_t i = 0; i < images.size(0); ++i) brume::write_png(std::string(argv[2]) + "/" + std::to_string(i) + ".png", images[i]);
} catch (const std::exception& e) {
  return std::fprintf(stderr, "error: %s\n", e.what()), 1;
}
