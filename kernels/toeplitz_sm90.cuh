// Long depthwise filters on Hopper: one input channel a group, stride 1, from some hundred taps on; 16-bit
// dtypes, TF32, and float32 in full accuracy as three products of operands split into two fp16 numbers.
//
// In strips of 64 positions, y[64*m + r] = sum over j, k < 64 of w[64*j + k - r] * x[64*(m + j) + k]: for
// each j a product D[r][m] += A[r][k] * B[k][m] of wgmma. B's rows (strips of x) are 128 swizzled bytes,
// those of several samples side by side, so that the next j is the same tile some rows on. A's 8 x 8 parts
// depend only on how far k is from r: each is kept once, next to its neighbours, and with the parts of D's
// rows counted downwards both strides of A are that of one part. So w and x lie in shared memory once.
//
// A block takes one output channel of up to 8 samples: it fills shared memory, then its warpgroups take tiles
// of y in turn. float32 is scaled to fp16's range by the largest number of the row. inf and NaN meet
// zeros of A there: outputs that are NaN are summed again, as are small ones of rows with very small numbers.
#pragma once
#include <algorithm>

#include "problem.h"
#include "mma.cuh"
#include "ptx.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

namespace conv1d {
namespace toeplitz_sm90 {

constexpr int kStrip = 64;    // positions of y and x; taps of a j
constexpr int kColumns = 64;  // of a product: strips times samples
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxSamples = 8;
constexpr int kRowBytes = 128;
constexpr int kPartBytes = 128;   // of w: 8 x 8 numbers of 16 bits
constexpr int kBatch = 8;         // rows of x that a warp loads at once
constexpr int kLowBits = 11;      // by which the lower fp16 number is scaled up
constexpr float kTiny = 0x1p-12f;  // below, scaled numbers lose bits,
template <int kParts>
constexpr float kSmall = kParts == 2 ? 1 : 16;  // which sums of this, times taps, may show

// kSplit: into how many 16-bit numbers an operand is split.
template <class Element_, int kSplit>
struct Traits {
    using Element = Element_;
    static constexpr int kParts = kSplit;
    static constexpr int kBlocksPerSm = kParts == 1 ? 2 : 1;  // 64 registers a thread, or 128
    static constexpr bool kScaled = std::is_same<Element, float>::value;
    static constexpr Operand kOperand =
        std::is_same<Element, __nv_bfloat16>::value ? Operand::bf16 : Operand::f16;
};

struct Params {
    Problem problem;
    uint32_t sample_blocks, segments;
    int32_t samples_log2;  // of a block
    int32_t strips;        // of y, of a block: whole tiles
    int32_t taps_blocks;   // j
    int32_t x_strips;      // that shared memory has room for
    int32_t x_bytes;       // of one of x's numbers: x_strips times samples rows
    int32_t w_bytes;       // of one of w's
};

// What one block works on.
struct Work {
    const void* x;  // of its first sample, position 0
    const void* w;  // taps
    void* y;        // of its first sample and position
    int64_t p_first;
    int64_t l_first;  // under p_first and tap 0: x's strip 0
    int32_t samples;  // that there are
    int32_t strips_begin, strips_end;  // where x has numbers
    int32_t x_first;                   // strip of the first row in shared memory
    float bias;
};

// Behind x and w in shared memory.
struct Control {
    Work work;
    int32_t largest[kMaxSamples + 1];  // finite magnitude of a sample's x, and of w, as bits
    int32_t tiny[kMaxSamples + 1];     // whether there are numbers below kTiny
};

inline int64_t smem_bytes(const Params& params, int parts) {
    return 1024 + parts * (int64_t{params.x_bytes} + params.w_bytes) + static_cast<int64_t>(sizeof(Control));
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900

// The exponent that brings a row's largest magnitude to [2^14, 2^15).
__device__ __forceinline__ int scale_of(int largest) {
    return largest == 0 ? 0 : min(max(268 - (largest >> 23), 1), 254) - 127;
}
__device__ __forceinline__ float power_of_2(int exponent) { return __uint_as_float((exponent + 127) << 23); }

__device__ __forceinline__ int finite_magnitude(float value) {
    const int bits = static_cast<int>(__float_as_uint(value) & 0x7FFFFFFF);
    return bits < 0x7F800000 ? bits : 0;
}
// One warp: into `largest`, that of all its lanes.
__device__ __forceinline__ void keep_largest(int bits, int32_t* largest) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        bits = max(bits, __shfl_xor_sync(0xFFFFFFFF, bits, distance));
    }
    if (threadIdx.x % 32 == 0) atomicMax(largest, bits);
}

template <class Number>
__device__ __forceinline__ uint32_t pack(Number low, Number high) {
    Vector<Number, 2> pair;
    pair.at[0] = low;
    pair.at[1] = high;
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two neighbours of x or w as the 16-bit numbers of the product, the lower ones `part_bytes` further on.
template <class Traits>
__device__ __forceinline__ void store_pair(const typename Traits::Element (&values)[2], float scale,
                                           uint8_t* target, int part_bytes, int32_t* tiny) {
    if constexpr (!Traits::kScaled) {
        *reinterpret_cast<uint32_t*>(target) = pack(values[0], values[1]);
    } else {
        __half high[2], low[2];
        bool is_tiny = false;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float value = values[i] * scale;
            is_tiny |= value != 0 && fabsf(value) < kTiny;
            if (Traits::kParts == 1) value = __uint_as_float(ptx::cvt_rna_tf32(value));
            high[i] = __float2half_rn(value);
            low[i] = __float2half_rn((value - __half2float(high[i])) * (1 << kLowBits));
        }
        if (is_tiny) atomicMax(tiny, 1);
        *reinterpret_cast<uint32_t*>(target) = pack(high[0], high[1]);
        if (Traits::kParts == 2) *reinterpret_cast<uint32_t*>(target + part_bytes) = pack(low[0], low[1]);
    }
}

template <class Element>
__device__ __forceinline__ Work plan_work(const Params& params) {
    const Problem& problem = params.problem;
    const int all_samples = 1 << params.samples_log2;
    const uint32_t channel = blockIdx.x / params.segments / params.sample_blocks;
    const int64_t n_first = int64_t{blockIdx.x / params.segments % params.sample_blocks} * all_samples;
    Work work;
    work.samples = static_cast<int>(min(problem.N - n_first, int64_t{all_samples}));
    work.p_first = static_cast<int64_t>(blockIdx.x % params.segments) * params.strips * kStrip;
    work.l_first = work.p_first - problem.pad_left;
    work.x = static_cast<const Element*>(problem.x) + n_first * problem.x_stride_n +
             channel / static_cast<uint32_t>(problem.O) * problem.x_stride_c;
    work.w = static_cast<const Element*>(problem.w) + channel * problem.K;
    const int64_t row = n_first * problem.G * problem.O + channel;
    work.y = static_cast<Element*>(problem.y) + row * problem.P + work.p_first;
    work.bias = problem.bias == nullptr ? 0.0f : widen(static_cast<const Element*>(problem.bias)[channel]);
    const int most = params.strips + params.taps_blocks - 1;
    const Inside inside = inside_row(work.l_first, problem.L, most * kStrip);
    work.strips_begin = inside.begin / kStrip;
    work.strips_end = (inside.end + kStrip - 1) / kStrip;
    work.x_first = max(work.strips_begin - (kColumns / all_samples - 1), 0);
    return work;
}

// Two neighbours of a row of x in shared memory, from strip `strip`.
template <class Element>
__device__ __forceinline__ void load_pair(const Problem& problem, const Work& work, int sample, int strip,
                                          Element (&values)[2]) {
    const int64_t l = work.l_first + int64_t{strip} * kStrip + 2 * (threadIdx.x % 32);
    const Element* const x =
        static_cast<const Element*>(work.x) + sample * problem.x_stride_n + l * problem.x_stride_l;
    const bool wanted = sample < work.samples && strip < work.strips_end;
    values[0] = wanted && l >= 0 && l < problem.L ? x[0] : narrow<Element>(0);
    values[1] = wanted && l + 1 >= 0 && l + 1 < problem.L ? x[problem.x_stride_l] : narrow<Element>(0);
}

template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void fill_x(const Params& params, const Work& work, uint8_t* x_smem,
                                       Control* control) {
    const Problem& problem = params.problem;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int sample = warp % (1 << params.samples_log2);  // of all its rows
    const int rows = params.x_strips << params.samples_log2;
    float scale = 1;
    if constexpr (Traits::kScaled) {
        int largest = 0;
#pragma unroll 8
        for (int row = warp; row < rows; row += kWarps) {
            Element values[2];
            load_pair(problem, work, sample, work.x_first + (row >> params.samples_log2), values);
            largest = max(largest, max(finite_magnitude(values[0]), finite_magnitude(values[1])));
        }
        keep_largest(largest, &control->largest[sample]);
        __syncthreads();  // all warps of the sample have seen their rows
        scale = power_of_2(scale_of(control->largest[sample]));
    }
#pragma unroll 1
    for (int first = warp; first < rows; first += kBatch * kWarps) {
        Element values[kBatch][2];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            load_pair(problem, work, sample, work.x_first + ((first + i * kWarps) >> params.samples_log2),
                      values[i]);
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
            const int row = first + i * kWarps;
            if (row >= rows) break;
            uint8_t* const target = x_smem + row * kRowBytes + ((lane / 4) ^ (row % 8)) * 16 + lane % 4 * 4;
            store_pair<Traits>(values[i], scale, target, params.x_bytes, &control->tiny[sample]);
        }
    }
}

template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void fill_w(const Params& params, const Work& work, uint8_t* w_smem,
                                       Control* control) {
    const Problem& problem = params.problem;
    const Element* const w = static_cast<const Element*>(work.w);
    float scale = 1;
    if constexpr (Traits::kScaled) {
        int largest = 0;
#pragma unroll 4
        for (int k = threadIdx.x; k < problem.K; k += kThreads) {
            largest = max(largest, finite_magnitude(w[k]));
        }
        keep_largest(largest, &control->largest[kMaxSamples]);
        __syncthreads();
        scale = power_of_2(scale_of(control->largest[kMaxSamples]));
    }
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 4
    for (int i = threadIdx.x; i < params.w_bytes / 4; i += kThreads) {
        Element values[2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            // Of part i / 32, row i / 4 % 8 and column 2 * (i % 4) + j; part 7 has tap 0 at row 0, column 0.
            const uint32_t tap = (i / 32 - 7) * 8 + 2 * (i % 4) + j - i / 4 % 8, k = tap / dilation;
            values[j] = k < problem.K && k * dilation == tap ? w[k] : narrow<Element>(0);
        }
        store_pair<Traits>(values, scale, w_smem + i * 4, params.w_bytes, &control->tiny[kMaxSamples]);
    }
}

// The sum of one output by multiply-adds, in pieces, so that the error of many taps stays that of few.
template <class Traits>
__device__ __forceinline__ float sum_again(const Problem& problem, const typename Traits::Element* x,
                                        const typename Traits::Element* w, int64_t p) {
    constexpr bool kRounds = Traits::kScaled && Traits::kParts == 1;
    const auto operand = [](typename Traits::Element value) {
        if constexpr (kRounds) return __uint_as_float(ptx::cvt_rna_tf32(value));
        else return widen(value);
    };
    float sum = 0;
#pragma unroll 1
    for (int64_t first = 0; first < problem.K; first += 256) {
        float part = 0;
        const int64_t end = min(first + 256, problem.K);
#pragma unroll 1
        for (int64_t k = first; k < end; ++k) {
            const int64_t l = p + k * problem.dilation - problem.pad_left;
            if (l >= 0 && l < problem.L) part += operand(w[k]) * operand(x[l * problem.x_stride_l]);
        }
        sum += part;
    }
    return sum;
}

#endif

template <class Traits>
__global__ void __launch_bounds__(kThreads, Traits::kBlocksPerSm)
    depthwise_toeplitz_sm90_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 900
    using Element = typename Traits::Element;
    using Mma = Wgmma<Traits::kOperand, kColumns>;
    constexpr int kParts = Traits::kParts, kSums = kColumns / 2;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    uint8_t* const x_smem = smem + ((1024 - (ptx::smem_address(smem) & 1023)) & 1023);
    uint8_t* const w_smem = x_smem + kParts * params.x_bytes;
    static_assert(kPartBytes % alignof(Control) == 0, "what follows w must be aligned");
    Control* const control = reinterpret_cast<Control*>(w_smem + kParts * params.w_bytes);
    if (threadIdx.x <= kMaxSamples) control->largest[threadIdx.x] = control->tiny[threadIdx.x] = 0;
    const Work& work = control->work;
    if (threadIdx.x == 0) control->work = plan_work<Element>(params);
    __syncthreads();
    fill_w<Traits>(params, work, w_smem, control);
    fill_x<Traits>(params, work, x_smem, control);
    ptx::fence_proxy_async();
    __syncthreads();

    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const int tile_strips = kColumns >> params.samples_log2, all_samples = 1 << params.samples_log2;
    const int64_t sample_elems = problem.G * problem.O * problem.P;  // of y
    const uint32_t x16 = ptx::smem_address(x_smem) / 16, w16 = ptx::smem_address(w_smem) / 16;
#pragma unroll 1
    for (int strip = warp / 4 * tile_strips; strip < params.strips; strip += kThreads / 128 * tile_strips) {
        float sum[kSums] = {}, part[kSums] = {}, cross[kSums] = {};  // the latter two of split operands
        // Others see nothing but padding.
        const int j_begin = max(work.strips_begin - (strip + tile_strips - 1), 0);
        const int j_end = min(work.strips_end - strip, params.taps_blocks);
#pragma unroll 1
        for (int j = j_begin; j < j_end; ++j) {
            const uint32_t row = (strip + j - work.x_first) << params.samples_log2;
            const uint32_t x_tile = x16 + row * (kRowBytes / 16), w_tile = w16 + j * 8 * (kPartBytes / 16);
            ptx::wgmma_fence();
#pragma unroll
            for (int step = 0; step < 4; ++step) {  // of 16 taps
                const uint32_t x_at = x_tile + step * 2, w_at = w_tile + step * 2 * (kPartBytes / 16);
                const uint64_t x_high = ptx::wgmma_descriptor(x_at);
                const uint64_t w_high = ptx::wgmma_descriptor_plain(w_at);
                if constexpr (kParts == 1) {
                    Mma::issue(sum, w_high, x_high, true);
                } else {
                    const uint64_t x_low = ptx::wgmma_descriptor(x_at + params.x_bytes / 16);
                    const uint64_t w_low = ptx::wgmma_descriptor_plain(w_at + params.w_bytes / 16);
                    Mma::issue(cross, w_high, x_low, true);
                    Mma::issue(cross, w_low, x_high, true);
                    Mma::issue(part, w_high, x_high, step > 0);
                }
            }
            ptx::wgmma_commit_group();
            if constexpr (kParts == 2) {
                ptx::wgmma_wait_group<0>();
#pragma unroll
                for (int i = 0; i < kSums; ++i) sum[i] += part[i];
            }
        }
        ptx::wgmma_wait_group<0>();

        if constexpr (kParts == 2) {
#pragma unroll
            for (int i = 0; i < kSums; ++i) sum[i] += cross[i] * (1.0f / (1 << kLowBits));
        }

        // Of sum i: its sample and, in the block, its place in y. Parts of D's rows count downwards.
        const int64_t most = int64_t{params.strips} * kStrip;
        const int place_end = static_cast<int>(min(problem.P - work.p_first, most));
        const int place_lane = strip * kStrip + (7 - warp % 4 * 2) * 8 + lane / 4;
        const auto sample_of = [&](int i) { return (i / 4 * 8 + lane % 4 * 2 + i % 2) & (all_samples - 1); };
        const auto place_of = [&](int i) {
            const int strips_on = (i / 4 * 8 + lane % 4 * 2 + i % 2) >> params.samples_log2;
            return place_lane + strips_on * kStrip - i / 2 % 2 * 8;
        };
        Element* const y = static_cast<Element*>(work.y);
        uint32_t again = 0;  // bit i: that sum i is not right
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            if (sample_of(i) >= work.samples || place_of(i) >= place_end) continue;
            float value = sum[i];
            bool is_wrong = false;
            if constexpr (Traits::kScaled) {
                const bool tiny = (control->tiny[sample_of(i)] | control->tiny[kMaxSamples]) != 0;
                is_wrong = tiny && fabsf(value) < kSmall<kParts> * problem.K;
                value = ldexpf(value, -scale_of(control->largest[sample_of(i)]) -
                                          scale_of(control->largest[kMaxSamples]));
            }
            if (is_wrong || value != value) again |= 1u << i;
            y[sample_of(i) * sample_elems + place_of(i)] = narrow<Element>(value + work.bias);
        }
        if (again == 0 && problem.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = 0; i < kSums; ++i) {
            if (sample_of(i) >= work.samples || place_of(i) >= place_end) continue;
            Element* const target = y + sample_of(i) * sample_elems + place_of(i);
            if (again >> i & 1) {
                const Element* const x =
                    static_cast<const Element*>(work.x) + sample_of(i) * problem.x_stride_n;
                const Element* const w = static_cast<const Element*>(work.w);
                const float sum_i = sum_again<Traits>(problem, x, w, work.p_first + place_of(i));
                *target = narrow<Element>(sum_i + work.bias);
            }
            if (problem.activation != Activation::none) {
                *target = activate<Element>(problem.activation, widen(*target));
            }
        }
    }
#endif
}

inline int parts_of(const Problem& problem) {
    return problem.dtype == Dtype::float32 && problem.precision == Precision::ieee ? 2 : 1;
}

// From how many taps on the others are slower. In fp32 that depends on which they are: fold_sm80 where many
// outputs share a channel (sincnet, 251 taps: 0.27 ms here, 0.42 there), else depthwise.
inline int64_t min_taps(const Problem& problem) {
    if (parts_of(problem) == 1) return 512;
    return problem.O >= 16 ? 192 : 256;
}

constexpr int64_t kMaxSpan = 1 << 14;

// Tiles of y of all samples of an output channel, those that only fill a block up too.
inline int64_t tile_count(const Params& params) {
    const int64_t strips = params.sample_blocks * params.segments * int64_t{params.strips};
    return (strips << params.samples_log2) / kColumns;
}

// The plan of fewest tiles; taps_blocks is 0 where no block's shared memory suffices.
inline Params plan(const Problem& problem, int parts) {
    Params best{};
    const int64_t span = (problem.K - 1) * problem.dilation + 1;
    const int64_t taps_blocks = ceil_div(span + kStrip - 1, kStrip), all_strips = ceil_div(problem.P, kStrip);
    // Where one number is enough, two blocks share a multiprocessor: one multiplies while the other loads.
    const int64_t room = parts == 1 ? problem.device.smem_bytes / 2 - 1024 : problem.device.smem_bytes;
    for (int samples_log2 = 3; samples_log2 >= 0; --samples_log2) {
        const int64_t samples = int64_t{1} << samples_log2, tile_strips = kColumns / samples;
        const int64_t sample_blocks = ceil_div(problem.N, samples);
        for (int64_t segments = 1; segments <= ceil_div(all_strips, tile_strips); ++segments) {
            Params params{};
            params.problem = problem;
            params.sample_blocks = static_cast<uint32_t>(sample_blocks);
            params.samples_log2 = samples_log2;
            const int64_t strips = round_up(ceil_div(all_strips, segments), tile_strips);
            params.strips = static_cast<int32_t>(strips);
            params.segments = static_cast<uint32_t>(ceil_div(all_strips, strips));
            params.taps_blocks = static_cast<int32_t>(taps_blocks);
            const int64_t x_strips = std::min(strips + taps_blocks - 1,
                                              ceil_div(problem.L, kStrip) + 1 + 2 * (tile_strips - 1));
            params.x_strips = static_cast<int32_t>(x_strips);
            params.x_bytes = static_cast<int32_t>(round_up(x_strips * samples * kRowBytes, 1024));
            params.w_bytes = static_cast<int32_t>((8 * taps_blocks + 8) * kPartBytes);
            if (smem_bytes(params, parts) > room) continue;
            if (best.taps_blocks == 0 || tile_count(params) < tile_count(best)) best = params;
            break;
        }
    }
    return best;
}

template <class Traits>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Error error = allow_smem<depthwise_toeplitz_sm90_kernel<Traits>>(problem.device);
    if (error != nullptr) return error;
    const Params params = plan(problem, Traits::kParts);
    const auto blocks =
        static_cast<unsigned>(problem.G * problem.O * params.sample_blocks * params.segments);
    const int64_t bytes = smem_bytes(params, Traits::kParts);
    depthwise_toeplitz_sm90_kernel<Traits><<<blocks, kThreads, bytes, stream>>>(params);
    return launch_error();
}

}  // namespace toeplitz_sm90

inline bool fits_toeplitz_sm90(const Problem& problem) {
    using namespace toeplitz_sm90;
    if (problem.device.arch != 90 || problem.dtype == Dtype::float64) return false;
    if (problem.C != 1 || problem.stride != 1 || problem.dilation > 2) return false;
    if (problem.K < min_taps(problem)) return false;
    // Where few taps meet x: 3x531x41, K576, padding 287: 8 to 10 us by depthwise, 23 to 52 here.
    if (4 * ceil_div(problem.L, problem.dilation) <= problem.K && problem.P <= 512) return false;
    if (problem.K > kMaxSpan || problem.P > kMaxBlocks / kStrip || problem.N > kMaxBlocks) return false;
    if (problem.N * problem.G * problem.O * ceil_div(problem.P, kStrip) > kMaxBlocks) return false;
    // Nor where most products would be of nothing. Eight samples decide for any number.
    Problem some = problem;
    some.N = kMaxSamples;
    const Params params = plan(some, parts_of(problem));
    const int64_t most = ceil_div(some.N * ceil_div(some.P, kStrip), kColumns / 2);
    return params.taps_blocks > 0 && tile_count(params) <= most;
}

inline Error launch_toeplitz_sm90(const Problem& problem, cudaStream_t stream) {
    using namespace toeplitz_sm90;
    if (problem.dtype == Dtype::float16) return launch<Traits<__half, 1>>(problem, stream);
    if (problem.dtype == Dtype::bfloat16) return launch<Traits<__nv_bfloat16, 1>>(problem, stream);
    if (problem.precision == Precision::tf32) return launch<Traits<float, 1>>(problem, stream);
    return launch<Traits<float, 2>>(problem, stream);
}

}  // namespace conv1d
