// A model of SentencePiece, which the shim opens, and a text for it. Without LibTorch, whose protobuf clashes with SentencePiece's.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/text/sentencepiece_shim.h"

extern "C" const BrumeSentencePiece* brume_sentencepiece();

namespace {

void append(void* to, const char* bytes, size_t size) { static_cast<std::string*>(to)->append(bytes, size); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const BrumeSentencePiece& shim = *brume_sentencepiece();
  std::string error;
  void* model = nullptr;
  if (shim.open(reinterpret_cast<const char*>(data), size, &model, &error, append) != brume_done) return 0;
  const std::string text = "a red circle, caf\xc3\xa9 \xe3\x81\x82 " + std::string(reinterpret_cast<const char*>(data), size % 100);
  struct Read {
    std::vector<int> ids;
    std::string text, error;
    static void put(void* to, int id) { static_cast<Read*>(to)->ids.push_back(id); }
    static void say(void* to, const char* bytes, size_t count) { static_cast<Read*>(to)->text.append(bytes, count); }
    static void fail(void* to, const char* bytes, size_t count) { static_cast<Read*>(to)->error.append(bytes, count); }
  } read;
  shim.encode(model, text.data(), text.size(), &read, Read::put, Read::fail);
  shim.decode(model, read.ids.data(), read.ids.size(), &read, Read::say, Read::fail);
  const int pieces = shim.size(model);
  for (int i = 0; i < pieces && i < 100; ++i) shim.piece(model, i, &read, Read::say);
  shim.close(model);
  return 0;
}
