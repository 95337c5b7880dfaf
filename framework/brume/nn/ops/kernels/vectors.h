// Vectors of float32 of the instruction set; included within its namespace.

#if defined(__AVX512F__)
constexpr int64_t lanes = 16;
#elif defined(__AVX2__)
constexpr int64_t lanes = 8;
#else
constexpr int64_t lanes = 4;
#endif
typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));

inline Vector load_vector(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
inline void store_vector(float* to, const Vector& v) { __builtin_memcpy(to, &v, sizeof v); }
