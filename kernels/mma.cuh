// One inline function an instruction, named after it: those of sm_80 and all later architectures.
// Sections are those of the PTX ISA manual, version 9.0.
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace conv1d {
namespace ptx {

// 9.7.9.25.3.1: 16 bytes, global to shared, both aligned; past the first `source_bytes` they become zeros.
__device__ __forceinline__ void cp_async_16(uint32_t target, const void* source, uint32_t source_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
                 "r"(source_bytes)
                 : "memory");
}
// 4, 8 or 16 bytes likewise, through the L1 cache.
template <int kBytes>
__device__ __forceinline__ void cp_async(uint32_t target, const void* source, uint32_t source_bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(target), "l"(source), "n"(kBytes),
                 "r"(source_bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Returns once all but the latest kPending groups of this thread have landed.
template <int kPending>
__device__ __forceinline__ void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// Returns once all copies of this thread have landed.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// 9.7.9.22: round to nearest, ties away from zero, at 11 significant bits.
__device__ __forceinline__ uint32_t cvt_rna_tf32(float value) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// 9.7.15.5.15: four matrices of 8 rows of 4 words. Lane 8*m + i gives the address of row i of matrix m, 16
// bytes; word m of lane t is word t%4 of its row t/4.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&words)[4], uint32_t source) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(source)
                 : "memory");
}

// 9.7.14.5: sum[16][8] += a[16][depth] * b[depth][8], where depth is 8 TF32 or 16 16-bit numbers: 8 words.
// Of lane 4*g + t, in words of a row or column: a = (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);
// b = (t, g), (t + 4, g); sum = (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#define CONV1D_MMA(shape, types)                                 \
    asm("mma.sync.aligned." shape ".row.col.f32." types          \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "    \
        "{%0, %1, %2, %3};"                                      \
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]) \
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y))

template <class Element>
__device__ __forceinline__ void mma(float (&sum)[4], const uint4& a, const uint2& b);
template <>
__device__ __forceinline__ void mma<float>(float (&sum)[4], const uint4& a, const uint2& b) {
    CONV1D_MMA("m16n8k8", "tf32.tf32");
}
template <>
__device__ __forceinline__ void mma<__half>(float (&sum)[4], const uint4& a, const uint2& b) {
    CONV1D_MMA("m16n8k16", "f16.f16");
}
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&sum)[4], const uint4& a, const uint2& b) {
    CONV1D_MMA("m16n8k16", "bf16.bf16");
}
#undef CONV1D_MMA

}  // namespace ptx
}  // namespace conv1d
