#include "brume/weights/gguf_blocks.h"

#include <c10/util/Half.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

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

/// Returns number i of 32 of 4 bits in 16 bytes: the low halves of the bytes, then the high ones.
int nibble(const uint8_t* bytes, int i) { return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4; }
/// Returns bit i of 32 in 4 bytes.
int bit(const uint8_t* bytes, int i) { return (bytes[i / 8] >> (i % 8)) & 1; }

/// Decodes one scale, 32 numbers of 4 bits from -8 on.
void decode_q4_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = float(nibble(block + 2, i) - 8) * scale;
}
/// Decodes scale and least value, 32 numbers of 4 bits.
void decode_q4_1(const uint8_t* block, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = float(nibble(block + 4, i)) * scale + least;
}
/// Decodes one scale, the fifth bits of 32 numbers from -16 on, their low 4 bits.
void decode_q5_0(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = float(nibble(block + 6, i) + 16 * bit(block + 2, i) - 16) * scale;
}
/// Decodes scale and least value, the fifth bits of 32 numbers, their low 4 bits.
void decode_q5_1(const uint8_t* block, float* out) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = float(nibble(block + 8, i) + 16 * bit(block + 4, i)) * scale + least;
}

/// The values that 4 bits stand for in the types IQ4.
constexpr std::array<int, 16> uneven{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// Decodes one scale, 32 places in the table.
void decode_iq4_nl(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = float(uneven[size_t(nibble(block + 2, i))]) * scale;
}
/// Decodes eight parts of 32 places in the table. Their scales are numbers of 6 bits from -32 on: two high bits of each in 2 bytes, then
/// the four low ones in 4.
void decode_iq4_xs(const uint8_t* block, float* out) {
  const float scale = half_at(block);
  for (int part = 0; part < 8; ++part, out += 32) {
    const int low = (block[4 + part / 2] >> (4 * (part % 2))) & 15, high = (block[2 + part / 4] >> (2 * (part % 4))) & 3;
    const float step = scale * float((low | (high << 4)) - 32);
    for (int i = 0; i < 32; ++i) out[i] = float(uneven[size_t(nibble(block + 8 + 16 * part, i))]) * step;
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

/// Decodes sixteen parts of 16 weights of 2 bits: scale q - least. Scales and least values of the parts have 4 bits each, and stand before
/// the weights; those of the block behind.
void decode_q2_k(const uint8_t* block, float* out) {
  const float scale = half_at(block + 80), least = half_at(block + 82);
  for (int i = 0; i < 256; ++i) {
    const uint8_t part = block[i / 16];
    const int q = (block[16 + 32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3;
    out[i] = scale * float(part & 15) * float(q) - least * float(part >> 4);
  }
}

/// Decodes sixteen parts of 16 weights of 3 bits from -4 on: their high bits in 32 bytes, their low ones in 64, the scales of the parts, 6
/// bits from -32 on (the low 4 in 8 bytes, the high 2 in 4), and that of the block.
void decode_q3_k(const uint8_t* block, float* out) {
  const float scale = half_at(block + 108);
  const uint8_t *low = block + 32, *scales = block + 96;
  for (int i = 0; i < 256; ++i) {
    const int part = i / 16;
    const int own = ((scales[part % 8] >> (4 * (part / 8))) & 15) | (((scales[8 + part % 4] >> (2 * (part / 4))) & 3) << 4);
    const int q = ((low[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3) | (((block[i % 32] >> (i / 32)) & 1) << 2);
    out[i] = scale * float(own - 32) * float(q - 4);
  }
}

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
    GgufType{0, "F32", 1, 4, nullptr},
    GgufType{1, "F16", 1, 2, nullptr},
    GgufType{30, "BF16", 1, 2, nullptr},
    GgufType{8, "Q8_0", 32, 34, decode_q8_0},
    GgufType{2, "Q4_0", 32, 18, decode_q4_0},
    GgufType{3, "Q4_1", 32, 20, decode_q4_1},
    GgufType{6, "Q5_0", 32, 22, decode_q5_0},
    GgufType{7, "Q5_1", 32, 24, decode_q5_1},
    GgufType{10, "Q2_K", 256, 84, decode_q2_k},
    GgufType{11, "Q3_K", 256, 110, decode_q3_k},
    GgufType{12, "Q4_K", 256, 144, decode_q4_k},
    GgufType{13, "Q5_K", 256, 176, decode_q5_k},
    GgufType{14, "Q6_K", 256, 210, decode_q6_k},
    GgufType{20, "IQ4_NL", 32, 18, decode_iq4_nl},
    GgufType{23, "IQ4_XS", 256, 136, decode_iq4_xs},
};

}  // namespace

std::string gguf_readable() {
  std::vector<std::string_view> names;
  for (const GgufType& type : types) names.push_back(type.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

const GgufType* gguf_type(uint32_t number) {
  const auto* at = std::find_if(types.begin(), types.end(), [number](const GgufType& t) { return t.number == number; });
  return at == types.end() ? nullptr : at;
}

}  // namespace brume
