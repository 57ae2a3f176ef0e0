// Which build of the CPU kernels runs: every *_cpu.cpp is compiled once per instruction set, each into a namespace of its own.
#pragma once

namespace fastdd {

// avx512bf16: the kernels of avx512, and those of *_avx512bf16.cpp, which have no other build.
enum class Simd { baseline, avx2, avx512, avx512bf16 };

// The widest that the processor has and the build holds; FASTDD_SIMD=baseline|avx2|avx512|avx512bf16 in the environment
// asks for a narrower one. Decided at the first call.
Simd simd();

}  // namespace fastdd

// Calls a function of the namespace chosen at run time.
#ifdef FASTDD_X86
#define FASTDD_DISPATCH(function, ...)                                \
  (fastdd::simd() >= fastdd::Simd::avx512 ? fastdd::avx512::function(__VA_ARGS__) \
   : fastdd::simd() == fastdd::Simd::avx2 ? fastdd::avx2::function(__VA_ARGS__)   \
                                          : fastdd::baseline::function(__VA_ARGS__))
#define FASTDD_DECLARE_VARIANTS(declaration)  \
  namespace fastdd::baseline { declaration; } \
  namespace fastdd::avx2 { declaration; }     \
  namespace fastdd::avx512 { declaration; }
#else
#define FASTDD_DISPATCH(function, ...) fastdd::baseline::function(__VA_ARGS__)
#define FASTDD_DECLARE_VARIANTS(declaration) namespace fastdd::baseline { declaration; }
#endif
