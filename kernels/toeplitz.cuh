// Depthwise convolution on tensor cores: one input channel a group, stride 1, any taps and dilation, 16-bit
// dtypes and TF32, sm_80 and later. Bound by memory up to some hundred taps.
//
// A strip is 8 neighbours of y. With row m of A the x from strip m on and T[k][n] = w[k-n] (zero where there
// is no such tap; taps of a dilated filter have zeros between them):
//
//   y[8*m + n] = sum over k of x[8*m + k] * T[k][n]
//
// A product m16n8k16 (of TF32, m16n8k8) adds 16 (8) of the K + 7 (and one for odd padding) numbers k to 16
// strips. These lie in 16 stretches of y, one strip in each, so that the strip of the next product is the
// stretch's next: a register of x serves 7 or 8 products.
//
// A warp takes 16 stretches of up to 7 strips, a block some warps, of one row of y or of several. x comes to
// shared memory as it lies in global memory, by 16-byte copies that need no registers; y is put in order
// there. A zero of T times inf or NaN of x is NaN: outputs that are NaN are summed again, by multiply-adds.
#pragma once
#include <algorithm>

#include "problem.h"
#include "mma.cuh"
#include "ptx.cuh"
#include "tile.cuh"

namespace conv1d {
namespace toeplitz {

constexpr int kStrip = 8;       // positions
constexpr int kStretches = 16;  // of a warp: the rows of a product
constexpr int kRowsWarps = 4;   // of a block of several rows, at most
constexpr int kMaxRounds = 16;  // samples of a block, of
constexpr int kFewSteps = 64;   // no more products in a row: of more, loads cost nothing
constexpr int kMaxO = 4;
constexpr int kMaxTiles = 7;     // strips of a stretch. Odd, so that 8 stretches begin in different banks
constexpr int kMaxWarps = 8;     // of a block
// Of kMaxWarps, that share a multiprocessor: 80 registers a thread. ptxas spills for later architectures.
constexpr int blocks_per_sm(int arch) { return arch >= 100 ? 2 : 3; }
#ifdef __CUDA_ARCH__
constexpr int kBlocksPerSm = blocks_per_sm(__CUDA_ARCH__ / 10);
#else
constexpr int kBlocksPerSm = 1;  // the host compiles no kernel
#endif
constexpr int kFewTaps = 8, kFarTaps = 16, kNearBytes = 1536;  // see prefers_sums
constexpr int kGapTaps = 128, kGapTaps16 = 32;  // likewise where x has gaps, of floats and in 16 bits
constexpr int kAlignBytes = 32;  // where the stores of a warp begin: of parts of sectors, L2 takes fewer

template <class Element_>
struct Traits {
    using Element = Element_;
    static constexpr bool k16Bit = sizeof(Element) == 2;
    static constexpr int kWide = 16 / sizeof(Element);
    static constexpr int kDepth = 32 / sizeof(Element);          // of a product
    static constexpr int kStepStrips = kDepth / kStrip;          // by which a step moves the window
    static constexpr int kWindow = kMaxTiles + kStepStrips - 1;  // strips that the products of one step read
    static constexpr int kRotation = kWindow / kStepStrips;      // steps after which registers' roles repeat
    static constexpr int kWCopies = k16Bit ? 2 : 1;
    // 16-bit rows fit below the 48 KB that need no permission; of long rows of floats two blocks share an SM.
    static constexpr int kSmemBytes = k16Bit ? kPlainSmemBytes : 112 << 10;
    static_assert(kWindow % kStepStrips == 0, "a rotation must be whole steps");
};

// Two neighbours, as products take them.
template <class Element>
struct PairOf {
    using Type = uint32_t;
};
template <>
struct PairOf<float> {
    using Type = uint2;
};

struct Params {
    Problem problem;
    uint32_t channels;        // of y: G*O
    uint32_t channel_blocks;  // of rows_per_block channels each
    uint32_t segments;        // of a row of y, each the work of warps_per_row warps
    int32_t rows_per_block;
    int32_t warps_per_row;
    uint32_t rounds;    // samples that a block takes, one after the other
    int32_t x_buffers;  // 2 where these may be several
    int32_t tiles;      // strips of a stretch
    int32_t steps;      // products from tap 0 to the last
    int32_t x_elems;    // shared memory of a row's x
    int32_t w_elems;    // of one of the copies, or parts, of its taps
    int32_t row_bytes;  // of all: visits, x, w, y
};

// A row of one sample, as its warps see it. Computed once and kept in shared memory, where it costs no
// registers. Places in y and x count from `y` and `x`.
template <class Element>
struct alignas(16) Visit {
    const Element* x;  // aligned where rows are without gaps: at or up to 7 before the x under y and tap 0
    Element* y;        // of the segment's first position
    int32_t x_first;   // the x under y and tap 0
    int32_t x_begin, x_end;  // where the input row begins and ends
    int32_t y_end;           // what is stored
    int32_t y_shift;         // how far y is from aligned
    int32_t w_shift;         // how far T is moved down, so that pairs of x are aligned in most rows: 0 or 1
    float bias;              // of the channel
    const Element* w;        // the channel's taps
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// Which products are summed together must not depend on where a row lies in memory: strips begin with y's
// position 0, and T moves by what the padding asks for.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ Visit<Element> plan_visit(const Params& params, uint32_t n, uint32_t channel,
                                                     int64_t segment_first, int strips) {
    constexpr int kWide = Traits::kWide;
    const Problem& problem = params.problem;
    const uint32_t c = channel / static_cast<uint32_t>(problem.O);
    Visit<Element> visit;
    visit.y =
        static_cast<Element*>(problem.y) + (n * static_cast<int64_t>(params.channels) + channel) * problem.P;
    visit.y_shift = misalignment<kAlignBytes / sizeof(Element)>(visit.y);
    visit.y += segment_first;
    visit.y_end = static_cast<int>(min(problem.P - segment_first, int64_t{strips * kStrip}));
    visit.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n + c * problem.x_stride_c;
    int64_t l_first = segment_first - problem.pad_left;
    visit.x_first = problem.x_stride_l == 1 ? misalignment<kWide>(visit.x + l_first) : 0;
    visit.w_shift = static_cast<int>(problem.pad_left % 2);
    if (visit.x_first < visit.w_shift) visit.x_first += kWide;
    l_first -= visit.x_first;
    visit.x += l_first * problem.x_stride_l;
    const Inside inside = inside_row(l_first, problem.L, params.x_elems);
    visit.x_begin = inside.begin;
    visit.x_end = inside.end;
    if (channel >= params.channels) {
        visit.x_begin = visit.x_end = visit.y_end = 0;
        return visit;
    }
    visit.w = static_cast<const Element*>(problem.w) + channel * problem.K;
    visit.bias = problem.bias == nullptr ? 0 : widen(static_cast<const Element*>(problem.bias)[channel]);
    return visit;
}

// Starts to bring the x of a visit. Rows without gaps come in chunks of 16 bytes: by copies, which can put
// zeros in the place of all, or, where a row begins or ends inside of one, element by element, as rows with
// gaps do.
template <class Element>
__device__ __forceinline__ void fetch_x(const Visit<Element>& visit, int64_t x_stride_l, int count,
                                        Element* x_smem, int thread, int threads) {
    constexpr int kWide = 16 / sizeof(Element);
    const int x_begin = visit.x_begin, x_end = visit.x_end;
    if (x_stride_l == 1) {
        const Element* x = visit.x + thread * kWide;
        uint32_t target = ptx::smem_address(x_smem + thread * kWide);
#pragma unroll 1
        for (int i = thread * kWide; i < count; i += threads * kWide) {
            const int begin = max(x_begin - i, 0), end = min(x_end - i, kWide);  // of this chunk
            const bool is_whole = begin == 0 && end == kWide;
            if (is_whole || begin >= end) {
                ptx::cp_async_16(target, x, is_whole ? 16 : 0);
            } else {
                Vector<Element, kWide> some;
#pragma unroll
                for (int j = 0; j < kWide; ++j)
                    some.at[j] = j >= begin && j < end ? x[j] : narrow<Element>(0);
                *reinterpret_cast<Vector<Element, kWide>*>(x_smem + i) = some;
            }
            x += threads * kWide;
            target += threads * 16;
        }
    } else {
        constexpr int kBatch = 4;  // loads in flight
#pragma unroll 1
        for (int i = thread; i < count; i += kBatch * threads) {
            Element values[kBatch];
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                const int at = i + j * threads;
                values[j] = at >= x_begin && at < x_end ? visit.x[at * x_stride_l] : narrow<Element>(0);
            }
#pragma unroll
            for (int j = 0; j < kBatch; ++j) {
                if (i + j * threads < count) x_smem[i + j * threads] = values[j];
            }
        }
    }
    ptx::cp_async_commit_group();
}

// The taps with the zeros around and between them: tap k at element kStrip + k*dilation. In 16 bits the
// second copy is one element ahead, so that any two neighbours are an aligned word of one of them.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void fetch_w(const Problem& problem, const Element* w, int w_elems,
                                        Element* w_smem, int thread, int threads) {
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 1
    for (int i = thread; i < w_elems; i += threads) {
        const uint32_t offset = i - kStrip;  // huge before tap 0
        const uint32_t k = offset / dilation;
        const bool tap = k < problem.K && k * dilation == offset;
        const Element value = tap ? w[k] : narrow<Element>(0);
        if constexpr (Traits::k16Bit) {
            w_smem[i] = value;
            if (i > 0) w_smem[w_elems + i - 1] = value;
        } else {
            w_smem[i] = __uint_as_float(ptx::cvt_rna_tf32(value));
        }
    }
}

// To TF32, to nearest, ties away from zero: the product cuts what is below. inf and NaN become NaN, which is
// mended: cvt.rna would keep them, in more instructions.
__device__ __forceinline__ uint32_t round_or_nan(float value) {
    return __float_as_uint(fmaf(value, 0.0f, __uint_as_float(__float_as_uint(value) + 0x1000)));
}

// A pair of x from shared memory; kApart: it is not aligned.
template <bool kApart, class Element>
__device__ __forceinline__ typename PairOf<Element>::Type load_x(const Element* x) {
    if constexpr (sizeof(Element) == 2) {
        if (!kApart) return *reinterpret_cast<const uint32_t*>(x);
        const uint32_t* const words = reinterpret_cast<const uint32_t*>(x - 1);
        return words[0] >> 16 | words[1] << 16;
    } else {
        float2 pair;
        if (kApart) pair = {x[0], x[1]};
        else pair = *reinterpret_cast<const float2*>(x);
        return {round_or_nan(pair.x), round_or_nan(pair.y)};
    }
}

// The x of a product: of the lower and the upper half of its rows, the window's strips from `strip` on.
template <int kWindow>
__device__ __forceinline__ uint4 x_frag(const uint32_t (&window)[2][kWindow], int strip) {
    const int lower = strip % kWindow, upper = (strip + 1) % kWindow;
    return {window[0][lower], window[1][lower], window[0][upper], window[1][upper]};
}
template <int kWindow>
__device__ __forceinline__ uint4 x_frag(const uint2 (&window)[2][kWindow], int strip) {
    const int at = strip % kWindow;
    return {window[0][at].x, window[1][at].x, window[0][at].y, window[1][at].y};
}

// Whether one of the numbers in 16 bytes may be NaN.
template <class Element>
__device__ __forceinline__ bool holds_nan(uint4 words) {
    if constexpr (sizeof(Element) == 4) {
        const float sum = __uint_as_float(words.x) + __uint_as_float(words.y) + __uint_as_float(words.z) +
                          __uint_as_float(words.w);
        return sum != sum;
    }
    constexpr uint32_t kInf = std::is_same<Element, __half>::value ? 0x7c00 : 0x7f80;
    constexpr uint32_t kCarry = (0x7fff - kInf) * 0x10001;  // lifts just what is above inf into the sign bit
    uint32_t seen = 0;
    seen |= (words.x & 0x7fff7fff) + kCarry;
    seen |= (words.y & 0x7fff7fff) + kCarry;
    seen |= (words.z & 0x7fff7fff) + kCarry;
    seen |= (words.w & 0x7fff7fff) + kCarry;
    return (seen & 0x80008000) != 0;
}

// The sums of a warp's outputs: of stretch group (+ 8) and strip `tile`, numbers 2*t and 2*t + 1.
template <class Traits, bool kApart, class Element = typename Traits::Element>
__device__ __forceinline__ void add_products(const Params& params, const Visit<Element>& visit,
                                             int strip_first, const Element* x_smem, const Element* w_smem,
                                             float (&sum)[kMaxTiles][4]) {
    using Pair = typename PairOf<Element>::Type;
    constexpr int kDepth = Traits::kDepth;
    constexpr int kStepStrips = Traits::kStepStrips, kWindow = Traits::kWindow;
    constexpr int kRotation = Traits::kRotation;
    const Problem& problem = params.problem;
    const int tiles = params.tiles;
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    const int x_begin = strip_first * kStrip + visit.x_first - visit.w_shift;
    // This lane's pair of the stretch's first strip, in A's upper half, and from there to the lower half.
    const Element* const x_lane = x_smem + x_begin + group * tiles * kStrip + 2 * t;
    const int half_elems = 8 * tiles * kStrip;
    const int w_first = kStrip + 2 * t - group - visit.w_shift;
    const Element* const w_lane =
        Traits::k16Bit ? w_smem + w_first % 2 * params.w_elems + w_first / 2 * 2 : w_smem + w_first;

    // Steps that see nothing but padding are left out.
    const int reach = x_begin + (kStretches * tiles - 1) * kStrip + kDepth;  // of step 0
    int step = max(visit.x_begin - reach, 0) / kDepth;
    const int steps_end = min(params.steps, (max(visit.x_end - x_begin, 0) + kDepth - 1) / kDepth);
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 1
    while (step < steps_end) {
        // A run of steps. Where taps lie far apart, those without a tap are left out: each tap is a run then.
        int run_end = steps_end;
        if (dilation >= kDepth + kStrip) {
            const uint32_t k = (max(step * kDepth - kStrip, 0) + dilation - 1) / dilation;
            if (k >= problem.K) break;
            const int tap = static_cast<int>(k * dilation);
            step = max(step, tap / kDepth);
            run_end = min(run_end, (tap + kStrip) / kDepth + 1);
        }
        Pair window[2][kWindow];  // strip i of the run's x in window[half][i % kWindow]
        const auto load_strip = [&](int strip, int place) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                window[half][place] = load_x<kApart>(x_lane + half * half_elems + strip * kStrip);
            }
        };
#pragma unroll
        for (int i = 0; i < kWindow - kStepStrips; ++i) load_strip(kStepStrips * step + i, i);
#pragma unroll 1
        for (; step < run_end; step += kRotation) {
#pragma unroll
            for (int r = 0; r < kRotation; ++r) {
                if (step + r >= run_end) break;
#pragma unroll
                for (int i = kWindow - kStepStrips; i < kWindow; ++i) {
                    load_strip(kStepStrips * (step + r) + i, (kStepStrips * r + i) % kWindow);
                }
                const uint32_t* w = reinterpret_cast<const uint32_t*>(w_lane + (step + r) * kDepth);
                const uint2 w_frag = {w[0], w[Traits::k16Bit ? kStrip / 2 : 1]};
                // Also beyond `tiles`: what comes of it is not stored.
#pragma unroll
                for (int tile = 0; tile < kMaxTiles; ++tile) {
                    ptx::mma<Element>(sum[tile], x_frag(window, kStepStrips * r + tile), w_frag);
                }
            }
        }
        step = run_end;
    }
}

// Puts a warp's sums in order. kApart: pairs are not aligned.
template <bool kApart, class Element>
__device__ __forceinline__ void stage_y(const float (&sum)[kMaxTiles][4], float bias, int tiles, int y_shift,
                                        Element* y_smem) {
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
#pragma unroll
    for (int tile = 0; tile < kMaxTiles; ++tile) {
        if (tile >= tiles) break;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Vector<Element, 2> pair;
            pair.at[0] = narrow<Element>(sum[tile][2 * half] + bias);
            pair.at[1] = narrow<Element>(sum[tile][2 * half + 1] + bias);
            Element* const target = y_smem + y_shift + ((half * 8 + group) * tiles + tile) * kStrip + 2 * t;
            if constexpr (kApart) {
                target[0] = pair.at[0];
                target[1] = pair.at[1];
            } else {
                *reinterpret_cast<Vector<Element, 2>*>(target) = pair;
            }
        }
    }
}

// x or w as it is multiplied.
template <class Traits>
__device__ __forceinline__ float operand(typename Traits::Element value) {
    if constexpr (!Traits::k16Bit) return __uint_as_float(ptx::cvt_rna_tf32(value));
    else return widen(value);
}

// Sums again those of the outputs [begin, end) that are NaN; `x` is under output 0 and tap 0.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void mend(const Problem& problem, const Visit<Element>& visit, const Element* x,
                                     int begin, int end, Element* y_smem) {
    const int taps = static_cast<int>(problem.K), dilation = static_cast<int>(problem.dilation);
#pragma unroll 1
    for (int i = begin; i < end; ++i) {
        float sum = widen(y_smem[i]);
        if (sum == sum) continue;
        sum = visit.bias;
#pragma unroll 1
        for (int k = 0; k < taps; ++k)
            sum += operand<Traits>(visit.w[k]) * operand<Traits>(x[i + k * dilation]);
        y_smem[i] = narrow<Element>(sum);
    }
}

// Stores a row's strips, 16 bytes a thread of the row.
template <class Traits, class Element = typename Traits::Element>
__device__ __forceinline__ void store_y(const Params& params, const Visit<Element>& visit,
                                        const Element* x_smem, Element* y_smem, int thread, int threads) {
    constexpr int kWide = Traits::kWide;
    const Activation activation = params.problem.activation;
#pragma unroll 1
    for (int i = thread * kWide; i < visit.y_end + visit.y_shift; i += threads * kWide) {
        const int first = i - visit.y_shift;  // aligned in y and in y_smem
        Element* const values = y_smem + i;
        const int begin = max(-first, 0), end = min(visit.y_end - first, kWide);
        if (holds_nan<Element>(*reinterpret_cast<const uint4*>(values))) {
            mend<Traits>(params.problem, visit, x_smem + visit.x_first + first, begin, end, values);
        }
        if (activation != Activation::none) {
#pragma unroll 1
            for (int j = 0; j < kWide; ++j) values[j] = activate<Element>(activation, widen(values[j]));
        }
        if (begin == 0 && end == kWide) {
            *reinterpret_cast<uint4*>(visit.y + first) = *reinterpret_cast<const uint4*>(values);
            continue;
        }
        const auto some = *reinterpret_cast<const Vector<Element, kWide>*>(values);
#pragma unroll
        for (int j = 0; j < kWide; ++j) {
            if (j >= begin && j < end) visit.y[first + j] = some.at[j];
        }
    }
}

#endif

template <class Traits>
__global__ void __launch_bounds__(kMaxWarps * 32, kBlocksPerSm)
    depthwise_toeplitz_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using Element = typename Traits::Element;
    extern __shared__ __align__(16) unsigned char smem[];
    const Problem& problem = params.problem;
    const int thread = threadIdx.x, threads = params.warps_per_row * 32;  // of a row
    const int strips = params.warps_per_row * kStretches * params.tiles;
    const int strip_first = thread / 32 * kStretches * params.tiles;  // of the warp

    // Rows and blocks are fewer than 2^31 (fits_toeplitz): divisions are of 32 bits.
    uint32_t block = blockIdx.x;
    int64_t segment_first = 0;
    if (params.segments > 1) {
        segment_first = block % params.segments * static_cast<int64_t>(strips * kStrip);
        block /= params.segments;
    }
    const uint32_t channel = block % params.channel_blocks * params.rows_per_block + threadIdx.y;
    const uint32_t n = block / params.channel_blocks * params.rounds;
    const int rounds = static_cast<int>(min(static_cast<uint32_t>(problem.N) - n, params.rounds));

    Visit<Element>* const visits = reinterpret_cast<Visit<Element>*>(smem + threadIdx.y * params.row_bytes);
    Element* const x_smem = reinterpret_cast<Element*>(visits + kMaxRounds);
    Element* const w_smem = x_smem + params.x_buffers * params.x_elems;
    Element* const y_smem = w_smem + Traits::kWCopies * params.w_elems;
    if (thread < rounds)
        visits[thread] = plan_visit<Traits>(params, n + thread, channel, segment_first, strips);
    __syncthreads();
    const int count = (strips + Traits::kStepStrips * params.steps + 1) * kStrip;
    fetch_x(visits[0], problem.x_stride_l, count, x_smem, thread, threads);
    if (channel < params.channels) {
        fetch_w<Traits>(problem, visits[0].w, params.w_elems, w_smem, thread, threads);
    }
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
        // The next sample's x comes while this one's is multiplied.
        ptx::cp_async_wait_group<0>();
        __syncthreads();
        if (round + 1 < rounds) {
            fetch_x(visits[round + 1], problem.x_stride_l, count, x_smem + (round + 1) % 2 * params.x_elems,
                    thread, threads);
        }
        const Visit<Element>& visit = visits[round];
        const Element* const x_now = x_smem + round % 2 * params.x_elems;
        if (strip_first * kStrip < visit.y_end) {
            float sum[kMaxTiles][4] = {};
            // Where a row begins at another parity than most do, pairs of x are not aligned.
            if ((visit.x_first - visit.w_shift) % 2 == 0) {
                add_products<Traits, false>(params, visit, strip_first, x_now, w_smem, sum);
            } else {
                add_products<Traits, true>(params, visit, strip_first, x_now, w_smem, sum);
            }
            Element* const y_warp = y_smem + strip_first * kStrip;
            if (visit.y_shift % 2 == 0) {
                stage_y<false>(sum, visit.bias, params.tiles, visit.y_shift, y_warp);
            } else {
                stage_y<true>(sum, visit.bias, params.tiles, visit.y_shift, y_warp);
            }
        }
        __syncthreads();  // the row is in order
        store_y<Traits>(params, visit, x_now, y_smem, thread, threads);
    }
#endif
}

// Positions that the taps span. Taps further apart than this fit no block's shared memory.
constexpr int64_t kMaxSpan = 1 << 14;
inline int64_t span(const Problem& problem) {
    const bool small = problem.K <= kMaxSpan && problem.dilation <= kMaxSpan;
    return small ? (problem.K - 1) * problem.dilation + 1 : kMaxSpan + 1;
}

template <class Traits>
int64_t smem_bytes(const Problem& problem) {
    return std::min<int64_t>(Traits::kSmemBytes, problem.device.smem_bytes);
}

// Rows of `warps`, in segments of at most `most` of them.
template <class Traits>
Params plan_segments(const Problem& problem, int64_t warps, int64_t tiles, int64_t most) {
    Params params{};
    params.problem = problem;
    const int64_t segments = ceil_div(warps, most);
    params.segments = static_cast<uint32_t>(segments);
    params.warps_per_row = static_cast<int32_t>(ceil_div(warps, segments));
    params.tiles = static_cast<int32_t>(tiles);
    params.steps = static_cast<int32_t>(ceil_div(span(problem) + kStrip, Traits::kDepth));
    const int64_t strips = params.warps_per_row * kStretches * tiles;
    // All that the last step reads, for the tiles that are not stored too, and some for x_first.
    params.x_elems =
        static_cast<int32_t>((strips + Traits::kStepStrips * params.steps + Traits::kWindow) * kStrip);
    // In 16 bits, the copies begin 16 banks apart.
    params.w_elems = static_cast<int32_t>(round_up(kStrip + params.steps * Traits::kDepth, 64) +
                                          (Traits::k16Bit ? 32 : 0));
    params.x_buffers = params.steps > kFewSteps ? 1 : 2;
    const int64_t y_elems = strips * kStrip + kAlignBytes / sizeof(typename Traits::Element);
    const int64_t elems =
        params.x_buffers * params.x_elems + Traits::kWCopies * params.w_elems + y_elems;
    params.row_bytes = static_cast<int32_t>(kMaxRounds * sizeof(Visit<typename Traits::Element>) +
                                            elems * sizeof(typename Traits::Element));
    return params;
}

// row_bytes is beyond smem_bytes where not even one warp's work fits.
template <class Traits>
Params plan(const Problem& problem) {
    const int64_t strips = ceil_div(problem.P, kStrip), room = smem_bytes<Traits>(problem);
    int64_t warps = ceil_div(strips, kStretches * kMaxTiles);
    // Few rows are cut further, until each multiprocessor has work.
    const int64_t channels = problem.G * problem.O, rows = problem.N * channels;
    while (rows * warps < 8 * problem.device.sm_count && strips > 2 * kStretches * warps) warps *= 2;
    // Then in segments of fewer warps, and in warps of fewer tiles, until shared memory suffices.
    Params params{};
    for (;; warps *= 2) {
        const int64_t tiles = ceil_div(strips, kStretches * warps) | 1;
        for (int64_t most = kMaxWarps; most > 0; most /= 2) {
            params = plan_segments<Traits>(problem, warps, tiles, most);
            if (params.row_bytes <= room) break;
        }
        if (params.row_bytes <= room || strips <= 2 * kStretches * warps) break;
    }
    params.rows_per_block = 1;
    if (params.segments == 1 && params.row_bytes <= room) {
        const int64_t most = std::min<int64_t>(kRowsWarps / warps, room / params.row_bytes);
        params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(most, 1));
    }
    params.channels = static_cast<uint32_t>(channels);
    params.channel_blocks = static_cast<uint32_t>(ceil_div(channels, params.rows_per_block));
    // So many rounds that waves of blocks are full; one more stands for what comes before the first.
    const int64_t most_rounds = params.x_buffers == 1 ? 1 : std::min<int64_t>(problem.N, kMaxRounds);
    const int64_t by_warps =
        blocks_per_sm(problem.device.arch) * kMaxWarps / (params.rows_per_block * params.warps_per_row);
    const int64_t by_smem =
        (problem.device.smem_bytes + 1024) / (params.rows_per_block * params.row_bytes + 1024);
    const int64_t at_once = std::max<int64_t>(std::min(by_warps, by_smem) * problem.device.sm_count, 1);
    int64_t least = 0;
    for (int64_t rounds = 1; rounds <= most_rounds; ++rounds) {
        const int64_t blocks = params.channel_blocks * params.segments * ceil_div(problem.N, rounds);
        const int64_t cost = ceil_div(blocks, at_once) * (rounds + 1);
        if (rounds > 1 && cost >= least) continue;
        least = cost;
        params.rounds = static_cast<uint32_t>(rounds);
    }
    return params;
}

template <class Traits>
Error launch(const Problem& problem, cudaStream_t stream) {
    const Params params = plan<Traits>(problem);
    if (!Traits::k16Bit) {
        const Error error = allow_smem<depthwise_toeplitz_kernel<Traits>>(problem.device);
        if (error != nullptr) return error;
    }
    const auto blocks = static_cast<unsigned>(ceil_div(params.problem.N, params.rounds) *
                                              params.channel_blocks * params.segments);
    const dim3 threads(params.warps_per_row * 32, params.rows_per_block);
    const int smem_bytes = params.rows_per_block * params.row_bytes;
    depthwise_toeplitz_kernel<Traits><<<blocks, threads, smem_bytes, stream>>>(params);
    return launch_error();
}

// Calls visit(traits) for what the problem asks for.
template <class Result, class Visitor>
Result with_traits(const Problem& problem, Visitor visit) {
    if (problem.dtype == Dtype::float16) return visit(Traits<__half>{});
    if (problem.dtype == Dtype::bfloat16) return visit(Traits<__nv_bfloat16>{});
    return visit(Traits<float>{});
}

// Where the next routes' multiply-adds are faster: of few taps that lie near each other or meet x, of short
// rows, of long sums for few positions (27x96x7185, K1782, dilation 4: 205 us by few_outputs, 813), and of
// floats some positions apart, whose T would be mostly zeros.
inline bool prefers_sums(const Problem& problem) {
    const bool is_float = problem.dtype == Dtype::float32, neighbours = problem.dilation == 1;
    const int64_t taps = std::min(problem.K, ceil_div(problem.L, problem.dilation));  // that can meet x
    const int64_t reach_bytes = (problem.K - 1) * problem.dilation * element_bytes(problem.dtype);
    const int64_t few = is_float ? (neighbours ? 32 : 12) : (neighbours ? 16 : 8);
    if (problem.x_stride_l == 1 && problem.K <= few && reach_bytes <= kNearBytes) return true;
    if (8 * taps <= problem.K || (6 * taps <= problem.K && problem.P <= 512)) return true;
    if (problem.P < 64 && problem.K >= 1000) return true;
    if (problem.P < (is_float ? 512 : 192) && taps <= (is_float ? 64 : 48)) return true;
    return is_float && (problem.K <= kFewTaps || (problem.dilation > 4 && problem.dilation < kFarTaps));
}

}  // namespace toeplitz

inline bool fits_toeplitz(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (problem.dtype == Dtype::float64 || problem.device.arch < 80) return false;
    const bool is_float = problem.dtype == Dtype::float32;
    if (is_float && problem.precision != Precision::tf32) return false;
    // Rows with gaps come element by element. Neighbouring channels the next route loads together.
    const bool by_channel = problem.x_stride_l != 1 && problem.x_stride_c == 1 && problem.G > 1;
    if (by_channel && problem.K <= (is_float ? toeplitz::kGapTaps : toeplitz::kGapTaps16)) return false;
    if (problem.C != 1 || problem.O > toeplitz::kMaxO || problem.stride != 1) return false;
    if (toeplitz::span(problem) > toeplitz::kMaxSpan || toeplitz::prefers_sums(problem)) return false;
    // A block takes at least a warp's work of a row, of which there are fewer than P / 16 + 1.
    if (problem.N * problem.G * problem.O * (problem.P / 16 + 1) > kMaxBlocks) return false;
    return toeplitz::with_traits<bool>(problem, [&](auto traits) {
        using Traits = decltype(traits);
        return toeplitz::plan<Traits>(problem).row_bytes <= toeplitz::smem_bytes<Traits>(problem);
    });
}

inline Error launch_toeplitz(const Problem& any_problem, cudaStream_t stream) {
    const Problem problem = canonical(any_problem);
    return toeplitz::with_traits<Error>(
        problem, [&](auto traits) { return toeplitz::launch<decltype(traits)>(problem, stream); });
}

}  // namespace conv1d
