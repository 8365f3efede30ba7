// Stands in for kernels/ptx.cuh: the same names, run by the emulator.
#pragma once
#include "emulator.h"

namespace conv1d {
namespace ptx {

inline uint32_t smem_address(const void* pointer) { return emulator::shared_address(pointer); }

inline uint32_t cvt_rn_tf32(float value) {
    const uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7F800000) == 0x7F800000) return (bits & 0x7FFFFF) != 0 ? 0x7FFFE000u : bits;
    return (bits + 0xFFF + (bits >> 13 & 1)) & 0xFFFFE000u;
}

template <class Pair>
void store_shared(uint32_t target, Pair pair, int alignment) {
    emulator::may_yield();
    std::memcpy(emulator::shared_pointer(target, sizeof pair, alignment), &pair, sizeof pair);
}
inline void st_shared(uint32_t target, float2 pair) { store_shared(target, pair, 8); }
inline void st_shared(uint32_t target, uint32_t pair) { store_shared(target, pair, 4); }
inline void st_shared_apart(uint32_t target, float2 pair) { store_shared(target, pair, 4); }
inline void st_shared_apart(uint32_t target, uint32_t pair) { store_shared(target, pair, 2); }

template <class Value>
void st_global(void* target, Value value) {
    if (reinterpret_cast<uintptr_t>(target) % sizeof value != 0) emulator::fail("misaligned st.global");
    std::memcpy(target, &value, sizeof value);
}

inline uint32_t max_magnitude_f16(uint32_t largest, uint32_t pair) {
    const uint32_t low = max(largest & 0xFFFF, pair & 0x7FFF), high = max(largest >> 16, pair >> 16 & 0x7FFF);
    return high << 16 | low;
}

inline uint32_t min_magnitude_f16(uint32_t smallest, uint32_t pair) {
    const uint32_t low = min(smallest & 0xFFFF, pair & 0x7FFF);
    return min(smallest >> 16, pair >> 16 & 0x7FFF) << 16 | low;
}

template <class Value>
void ld_shared(Value& value, uint32_t source) {
    std::memcpy(&value, emulator::shared_pointer(source, sizeof value, sizeof value), sizeof value);
}

inline void ld_shared_if(bool condition, uint32_t& value, uint32_t source) {
    if (condition) ld_shared(value, source);
}

template <class Value>
void settle(Value&) {}

inline int32_t anew(int32_t value) { return value; }
inline bool elect() { return emulator::elect(); }

inline void mbarrier_init(uint32_t barrier, uint32_t arrivals) { emulator::mbarrier_init(barrier, arrivals); }
inline void fence_mbarrier_init() {}
inline void mbarrier_arrive(uint32_t barrier) { emulator::mbarrier_arrive(barrier, 0); }
inline void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes) {
    emulator::mbarrier_arrive(barrier, bytes);
}
inline void mbarrier_wait(uint32_t barrier, uint32_t parity) { emulator::mbarrier_wait(barrier, parity); }

inline void cp_async_bulk(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier) {
    emulator::copy_to_shared(target, source, bytes, barrier);
}
inline void cp_async_bulk_multicast(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier,
                                    uint16_t blocks) {
    emulator::copy_to_shared(target, source, bytes, barrier, blocks);
}
inline void cp_async_bulk_tensor(uint32_t target, const void* map, int32_t c0, int32_t c1, int32_t c2,
                                 uint32_t barrier) {
    const auto& tensor = *static_cast<const emulator::TensorMap*>(map);
    if (c2 < 0 || c2 >= tensor.extent[2]) emulator::fail("a box of sample %d", c2);
    emulator::copy_box(target, tensor, {c0, c1, c2, 0}, barrier);
}
inline void cp_async_bulk_tensor(uint32_t target, const void* map, int32_t c0, int32_t c1, int32_t c2,
                                 int32_t c3, uint32_t barrier) {
    emulator::copy_box(target, *static_cast<const emulator::TensorMap*>(map), {c0, c1, c2, c3}, barrier);
}
inline void cp_async_bulk_tensor_multicast(uint32_t target, const void* map, int32_t c0, int32_t c1, int32_t c2,
                                           int32_t c3, uint32_t barrier, uint16_t blocks) {
    emulator::copy_box(target, *static_cast<const emulator::TensorMap*>(map), {c0, c1, c2, c3}, barrier, blocks);
}
inline uint32_t cluster_ctarank() { return emulator::cluster_rank(); }
inline uint32_t mapa(uint32_t address, uint32_t rank) { return emulator::map_to_rank(address, rank); }
inline void mbarrier_arrive_cluster(uint32_t barrier) { emulator::mbarrier_arrive_cluster(barrier); }
inline void cluster_sync() { emulator::cluster_sync(); }
inline void ldmatrix_x4_trans(uint32_t (&words)[4], uint32_t source) {
    const uint64_t* const rows = emulator::exchange("ldmatrix", source);
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; ++matrix) {
        words[matrix] = 0;
        for (int i = 0; i < 2; ++i) {
            const auto row = static_cast<uint32_t>(rows[8 * matrix + 2 * (lane % 4) + i]);
            uint16_t element;
            const void* const source = emulator::shared_pointer(row, 16, 16);
            std::memcpy(&element, static_cast<const uint8_t*>(source) + lane / 4 * 2, 2);
            words[matrix] |= static_cast<uint32_t>(element) << 16 * i;
        }
    }
}
inline void stmatrix_x4(uint32_t target, const uint32_t (&words)[4]) {
    const uint64_t* const rows = emulator::exchange("stmatrix", target);
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; ++matrix) {
        const auto row = static_cast<uint32_t>(rows[8 * matrix + lane / 4]);
        void* const place = emulator::shared_pointer(row, 16, 16);
        std::memcpy(static_cast<uint8_t*>(place) + lane % 4 * 4, &words[matrix], 4);
    }
}

template <int kId>
void bar_sync(int threads) {
    emulator::barrier_sync(kId, threads);
}
template <int kId>
void bar_arrive(int threads) {
    emulator::barrier_arrive(kId, threads);
}

inline void griddepcontrol_launch_dependents() {}
inline void griddepcontrol_wait() {}  // a launch here begins when the one before it has ended
inline void fence_proxy_async() { emulator::may_yield(); }
template <int kRegisters>
void setmaxnreg_inc() {}
template <int kRegisters>
void setmaxnreg_dec() {}

inline void wgmma_fence() { emulator::wgmma_fence(); }
inline void wgmma_commit_group() { emulator::wgmma_commit(); }
template <int kPending>
void wgmma_wait_group() {
    emulator::wgmma_wait(kPending);
}
template <uint32_t kRowGroupBytes = 128>
uint64_t wgmma_descriptor_plain(uint32_t smem16) {
    return uint64_t{kRowGroupBytes / 16} << 32 | 8 << 16 | smem16;
}
inline uint64_t wgmma_descriptor_behind(uint64_t descriptor, uint32_t offset16) {
    return (descriptor >> 32 << 32) | (static_cast<uint32_t>(descriptor) + offset16);
}
inline uint64_t wgmma_descriptor(uint32_t smem16) {
    constexpr uint32_t kLeadingOffset = 1 << 16, kRowGroupOffset = 1024 / 16, kSwizzle128 = 1 << 30;
    return (uint64_t{kRowGroupOffset | kSwizzle128} << 32) | (smem16 + kLeadingOffset);
}

}  // namespace ptx
}  // namespace conv1d
