// One inline function an instruction, named after it. Sections are those of the PTX ISA manual, version 9.0.
// Who calls one of them is compiled for an architecture that has it.
#pragma once
#include <cstdint>
#include <cuda_runtime.h>

namespace conv1d {
namespace ptx {

// Address in the shared window, as every instruction below takes it.
__device__ __forceinline__ uint32_t smem_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 9.7.9.22: round to nearest even at 11 significant bits; the result's low 13 bits are zero.
__device__ __forceinline__ uint32_t cvt_rn_tf32(float value) {
    uint32_t bits;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// 9.7.9.11: neighbours, in one aligned store or in two. (Of plain stores the compiler makes two wherever
// it merges branches.)
__device__ __forceinline__ void st_shared(uint32_t target, float2 pair) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(target), "f"(pair.x), "f"(pair.y) : "memory");
}
__device__ __forceinline__ void st_shared(uint32_t target, uint32_t pair) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(target), "r"(pair) : "memory");
}
__device__ __forceinline__ void st_shared(uint32_t target, uint4 four) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(target), "r"(four.x), "r"(four.y),
                 "r"(four.z), "r"(four.w)
                 : "memory");
}
__device__ __forceinline__ void st_shared_apart(uint32_t target, float2 pair) {
    asm volatile("st.shared.f32 [%0], %1;\nst.shared.f32 [%0 + 4], %2;" ::"r"(target), "f"(pair.x),
                 "f"(pair.y)
                 : "memory");
}
__device__ __forceinline__ void st_shared_apart(uint32_t target, uint32_t pair) {
    asm volatile(
        "{\n.reg .b16 first, second;\nmov.b32 {first, second}, %1;\nst.shared.b16 [%0], first;\n"
        "st.shared.b16 [%0 + 2], second;\n}" ::"r"(target),
        "r"(pair)
        : "memory");
}

// 9.7.9.15: asks for the cache line at `source`, so that L2 has it sooner.
__device__ __forceinline__ void prefetch_l2(const void* source) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(source));
}

// 9.7.9.11: of plain stores of 16 bytes the compiler makes four here and there.
__device__ __forceinline__ void st_global(void* target, uint4 four) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(target), "r"(four.x), "r"(four.y),
                 "r"(four.z), "r"(four.w)
                 : "memory");
}
__device__ __forceinline__ void st_global(void* target, uint2 pair) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(target), "r"(pair.x), "r"(pair.y) : "memory");
}

// 9.7.4.9: of two pairs of fp16, the second without its signs, the larger ones; NaN where there is one.
__device__ __forceinline__ uint32_t max_magnitude_f16(uint32_t largest, uint32_t pair) {
    uint32_t result;
    asm("{\n.reg .b32 magnitude;\nabs.f16x2 magnitude, %2;\nmax.NaN.f16x2 %0, %1, magnitude;\n}"
        : "=r"(result)
        : "r"(largest), "r"(pair));
    return result;
}

// 9.7.4.8: likewise the smaller ones; without NaN where there is another number.
__device__ __forceinline__ uint32_t min_magnitude_f16(uint32_t smallest, uint32_t pair) {
    uint32_t result;
    asm("{\n.reg .b32 magnitude;\nabs.f16x2 magnitude, %2;\nmin.f16x2 %0, %1, magnitude;\n}"
        : "=r"(result)
        : "r"(smallest), "r"(pair));
    return result;
}

// 9.7.9.8: 2 to 16 bytes, in the order of the program: of plain loads the compiler puts some behind stores.
__device__ __forceinline__ void ld_shared(uint16_t& value, uint32_t source) {
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(source) : "memory");
}
__device__ __forceinline__ void ld_shared(uint32_t& value, uint32_t source) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(source) : "memory");
}
__device__ __forceinline__ void ld_shared(uint2& value, uint32_t source) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(source) : "memory");
}
__device__ __forceinline__ void ld_shared(uint4& value, uint32_t source) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(source)
                 : "memory");
}
// The same in some lanes; without a branch, which between products would make the compiler wait for them.
__device__ __forceinline__ void ld_shared_if(bool condition, uint32_t& value, uint32_t source) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p ld.shared.u32 %0, [%1];\n}"
        : "+r"(value)
        : "r"(source), "r"(static_cast<uint32_t>(condition))
        : "memory");
}

// No instruction: the compiler computes the value here, not where it is used.
__device__ __forceinline__ void settle(float2& value) { asm volatile("" : "+f"(value.x), "+f"(value.y)); }
__device__ __forceinline__ void settle(uint32_t& value) { asm volatile("" : "+r"(value)); }
template <class Element>
__device__ __forceinline__ void settle(const Element*& pointer) {
    asm volatile("" : "+l"(pointer));
}

// The same value; but the compiler computes what depends on it here, and keeps no result from elsewhere in a
// register until now.
__device__ __forceinline__ int32_t anew(int32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

// 9.7.13.17: true in one thread of a converged warp, the same one each time. What only it does, the compiler
// issues once, not in a loop over threads.
__device__ __forceinline__ bool elect() {
    uint32_t elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
    return elected != 0;
}

// 9.7.13.15: mbarrier, an arrival counter in shared memory with a phase bit.
__device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
// Returns once the phase of this parity has completed.
__device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// 9.7.9.25.5.2: one contiguous piece, global to shared; source, target and size are multiples of 16 bytes.
__device__ __forceinline__ void cp_async_bulk(uint32_t target, const void* source, uint32_t bytes,
                                              uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            target),
        "l"(source), "r"(bytes), "r"(barrier)
        : "memory");
}

// The same, to the same place in each block of the cluster that has a bit in `blocks`, and to its barrier.
__device__ __forceinline__ void cp_async_bulk_multicast(uint32_t target, const void* source, uint32_t bytes,
                                                        uint32_t barrier, uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], %2, [%3], %4;" ::"r"(target),
        "l"(source), "r"(bytes), "r"(barrier), "h"(blocks)
        : "memory");
}

// From shared to global, and its groups, which belong to the thread that issued them (9.7.9.25.3).
__device__ __forceinline__ void cp_async_bulk_store(uint64_t target, uint32_t source, uint32_t bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target), "r"(source),
                 "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Returns once all of this thread's groups but the last kPending have read their sources.
template <int kPending>
__device__ __forceinline__ void cp_async_bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

// 9.7.9.27.1.2: a box of three axes that a tensor map describes, global to shared, from coordinates
// (c0, c1, c2) on; c0 runs along memory, and what lies outside the tensor reads as zero. The target is a
// multiple of 128 bytes, and c0 a multiple of 16 bytes: others are illegal instructions.
__device__ __forceinline__ void cp_async_bulk_tensor(uint32_t target, const void* map, int32_t c0, int32_t c1,
                                                     int32_t c2, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(target),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(barrier)
        : "memory");
}

// The same of four axes.
__device__ __forceinline__ void cp_async_bulk_tensor(uint32_t target, const void* map, int32_t c0, int32_t c1,
                                                     int32_t c2, int32_t c3, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(target),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier)
        : "memory");
}

// The same, to the same place in each block of the cluster that has a bit in `blocks`, and to its barrier.
__device__ __forceinline__ void cp_async_bulk_tensor_multicast(uint32_t target, const void* map, int32_t c0,
                                                               int32_t c1, int32_t c2, int32_t c3,
                                                               uint32_t barrier, uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3, %4, %5}], [%6], %7;" ::"r"(target),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier), "h"(blocks)
        : "memory");
}

// 10.15: this block's number in its cluster. 9.7.9.23: the address of the same place in block `rank` of it.
__device__ __forceinline__ uint32_t cluster_ctarank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ __forceinline__ uint32_t mapa(uint32_t address, uint32_t rank) {
    uint32_t mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
    return mapped;
}
// 9.7.13.15.13: mbarrier_arrive by such an address.
__device__ __forceinline__ void mbarrier_arrive_cluster(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// 9.7.13.4: all threads of the cluster.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

// 9.7.15.5.15 and .16: four 8x8 matrices of 16-bit elements. Lane 8*m + i gives the address of row i of
// matrix m, 16 bytes; word m of lane t holds elements 2*(t%4) and that + 1 of its row t/4, or, transposed, of
// its column t/4.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&words)[4], uint32_t source) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(source)
                 : "memory");
}
__device__ __forceinline__ void stmatrix_x4(uint32_t target, const uint32_t (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(target),
                 "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}

// 9.7.13.1: hardware barrier kId, of `threads` threads; arrive does not wait.
template <int kId>
__device__ __forceinline__ void bar_sync(int threads) {
    asm volatile("bar.sync %0, %1;" ::"n"(kId), "r"(threads) : "memory");
}
template <int kId>
__device__ __forceinline__ void bar_arrive(int threads) {
    asm volatile("bar.arrive %0, %1;" ::"n"(kId), "r"(threads) : "memory");
}

// 9.7.13.3: orders this thread's ordinary shared-memory writes before later reads by wgmma and bulk copies.
__device__ __forceinline__ void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// 9.7.19.5: moves registers between the warpgroups of a block.
template <int kRegisters>
__device__ __forceinline__ void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// 9.7.13.13: lets the next kernel of the stream begin where its launch allows that; there, waits until all
// kernels before it have ended and their writes can be seen.
__device__ __forceinline__ void griddepcontrol_launch_dependents() {
    asm volatile("griddepcontrol.launch_dependents;");
}
__device__ __forceinline__ void griddepcontrol_wait() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// 9.7.15.7: orders register and shared-memory accesses around wgmma.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait_group() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// 9.7.15.5.1.2.2: matrix descriptor of a K-major operand in rows of 128 bytes, swizzled 128 B, 8-row groups
// 1024 B apart; `smem16` is its address in units of 16 bytes. The swizzle is a function of the address, so a
// start of any multiple of 128 B is the same tile some rows on.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t smem16) {
    constexpr uint32_t kLeadingOffset = 1 << 16, kRowGroupOffset = 1024 / 16, kSwizzle128 = 1 << 30;
    return (uint64_t{kRowGroupOffset | kSwizzle128} << 32) | (smem16 + kLeadingOffset);
}

// The same of an operand that is not swizzled, in parts of 8 rows of 16 bytes: 128 B from one to the next
// along K, kRowGroupBytes along the rows. In a cluster addresses have the block's number above 24 bits.
template <uint32_t kRowGroupBytes = 128>
__device__ __forceinline__ uint64_t wgmma_descriptor_plain(uint32_t smem16) {
    constexpr uint32_t kPart = 128 / 16;
    return (uint64_t{kRowGroupBytes / 16} << 32) | ((smem16 & 0x3FFF) + (kPart << 16));
}
// That of the operand so many units of 16 bytes behind.
__device__ __forceinline__ uint64_t wgmma_descriptor_behind(uint64_t descriptor, uint32_t offset16) {
    return (descriptor >> 32 << 32) | (static_cast<uint32_t>(descriptor) + offset16);
}

}  // namespace ptx
}  // namespace conv1d
