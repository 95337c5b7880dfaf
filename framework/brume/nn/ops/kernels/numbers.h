// Numbers of the element types and the functions the bodies of the kernels share; included within the namespace of an instruction set.

template <class T>
float load(T value);
template <>
inline float load<float>(float value) {
  return value;
}
template <>
inline float load<uint16_t>(uint16_t value) {
  return __builtin_bit_cast(float, uint32_t(value) << 16);
}

template <class T>
T store(float value);
template <>
inline float store<float>(float value) {
  return value;
}
template <>
inline uint16_t store<uint16_t>(float value) {  // round to nearest even
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;  // what is none stays none: rounding could carry it to zero
  return number ? uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : uint16_t(bits >> 16 | 0x40u);
}

/// exp(x) for x <= 0, relative error below 3e-7: 2^n times a polynomial in the rest (Cody & Waite).
inline float exp_nonpositive(float x) {
  const float t = (x < -87.0f ? -87.0f : x) * 1.44269504f;
  const float n = __builtin_floorf(t + 0.5f), f = t - n;
  float p = 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  return p * __builtin_bit_cast(float, (int32_t(n) + 127) << 23);
}
