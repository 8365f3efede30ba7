// CUDA as plain C++, as far as the kernels use it: a kernel's own source, compiled by g++, runs on the CPU.
// test_emulated_kernels.py rewrites what g++ cannot parse; emulator.cpp runs the threads and checks them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__

using std::erf;
using std::exp;
using std::fmaf;
using std::isfinite;

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    return b < a ? b : a;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    return a < b ? b : a;
}

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs

struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

template <class To, class From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}
inline uint32_t __float_as_uint(float value) { return bits_as<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return bits_as<float>(bits); }

struct __half {
    uint16_t bits;
};
inline float __half2float(__half value) { return bits_as<_Float16>(value.bits); }
inline __half __float2half_rn(float value) { return {bits_as<uint16_t>(static_cast<_Float16>(value))}; }

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) { return bits_as<float>(uint32_t{value.bits} << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    if (value != value) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <class T>
void __stwb(T* target, const T& value) {
    *target = value;
}

namespace emulator {

// Stops with the problem that runs.
[[noreturn]] void fail(const char* what, int64_t a = 0, int64_t b = 0);

// A tensor in global memory. Every access is held against these, byte by byte.
struct Tensor {
    unsigned char* data;
    size_t bytes;
    bool writable;
};
// Begins a problem: forgets all tensors; `seed` orders its threads, which may read that many bytes before
// a tensor.
void reset(uint64_t seed, size_t readable_head_bytes);
// Room for `bytes` bytes, poisoned, `offset` bytes past a multiple of 256.
void* allocate(size_t bytes, size_t offset, bool writable);

void launch(const void* kernel, dim3 grid, dim3 block, size_t smem_bytes,
            const std::function<void()>& thread);
void allow_smem(const void* kernel, size_t bytes);
unsigned char* shared();            // of the block that runs: its dynamic shared memory
void* static_shared(size_t bytes);  // and its static one, of one variable
void sync_block();
void sync_warp();

// What all lanes of a warp do together: once the last has come, run(lanes) sees each one's `lane`.
void together(void (*run)(void* const* lanes), void* lane);

void copy_async(uint32_t target, const void* source, uint32_t bytes, uint32_t source_bytes);
void commit_copies();
void wait_copies(int pending_groups);

void bulk_store(uint64_t target, uint32_t source, uint32_t bytes);
void commit_bulk_stores();
void wait_bulk_stores(int pending_groups);

// The sum of a product of matrices: exact, then cut to float towards zero, as tensor cores do.
inline float truncate(double sum) {
    const float nearest = static_cast<float>(sum);
    const bool beyond = std::isfinite(nearest) && std::fabs(static_cast<double>(nearest)) > std::fabs(sum);
    return beyond ? std::nextafter(nearest, 0.0f) : nearest;
}

inline double operand(uint32_t word, int, float) { return bits_as<float>(word & 0xFFFFE000); }
inline double operand(uint32_t word, int half, __half) {
    return __half2float({static_cast<uint16_t>(word >> 16 * half)});
}
inline double operand(uint32_t word, int half, __nv_bfloat16) {
    return __bfloat162float({static_cast<uint16_t>(word >> 16 * half)});
}

struct MmaLane {
    float* sum;
    uint32_t a[4], b[2];
};

// In the lanes' layout that mma.cuh describes.
template <class Element>
void mma(void* const* lanes) {
    constexpr int kPerWord = 4 / sizeof(Element), kDepth = 8 * kPerWord;
    double a[16][kDepth], b[8][kDepth];
    for (int lane = 0; lane < 32; ++lane) {
        const MmaLane& from = *static_cast<const MmaLane*>(lanes[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < kPerWord; ++i) {
            for (int word = 0; word < 4; ++word)
                a[g + word % 2 * 8][(t + word / 2 * 4) * kPerWord + i] = operand(from.a[word], i, Element{});
            for (int word = 0; word < 2; ++word)
                b[g][(t + word * 4) * kPerWord + i] = operand(from.b[word], i, Element{});
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        float* sum = static_cast<const MmaLane*>(lanes[lane])->sum;
        for (int i = 0; i < 4; ++i) {
            double exact = sum[i];
            for (int k = 0; k < kDepth; ++k) exact += a[lane / 4 + i / 2 * 8][k] * b[lane % 4 * 2 + i % 2][k];
            sum[i] = truncate(exact);
        }
    }
}

// A product of wgmma.cuh, as far as this warp's rows of it go; at once, so that missing waits do not show.
enum class Operand { tf32, f16, bf16 };
struct WgmmaLane {
    float* d;
    uint64_t a, b;
    bool acc;
};

// Number k of row `row` of a K-major operand of 16-bit numbers, by its descriptor.
inline uint16_t wgmma_operand(uint64_t descriptor, int row, int k) {
    const uint32_t start = static_cast<uint32_t>(descriptor & 0x3FFF) * 16;
    const uint32_t leading = static_cast<uint32_t>(descriptor >> 16 & 0x3FFF) * 16;
    const uint32_t group = static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) * 16;
    uint32_t address;
    if (descriptor >> 62 == 1) {  // rows of 128 bytes, swizzled
        address = start + row / 8 * group + row % 8 * 128 + k * 2;
        address ^= (address >> 7 & 7) << 4;
    } else {
        address = start + row / 8 * group + k / 8 * leading + row % 8 * 16 + k % 8 * 2;
    }
    uint16_t bits;
    memcpy(&bits, shared() + address, sizeof(bits));
    return bits;
}

template <class Element, int kN>
void wgmma(void* const* lanes) {
    constexpr int kDepth = 16;
    const auto number = [](uint16_t bits) { return operand(bits, 0, Element{}); };
    const int first_row = threadIdx.x / 32 % 4 * 16;
    double a[16][kDepth], b[kN][kDepth];
    const WgmmaLane& any = *static_cast<const WgmmaLane*>(lanes[0]);
    for (int k = 0; k < kDepth; ++k) {
        for (int row = 0; row < 16; ++row) a[row][k] = number(wgmma_operand(any.a, first_row + row, k));
        for (int row = 0; row < kN; ++row) b[row][k] = number(wgmma_operand(any.b, row, k));
    }
    for (int lane = 0; lane < 32; ++lane) {
        const WgmmaLane& to = *static_cast<const WgmmaLane*>(lanes[lane]);
        for (int i = 0; i < kN / 2; ++i) {
            const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            double exact = to.acc ? to.d[i] : 0;
            for (int k = 0; k < kDepth; ++k) exact += a[row][k] * b[column][k];
            to.d[i] = truncate(exact);
        }
    }
}

template <class Value>
struct Shuffle {
    Value own, got;
    int argument;
};

int change_unwatched(int* place, int value);  // the larger of both; returns what was there

}  // namespace emulator

inline void __syncthreads() { emulator::sync_block(); }
inline void __syncwarp() { emulator::sync_warp(); }
inline bool __all_sync(uint32_t, bool vote) {
    emulator::together(
        [](void* const* lanes) {
            bool all = true;
            for (int i = 0; i < 32; ++i) all = all && *static_cast<bool*>(lanes[i]);
            for (int i = 0; i < 32; ++i) *static_cast<bool*>(lanes[i]) = all;
        },
        &vote);
    return vote;
}

// What a lane gets of a warp's values.
template <class Choose>
uint32_t exchange(uint32_t value, Choose) {
    emulator::together(
        [](void* const* lanes) {
            uint32_t values[32];
            for (int i = 0; i < 32; ++i) values[i] = *static_cast<uint32_t*>(lanes[i]);
            for (int i = 0; i < 32; ++i) *static_cast<uint32_t*>(lanes[i]) = Choose{}(values, i);
        },
        &value);
    return value;
}
inline uint32_t __reduce_max_sync(uint32_t, uint32_t value) {
    struct Largest {
        uint32_t operator()(const uint32_t* values, int) { return *std::max_element(values, values + 32); }
    };
    return exchange(value, Largest{});
}
inline uint32_t __reduce_min_sync(uint32_t, uint32_t value) {
    struct Smallest {
        uint32_t operator()(const uint32_t* values, int) { return *std::min_element(values, values + 32); }
    };
    return exchange(value, Smallest{});
}
template <class Value>
Value __shfl_xor_sync(uint32_t, Value value, int distance) {
    emulator::Shuffle<Value> lane = {value, value, distance};
    emulator::together(
        [](void* const* lanes) {
            for (int i = 0; i < 32; ++i) {
                auto* to = static_cast<emulator::Shuffle<Value>*>(lanes[i]);
                to->got = static_cast<emulator::Shuffle<Value>*>(lanes[i ^ to->argument])->own;
            }
        },
        &lane);
    return lane.got;
}
template <class Value>
Value __shfl_sync(uint32_t, Value value, int from) {
    emulator::Shuffle<Value> lane = {value, value, from};
    emulator::together(
        [](void* const* lanes) {
            for (int i = 0; i < 32; ++i) {
                auto* to = static_cast<emulator::Shuffle<Value>*>(lanes[i]);
                to->got = static_cast<emulator::Shuffle<Value>*>(lanes[to->argument])->own;
            }
        },
        &lane);
    return lane.got;
}

template <class Value>
Value __ldg(const Value* pointer) {
    return *pointer;
}

// Atomic, as threads change places at waits only.
inline int atomicMax(int* place, int value) { return emulator::change_unwatched(place, value); }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;
struct cudaFuncAttributes {
    size_t sharedSizeBytes;
};
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "an error"; }
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
    attributes->sharedSizeBytes = 64;  // more than any kernel's static shared memory
    return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, int, int bytes) {
    emulator::allow_smem(reinterpret_cast<const void*>(kernel), bytes);
    return cudaSuccess;
}

// The instructions of ptx.cuh and mma.cuh, by the same names.
namespace conv1d {
namespace ptx {
inline int32_t anew(int32_t value) { return value; }
template <class Value>
void settle(Value&) {}

inline uint32_t smem_address(const void* pointer) {
    return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - emulator::shared());
}
inline void cp_async_16(uint32_t target, const void* source, uint32_t source_bytes) {
    emulator::copy_async(target, source, 16, source_bytes);
}
template <int kBytes>
void cp_async(uint32_t target, const void* source, uint32_t source_bytes) {
    static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "no other size exists");
    emulator::copy_async(target, source, kBytes, source_bytes);
}
inline void cp_async_commit_group() { emulator::commit_copies(); }
template <int kPending>
void cp_async_wait_group() {
    emulator::wait_copies(kPending);
}
inline void cp_async_wait_all() {
    emulator::commit_copies();
    emulator::wait_copies(0);
}

inline void cp_async_bulk_store(uint64_t target, uint32_t source, uint32_t bytes) {
    emulator::bulk_store(target, source, bytes);
}
inline void cp_async_bulk_commit() { emulator::commit_bulk_stores(); }
template <int kPending>
void cp_async_bulk_wait_read() {
    emulator::wait_bulk_stores(kPending);
}

inline uint32_t cvt_rna_tf32(float value) {
    const uint32_t bits = __float_as_uint(value);
    if (!std::isfinite(value)) return value != value ? 0x7FFFFFFF : bits;
    return (bits + 0x1000) & 0xFFFFE000;
}

template <class Element>
void mma(float (&sum)[4], const uint4& a, const uint2& b) {
    emulator::MmaLane lane = {sum, {a.x, a.y, a.z, a.w}, {b.x, b.y}};
    emulator::together(emulator::mma<Element>, &lane);
}

// A lane reads the row whose address it gives: 8 elements of 16 bits.
template <bool kTransposed>
void ldmatrix(uint32_t (&words)[4], uint32_t source) {
    struct Lane {
        uint16_t row[8];
        uint16_t words[4][2];
    };
    Lane lane;
    const uint4 row = *reinterpret_cast<const uint4*>(emulator::shared() + source);
    memcpy(lane.row, &row, sizeof(row));
    emulator::together(
        [](void* const* lanes) {
            for (int i = 0; i < 64 * 4; ++i) {
                const int to = i / 2 % 32, m = i / 64, across = to % 4 * 2 + i % 2, along = to / 4;
                const int from = kTransposed ? across : along, at = kTransposed ? along : across;
                static_cast<Lane*>(lanes[to])->words[m][i % 2] =
                    static_cast<const Lane*>(lanes[8 * m + from])->row[at];
            }
        },
        &lane);
    memcpy(words, lane.words, sizeof(words));
}
inline void ldmatrix_x4(uint32_t (&words)[4], uint32_t source) { ldmatrix<false>(words, source); }
inline void ldmatrix_x4_trans(uint32_t (&words)[4], uint32_t source) { ldmatrix<true>(words, source); }

inline void fence_proxy_async() {}
inline void wgmma_fence() {}
inline void wgmma_commit_group() {}
template <int kPending>
void wgmma_wait_group() {}
inline uint64_t wgmma_descriptor(uint32_t smem16) { return uint64_t{1} << 62 | uint64_t{64} << 32 | smem16; }
inline uint64_t wgmma_descriptor_plain(uint32_t smem16) { return uint64_t{8} << 32 | 8 << 16 | smem16; }

template <class Value>
void st_shared(uint32_t target, Value value) {
    *reinterpret_cast<Value*>(emulator::shared() + target) = value;
}
template <class Value>
void st_global(void* target, Value value) {
    *static_cast<Value*>(target) = value;
}
// Reads a byte, so that a prefetch outside of x is found.
inline void prefetch_l2(const void* source) { *static_cast<const volatile unsigned char*>(source); }

inline void st_shared_apart(uint32_t target, float2 pair) {
    st_shared(target, pair.x);
    st_shared(target + 4, pair.y);
}
inline void st_shared_apart(uint32_t target, uint32_t pair) {
    st_shared(target, static_cast<uint16_t>(pair));
    st_shared(target + 2, static_cast<uint16_t>(pair >> 16));
}

}  // namespace ptx

using emulator::Operand;
template <Operand kOperand, int kN>
struct Wgmma {
    static void issue(float (&d)[kN / 2], uint64_t a, uint64_t b, bool acc) {
        using Element = std::conditional_t<kOperand == Operand::f16, __half, __nv_bfloat16>;
        emulator::WgmmaLane lane = {d, a, b, acc};
        emulator::together(emulator::wgmma<Element, kN>, &lane);
    }
};

}  // namespace conv1d
