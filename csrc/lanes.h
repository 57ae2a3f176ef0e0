// Vectors in the compiler's own vector extension, as wide as the variant's registers (wider ones would live in memory): the same
// source for every instruction set. Only for *_cpu.cpp, where everything has internal linkage.
#pragma once

#include <cstdint>
#include <cstring>

#include "bf16.h"

namespace fastdd {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

typedef float F32 __attribute__((vector_size(kBytes)));
typedef int32_t I32 __attribute__((vector_size(kBytes)));
typedef uint32_t U32 __attribute__((vector_size(kBytes)));
typedef uint16_t U16 __attribute__((vector_size(kBytes / 2)));
typedef double F64 __attribute__((vector_size(kBytes)));
typedef int64_t I64 __attribute__((vector_size(kBytes)));

template <class T>
struct Lanes;  // the vector in which elements of type T are computed

template <>
struct Lanes<float> {
  using Scalar = float;
  using Vector = F32;
  using Mask = I32;
  static constexpr int64_t kCount = kBytes / 4;
  static Vector load(const float* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }
};

template <>
struct Lanes<double> {
  using Scalar = double;
  using Vector = F64;
  using Mask = I64;
  static constexpr int64_t kCount = kBytes / 8;
  static Vector load(const double* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(double* p, Vector v) { std::memcpy(p, &v, sizeof v); }
};

template <>
struct Lanes<bf16> {
  using Scalar = float;
  using Vector = F32;
  using Mask = I32;
  static constexpr int64_t kCount = kBytes / 4;
  static Vector load(const bf16* p) {
    U16 half;
    std::memcpy(&half, p, sizeof half);
    const U32 bits = __builtin_convertvector(half, U32) << 16;
    Vector v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }
  // To the nearest, ties to even; NaN stays NaN.
  static void store(bf16* p, Vector v) {
    U32 bits;
    std::memcpy(&bits, &v, sizeof v);
    const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const U32 quiet = (bits >> 16) | 0x40u;
    const U32 nan = reinterpret_cast<U32>(v != v);
    const U16 half = __builtin_convertvector((rounded & ~nan) | (quiet & nan), U16);
    std::memcpy(p, &half, sizeof half);
  }
};

// All lanes of a vector, or the first few (the others are zero): what for_lanes hands to its body.
struct Whole {
  template <class T>
  typename Lanes<T>::Vector load(const T* p) const {
    return Lanes<T>::load(p);
  }
  template <class T>
  void store(T* p, typename Lanes<T>::Vector v) const {
    Lanes<T>::store(p, v);
  }
};

struct Part {
  int64_t count;
  template <class T>
  typename Lanes<T>::Vector load(const T* p) const {
    T part[Lanes<T>::kCount];
    std::memset(part, 0, sizeof part);
    std::memcpy(part, p, count * sizeof(T));
    return Lanes<T>::load(part);
  }
  template <class T>
  void store(T* p, typename Lanes<T>::Vector v) const {
    T part[Lanes<T>::kCount];
    Lanes<T>::store(part, v);
    std::memcpy(p, part, count * sizeof(T));
  }
};

// Calls body(first element, Whole or Part) for every vector of T in `count` elements.
template <class T, class Body>
inline void for_lanes(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + Lanes<T>::kCount <= count; i += Lanes<T>::kCount) body(i, Whole{});
  if (i < count) body(i, Part{count - i});
}

}  // namespace
}  // namespace fastdd
