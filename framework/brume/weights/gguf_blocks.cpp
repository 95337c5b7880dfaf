#include "brume/weights/gguf_blocks.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace brume {
namespace {

float half_at(const uint8_t* bytes) {
  c10::Half value;
  std::memcpy(&value, bytes, sizeof(value));
  return float(value);
}

/// Decodes one scale, 32 signed bytes.
void decode_q8_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = scale * float(int8_t(block[2 + i]));
}

/// Decodes one scale, 32 numbers of 4 bits from -8 on: the low halves of the bytes, then the high ones.
void decode_q4_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = float(int(block[2 + i] & 15) - 8) * scale;
    out[i + 16] = float(int(block[2 + i] >> 4) - 8) * scale;
  }
}

/// Scale and least value of one of the eight parts of a block, 6 bits each in 12 bytes: of the first four parts whole, of the others the
/// low 4 bits here and the high 2 bits with the first ones.
struct Part {
  int scale, least;
};
Part part_of(const uint8_t* packed, int part) {
  if (part < 4) return {packed[part] & 63, packed[part + 4] & 63};
  return {(packed[part + 4] & 15) | ((packed[part - 4] >> 6) << 4), (packed[part + 4] >> 4) | ((packed[part] >> 6) << 4)};
}

/// Decodes eight parts of 32 weights: scale q - least. `high`: a fifth bit of each weight, or null.
void decode_k(const uint8_t* block, const uint8_t* high, const uint8_t* low, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int part = 0; part < 8; ++part) {
    const Part p = part_of(block + 4, part);
    const float step = scale * float(p.scale), start = least * float(p.least);
    const uint8_t* bytes = low + 32 * (part / 2);
    for (int i = 0; i < 32; ++i) {
      const int q = part % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4, fifth = high ? (high[i] >> part) & 1 : 0;
      *out++ = step * float(q + 16 * fifth) - start;
    }
  }
}
void decode_q4_k(const uint8_t* block, float* out) { decode_k(block, nullptr, block + 16, out); }
void decode_q5_k(const uint8_t* block, float* out) { decode_k(block, block + 16, block + 48, out); }

/// Decodes sixteen parts of 16 weights of 6 bits from -32 on: 4 low bits in the first 128 bytes, 2 high bits in the next 64, then the
/// scales.
void decode_q6_k(const uint8_t* block, float* out) {
  const float scale = half_at(block + 208);
  for (int half = 0; half < 2; ++half, out += 128) {
    const uint8_t *low = block + 64 * half, *high = block + 128 + 32 * half, *scales = block + 192 + 8 * half;
    for (int i = 0; i < 32; ++i)
      for (int row = 0; row < 4; ++row) {
        const uint8_t byte = low[i + 32 * (row % 2)];
        const int q = ((row < 2 ? byte & 15 : byte >> 4) | (((high[i] >> (2 * row)) & 3) << 4)) - 32;
        out[i + 32 * row] = scale * float(int8_t(scales[i / 16 + 2 * row])) * float(q);
      }
  }
}

constexpr std::array types{
    GgufType{0, "F32", 1, 4, nullptr},           GgufType{1, "F16", 1, 2, nullptr},           GgufType{30, "BF16", 1, 2, nullptr},
    GgufType{8, "Q8_0", 32, 34, decode_q8_0},    GgufType{2, "Q4_0", 32, 18, decode_q4_0},    GgufType{12, "Q4_K", 256, 144, decode_q4_k},
    GgufType{13, "Q5_K", 256, 176, decode_q5_k}, GgufType{14, "Q6_K", 256, 210, decode_q6_k},
};

}  // namespace

const GgufType* gguf_type(uint32_t number) {
  const auto* at = std::find_if(types.begin(), types.end(), [number](const GgufType& t) { return t.number == number; });
  return at == types.end() ? nullptr : at;
}

}  // namespace brume
