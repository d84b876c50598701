// bfloat16 as CuPy's headers ask for it: the upper half of a float32, rounded to the nearest even one.
#pragma once
struct __nv_bfloat16_raw { unsigned short x; };
struct __nv_bfloat16 {
    unsigned short v;
    static unsigned short from(float f) {
        unsigned u = __float_as_uint(f);
        return f != f ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    __nv_bfloat16() : v(0) {}
    __nv_bfloat16(float f) : v(from(f)) {}
    __nv_bfloat16(const __nv_bfloat16_raw& r) : v(r.x) {}
    operator float() const { return __uint_as_float((unsigned)v << 16); }
    operator __nv_bfloat16_raw() const { return {v}; }
};
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.v; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
inline bool __hisnan(__nv_bfloat16 h) { return (h.v & 0x7fff) > 0x7f80; }
inline int __hisinf(__nv_bfloat16 h) { return (h.v & 0x7fff) == 0x7f80; }
