// Runs the source of CUDA kernels on the CPU: one fiber a thread, the blocks of a launch side by side, in an
// order drawn at random. What is asynchronous on the GPU happens at a random moment between its issue and the
// wait that covers it; what must not be read in between is NaN. A wait that nothing will end is reported.
//
// Not modelled: fences (fence.proxy.async, fence.mbarrier_init), so their lack is not found; bank conflicts,
// register counts, time.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <vector>

namespace emulator {

// ---- chance ----
struct Random {
    uint64_t state;
    uint64_t next() {  // splitmix64
        uint64_t z = state += 0x9E3779B97F4A7C15;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        return z ^ z >> 31;
    }
    int64_t range(int64_t first, int64_t last) {
        return first + static_cast<int64_t>(next() % static_cast<uint64_t>(last - first + 1));
    }
    double real() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    bool chance(double probability) { return real() < probability; }
};

// How one launch runs; all are probabilities.
struct Schedule {
    uint64_t seed = 1;
    double warp_rests[16] = {};  // that the warp does nothing in a round
    double lane_rests = 0;       // the same of one of its lanes
    double yields = 0;           // that a thread pauses at an instruction that need not wait
    double copy_lands = 1;       // in a round, of a copy under way
    double late = 0;             // of a product, or of a thread's copy: not at issue but at the wait
};
extern Schedule schedule;
extern std::string about;  // what is being run, for reports
extern int broken;         // which of a test's deliberate faults the source shows; 0: none
extern int64_t few_warps;  // what divide_row takes for few: small problems have few whatever the number

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ---- launches ----
// The blocks of a launch with dynamic shared memory run side by side, others one after another, so that
// __shared__ variables may be static ones.
void launch(dim3 blocks, int threads, int64_t smem_bytes, cudaStream_t, const std::function<void()>& body);

struct Index {
    unsigned x = 0, y = 0;
};
extern Index thread_index, block_index, grid_size;
extern int cluster_size;  // blocks, of a launch

// ---- what a thread does ----
uint8_t* shared_memory();
uint32_t shared_address(const void* pointer);
void* shared_pointer(uint32_t address, int64_t bytes, int alignment);  // checked
void may_yield();
const uint64_t* exchange(const char* instruction, uint64_t value);  // the values of the warp's 32 lanes
bool elect();
void barrier_sync(int id, int threads);
void barrier_arrive(int id, int threads);
int block_threads();
void mbarrier_init(uint32_t barrier, uint32_t arrivals);
void mbarrier_arrive(uint32_t barrier, uint32_t transaction_bytes);
void mbarrier_wait(uint32_t barrier, uint32_t parity);
uint32_t cluster_rank();
uint32_t map_to_rank(uint32_t address, uint32_t rank);  // an address of the cluster
void mbarrier_arrive_cluster(uint32_t address);         // by such a one
void cluster_sync();
void copy_to_shared(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier, uint32_t blocks = 0);
// cp.async, of which zeros follow the first source_bytes, and its groups.
void copy_async(uint32_t target, const void* source, uint32_t bytes, uint32_t source_bytes);
void commit_copies();
void wait_copies(int pending);

// What cuTensorMapEncodeTiled would describe: a tensor of four axes, the one along memory first, and the box
// to load.
struct TensorMap {
    const uint8_t* base;
    int64_t element, extent[4], stride[4];  // strides in bytes
    int32_t box[4];
    bool swizzled;  // rows of 128 bytes
};
// To the same place in each block of the cluster that has a bit in `blocks`; 0: to this block alone.
void copy_box(uint32_t target, const TensorMap& map, const int32_t (&first)[4], uint32_t barrier,
              uint32_t blocks = 0);

enum class Number { tf32, f16, bf16 };
void wgmma_fence();
void wgmma_issue(Number number, int columns, float* d, uint64_t a, uint64_t b, bool accumulate);
void wgmma_issue(Number number, int columns, float* d, const uint32_t (&a)[4], uint64_t b, bool accumulate);
void wgmma_commit();
void wgmma_wait(int pending);

template <class To, class From>
To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace emulator

// ---- the CUDA language ----
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#undef __forceinline__
#undef __noinline__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__ inline
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define gridDim emulator::grid_size

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    using Common = std::common_type_t<A, B>;
    return static_cast<Common>(b) < static_cast<Common>(a) ? b : a;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    using Common = std::common_type_t<A, B>;
    return static_cast<Common>(a) < static_cast<Common>(b) ? b : a;
}
using std::isfinite;

inline float __uint_as_float(uint32_t bits) { return emulator::bit_cast<float>(bits); }
inline float __int_as_float(int32_t bits) { return emulator::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return emulator::bit_cast<uint32_t>(value); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
    return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> (shift & 31));
}
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
    const uint64_t bytes = uint64_t{high} << 32 | low;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i)
        result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i;
    return result;
}
template <class Value>
Value __ldg(const Value* pointer) {
    if (reinterpret_cast<uintptr_t>(pointer) % sizeof(Value) != 0) emulator::fail("misaligned __ldg");
    return *pointer;
}

template <class Value, class Change>
Value change_atomically(Value* place, Change change) {
    emulator::may_yield();
    const Value old = *place;
    *place = change(old);
    return old;
}
template <class Value>
Value atomicExch(Value* place, Value value) {
    return change_atomically(place, [&](Value) { return value; });
}
template <class Value>
Value atomicAdd(Value* place, Value value) {
    return change_atomically(place, [&](Value old) { return old + value; });
}
template <class Value>
Value atomicMax(Value* place, Value value) {
    return change_atomically(place, [&](Value old) { return old < value ? value : old; });
}
template <class Value>
Value atomicMin(Value* place, Value value) {
    return change_atomically(place, [&](Value old) { return value < old ? value : old; });
}

inline void __syncthreads() { emulator::barrier_sync(0, emulator::block_threads()); }
inline void __syncwarp() { emulator::exchange("__syncwarp", 0); }
template <class Value>
Value __shfl_sync(unsigned, Value value, int lane) {
    const uint64_t* const values = emulator::exchange("__shfl_sync", emulator::bit_cast<uint32_t>(value));
    return emulator::bit_cast<Value>(static_cast<uint32_t>(values[lane]));
}
inline int32_t __reduce_add_sync(unsigned, int32_t value) {
    const uint64_t* const values = emulator::exchange("__reduce_add_sync", static_cast<uint32_t>(value));
    uint64_t sum = 0;
    for (int lane = 0; lane < 32; ++lane) sum += values[lane];
    return static_cast<int32_t>(sum);
}
inline uint32_t __reduce_max_sync(unsigned, uint32_t value) {
    const uint64_t* const values = emulator::exchange("__reduce_max_sync", value);
    return static_cast<uint32_t>(*std::max_element(values, values + 32));
}
template <class Value>
Value __shfl_down_sync(unsigned, Value value, int lanes) {
    const int from = static_cast<int>(threadIdx.x % 32) + lanes;
    const uint64_t* const values = emulator::exchange("__shfl_down_sync", emulator::bit_cast<uint32_t>(value));
    return from < 32 ? emulator::bit_cast<Value>(static_cast<uint32_t>(values[from])) : value;
}
inline int __all_sync(unsigned, bool value) {
    const uint64_t* const values = emulator::exchange("__all_sync", value);
    int all = 1;
    for (int lane = 0; lane < 32; ++lane) all = all && values[lane];
    return all;
}
inline int __any_sync(unsigned, bool value) {
    const uint64_t* const values = emulator::exchange("__any_sync", value);
    int any = 0;
    for (int lane = 0; lane < 32; ++lane) any = any || values[lane];
    return any;
}

// The runtime, as far as launchers ask it something.
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
    *attributes = {};
    return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
    return cudaSuccess;
}
template <class Kernel, class... Values>
cudaError_t launch_kernel(const cudaLaunchConfig_t* config, Kernel* kernel, const Values&... values) {
    const auto& [blocks, threads, smem_bytes, stream, attributes, attribute_count] = *config;
    const std::function<void()> body = [&] { kernel(values...); };
    for (unsigned i = 0; i < attribute_count; ++i)
        if (attributes[i].id == cudaLaunchAttributeClusterDimension)
            emulator::cluster_size = static_cast<int>(attributes[i].val.clusterDim.x);
    emulator::launch(blocks, threads.x, static_cast<int64_t>(smem_bytes), stream, body);
    emulator::cluster_size = 1;
    return cudaSuccess;
}
#define cudaLaunchKernelEx launch_kernel
#define cudaGetLastError() cudaSuccess
#define cudaGetErrorString(error) "error"
