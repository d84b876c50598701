// float16 as CuPy's headers ask for it; the processor's own type does the rounding.
#pragma once
struct __half_raw { unsigned short x; };
struct __half {
    unsigned short v;
    static unsigned short from(float f) { return emu::bits<unsigned short>((_Float16)f); }
    __half() {}
    __half(const __half_raw& r) : v(r.x) {}
    __half(float f) : v(from(f)) {}
    template <class N, class = std::enable_if_t<std::is_arithmetic<N>::value && !std::is_same<N, float>::value>> explicit __half(N n) : v(from((float)n)) {}
    operator float() const { return (float)emu::bits<_Float16>(v); }
    operator __half_raw() const { return {v}; }
};
using half = __half;
inline unsigned short __half_as_ushort(half h) { return h.v; }
inline half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
inline float __half2float(half h) { return h; }
inline half __float2half(float f) { return f; }
inline half __float2half_rn(float f) { return f; }
