// CUDA's C++ as far as CuPy's kernels and ours use it, said in C++ for the processor.
#pragma once
#include <cassert>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <type_traits>
#include <utility>
#include <xmmintrin.h>
#include "place.h"
#define EMU_API extern "C" __attribute__((visibility("default")))
#define __CUDACC_VER_MAJOR__ 12
#define __CUDACC_VER_MINOR__ 9
#define CUDART_VERSION 12090
#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
using uint3 = EmuIndex;
using dim3 = EmuIndex;
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(4) char4 { signed char x, y, z, w; };
EMU_API EmuPlace emu_place;
EmuPlace emu_place;
#define threadIdx emu_place.thread
#define blockIdx emu_place.block
#define blockDim emu_place.block_dim
#define gridDim emu_place.grid_dim
static const int warpSize = 32;

namespace emu {
// how the driver calls a kernel whose arguments it has as addresses
template <class... A, size_t... I> void call(void (*f)(A...), void** args, std::index_sequence<I...>) {
    f(*(std::remove_cv_t<std::remove_reference_t<A>>*)args[I]...);
}
template <class... A> void call(void (*f)(A...), void** args) { call(f, args, std::index_sequence_for<A...>{}); }
template <class... A> int sizes(void (*)(A...), size_t* to) {
    size_t all[] = {sizeof(A)..., 0};
    memcpy(to, all, sizeof...(A) * sizeof(size_t));
    return sizeof...(A);
}
inline unsigned rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
template <class T> T from_lane(T mine, unsigned lane) {  // all put their value on the table, then each takes one
    static T table[1024];
    unsigned me = rank();
    table[me] = mine;
    emu_place.meet(0);
    T found = table[me / 32 * 32 + lane % 32];
    emu_place.meet(0);
    return found;
}
template <class To, class From> To bits(From x) { To y; memcpy(&y, &x, sizeof y); return y; }
}
inline void __syncthreads() { emu_place.meet(1); }
inline void __syncwarp(unsigned = ~0u) { emu_place.meet(0); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
template <class T> T __shfl_sync(unsigned, T x, int from, int width = 32) { int l = emu::rank() % 32; return emu::from_lane(x, l / width * width + from % width); }
template <class T> T __shfl_xor_sync(unsigned, T x, int mask, int = 32) { return emu::from_lane(x, emu::rank() % 32 ^ mask); }
template <class T> T __shfl_up_sync(unsigned, T x, int by, int width = 32) { int l = emu::rank() % 32; return emu::from_lane(x, l % width < by ? l : l - by); }
template <class T> T __shfl_down_sync(unsigned, T x, int by, int width = 32) { int l = emu::rank() % 32; return emu::from_lane(x, l % width + by < width ? l + by : l); }
// one thread runs at a time, so an atomic operation is a plain one
template <class T> T atomicExch(T* p, T v) { T old = *p; *p = v; return old; }
template <class T> T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> T atomicMax(T* p, T v) { T old = *p; if (v > old) *p = v; return old; }
template <class T> T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }
template <class T> T atomicCAS(T* p, T expected, T v) { T old = *p; if (old == expected) *p = v; return old; }
inline int __float_as_int(float x) { return emu::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emu::bits<unsigned>(x); }
inline float __int_as_float(int x) { return emu::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emu::bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu::bits<double>(x); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
using std::abs; using std::atan2; using std::cbrt; using std::ceil; using std::copysign; using std::cos; using std::exp; using std::exp2; using std::expm1;
using std::fabs; using std::floor; using std::fmod; using std::frexp; using std::hypot; using std::isfinite; using std::isinf; using std::isnan; using std::ldexp;
using std::log; using std::log10; using std::log1p; using std::log2; using std::nextafter; using std::pow; using std::rint; using std::signbit; using std::sin;
using std::sqrt; using std::tanh; using std::trunc;
template <class T, class = std::enable_if_t<std::is_integral<T>::value>> T max(T a, T b) { return a > b ? a : b; }
template <class T, class = std::enable_if_t<std::is_integral<T>::value>> T min(T a, T b) { return a < b ? a : b; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
