// Depthwise convolution on tensor cores: one input channel a group, stride 1, any taps and dilation, 16-bit
// dtypes, sm_80 and later. Bound by memory up to some hundred taps; FFMAs would bind from a dozen on.
//
// A strip is 8 neighbours of y, 16 aligned bytes. With row m of A the x from strip m on and T[k][n] = w[k-n]
// (zero where there is no such tap; taps of a dilated filter have zeros between them):
//
//   y[8*m + n] = sum over k of x[8*m + k] * T[k][n]
//
// A product m16n8k16 adds 16 of the K + 7 (and one for x at odd addresses) numbers k to 16 strips. These lie
// in 16 stretches of y, one strip in each, so that the strip of the next product is the next of the stretch:
// the upper half of its x (k >= 8) was the lower half there, and a register of x serves 8 products.
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
constexpr int kMaxTiles = 7;    // strips of a stretch. Odd, so that 8 stretches begin in different banks
constexpr int kDepth = 16;      // of a product
constexpr int kWindow = kMaxTiles + 1;  // strips that the products of one step read
constexpr int kRotation = kWindow / 2;  // steps after which the registers' roles repeat
constexpr int kMaxWarps = 8;            // of a block
constexpr int kRowsWarps = 4;           // of a block of several rows, at most
constexpr int kMaxRounds = 4;           // samples of a block, where
constexpr int kBlocks = 4;              // this many blocks a multiprocessor are left
constexpr int kSmemBytes = 46080;       // below the 48 KB that need no permission
constexpr int kMaxO = 4;
constexpr int kBlocksPerSm = 3;  // of kMaxWarps: 64 registers a thread
static_assert(kDepth == 2 * kStrip && kWindow % 2 == 0, "a step must move the window by two strips");

struct Params {
    Problem problem;
    uint32_t channels;        // of y: G*O
    uint32_t channel_blocks;  // of rows_per_block channels each
    uint32_t segments;        // of a row of y, each the work of warps_per_row warps
    int32_t rows_per_block;
    int32_t warps_per_row;
    uint32_t rounds;    // samples that a block takes, one after the other
    int32_t tiles;      // strips of a stretch
    int32_t steps;      // products from tap 0 to the last
    int32_t x_elems;    // shared memory of a row's x
    int32_t w_elems;    // of one of the two copies of its taps
    int32_t row_bytes;  // of all: visits, x of two samples, w twice, y
};

// A row of one sample, as its warps see it. Computed once and kept in shared memory, where it costs no
// registers. All places in y count from an aligned one, those in x from `x`.
template <class Element>
struct alignas(16) Visit {
    const Element* x;  // aligned where rows are without gaps: at or up to 7 before the x under y and tap 0
    Element* y;        // at or up to 7 before the segment's first
    int32_t x_first;   // the x under y and tap 0
    int32_t x_begin, x_end;  // where the input row begins and ends
    int32_t y_begin, y_end;  // what is stored
    float bias;              // of the channel; in its first visit
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <class Element>
__device__ __forceinline__ Visit<Element> plan_visit(const Params& params, uint32_t n, uint32_t channel,
                                                     int64_t segment_first, int strips) {
    const Problem& problem = params.problem;
    const uint32_t c = channel / static_cast<uint32_t>(problem.O);
    Visit<Element> visit;
    visit.y =
        static_cast<Element*>(problem.y) + (n * static_cast<int64_t>(params.channels) + channel) * problem.P;
    const int64_t p_first = segment_first - misalignment<kStrip>(visit.y);
    visit.y += p_first;
    visit.y_begin = static_cast<int>(max(-p_first, int64_t{0}));
    visit.y_end = static_cast<int>(min(problem.P - p_first, int64_t{strips * kStrip}));
    visit.x = static_cast<const Element*>(problem.x) + n * problem.x_stride_n + c * problem.x_stride_c;
    int64_t l_first = p_first - problem.pad_left;
    visit.x_first = problem.x_stride_l == 1 ? misalignment<kStrip>(visit.x + l_first) : 0;
    l_first -= visit.x_first;
    visit.x += l_first * problem.x_stride_l;
    const Inside inside = inside_row(l_first, problem.L, params.x_elems);
    visit.x_begin = inside.begin;
    visit.x_end = inside.end;
    if (channel >= params.channels) visit.x_begin = visit.x_end = visit.y_end = 0;
    return visit;
}

// Starts to bring the x of a visit. Rows without gaps come in chunks of 16 bytes. A copy can put zeros behind
// what it brings, not before: so the chunk in which the row begins, and all x of rows with gaps, go element
// by element.
template <class Element>
__device__ __forceinline__ void fetch_x(const Visit<Element>& visit, int64_t x_stride_l, int count,
                                        Element* x_smem, int thread, int threads) {
    const Element* x_gmem = visit.x;
    const int x_begin = visit.x_begin, x_end = visit.x_end;
    int single_begin = 0, single_end = count;
    if (x_stride_l == 1) {
        single_begin = x_begin / kStrip * kStrip;
        single_end = min((x_begin + kStrip - 1) / kStrip * kStrip, count);
        const Element* x = x_gmem + thread * kStrip;
        uint32_t target = ptx::smem_address(x_smem + thread * kStrip);
#pragma unroll 1
        for (int i = thread * kStrip; i < count; i += threads * kStrip) {
            const int within = i < x_begin ? 0 : min(max(x_end - i, 0), kStrip);
            if (i == single_begin && single_end > single_begin) {
                // Below.
            } else if (within % kStrip == 0) {
                ptx::cp_async_16(target, x, within * sizeof(Element));
            } else {  // the last of x: what lies behind in these 16 bytes is not ours
#pragma unroll 1
                for (int j = 0; j < kStrip; ++j) x_smem[i + j] = j < within ? x[j] : narrow<Element>(0);
            }
            x += threads * kStrip;
            target += threads * 16;
        }
    }
    constexpr int kBatch = 4;  // loads in flight
#pragma unroll 1
    for (int i = single_begin + thread; i < single_end; i += kBatch * threads) {
        Element values[kBatch];
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
            const int at = i + j * threads;
            values[j] = at >= x_begin && at < x_end ? x_gmem[at * x_stride_l] : narrow<Element>(0);
        }
#pragma unroll
        for (int j = 0; j < kBatch; ++j) {
            if (i + j * threads < single_end) x_smem[i + j * threads] = values[j];
        }
    }
    ptx::cp_async_commit_group();
}

// The taps with the zeros around and between them: tap k at element kStrip + k*dilation. The second copy is
// one element ahead, so that any two neighbours are an aligned word of one of them.
template <class Element>
__device__ __forceinline__ void fetch_w(const Problem& problem, const Element* w, int w_elems,
                                        Element* w_smem, int thread, int threads) {
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 1
    for (int i = thread; i < w_elems; i += threads) {
        const uint32_t offset = i - kStrip;  // huge before tap 0
        const uint32_t k = offset / dilation;
        const bool tap = k < problem.K && k * dilation == offset;
        const Element value = tap ? w[k] : narrow<Element>(0);
        w_smem[i] = value;
        if (i > 0) w_smem[w_elems + i - 1] = value;
    }
}

// Two 16-bit numbers of which one at least is NaN.
template <class Element>
__device__ __forceinline__ bool holds_nan(uint4 words) {
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
template <class Element>
__device__ __forceinline__ void add_products(const Params& params, const Visit<Element>& visit,
                                             int strip_first, const Element* x_smem, const Element* w_smem,
                                             float (&sum)[kMaxTiles][4]) {
    const Problem& problem = params.problem;
    const int tiles = params.tiles;
    const int lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
    // Words of x are aligned; where x is not, T is moved down by one.
    const int odd = visit.x_first % 2;
    const int x_begin = strip_first * kStrip + visit.x_first - odd;
    const uint32_t* x_words =  // this lane's word of the stretch's first strip, in the upper half of A
        reinterpret_cast<const uint32_t*>(x_smem + x_begin + group * tiles * kStrip) + t;
    const int half_words = 8 * tiles * (kStrip / 2);  // to that of the lower half
    const int w_first = kStrip + 2 * t - group - odd;
    const uint32_t* w_words =
        reinterpret_cast<const uint32_t*>(w_smem + w_first % 2 * params.w_elems + w_first / 2 * 2);

    // Steps that see nothing but padding are left out.
    const int reach = x_begin + (kStretches * tiles + 1) * kStrip;  // of step 0
    const int steps_begin = max(visit.x_begin - reach, 0) / kDepth;
    const int steps_end = min(params.steps, (max(visit.x_end - x_begin, 0) + kDepth - 1) / kDepth);
    const uint32_t dilation = static_cast<uint32_t>(problem.dilation);
#pragma unroll 1
    for (int step = steps_begin; step < steps_end;) {
        // A run of steps. Where taps lie far apart, those without a tap are left out: each tap is a run then.
        int run_end = steps_end;
        if (dilation >= kDepth + kStrip) {
            const uint32_t k = (max(step * kDepth - kStrip, 0) + dilation - 1) / dilation;
            if (k >= problem.K) break;
            const int tap = static_cast<int>(k * dilation);
            step = max(step, tap / kDepth);
            run_end = min(run_end, (tap + kStrip) / kDepth + 1);
        }
        uint32_t window[2][kWindow];  // strip i of the run's x in window[half][i % kWindow]
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int i = 0; i < kWindow - 2; ++i) {
                window[half][i] = x_words[half * half_words + (2 * step + i) * (kStrip / 2)];
            }
        }
#pragma unroll 1
        for (; step < run_end; step += kRotation) {
#pragma unroll
            for (int r = 0; r < kRotation; ++r) {
                if (step + r >= run_end) break;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
#pragma unroll
                    for (int i = kWindow - 2; i < kWindow; ++i) {
                        window[half][(2 * r + i) % kWindow] =
                            x_words[half * half_words + (2 * (step + r) + i) * (kStrip / 2)];
                    }
                }
                const uint32_t* w = w_words + (step + r) * (kDepth / 2);
                const uint2 w_frag = {w[0], w[kStrip / 2]};
                // Also beyond `tiles`: what comes of it is not stored.
#pragma unroll
                for (int tile = 0; tile < kMaxTiles; ++tile) {
                    const int lower = (2 * r + tile) % kWindow, upper = (2 * r + tile + 1) % kWindow;
                    const uint4 x_frag = {window[0][lower], window[1][lower], window[0][upper],
                                          window[1][upper]};
                    ptx::mma<Element>(sum[tile], x_frag, w_frag);
                }
            }
        }
        step = run_end;
    }
}

// Puts a warp's sums in order.
template <class Element>
__device__ __forceinline__ void stage_y(const float (&sum)[kMaxTiles][4], float bias, int tiles,
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
            const int strip = (half * 8 + group) * tiles + tile;
            reinterpret_cast<Vector<Element, 2>*>(y_smem + strip * kStrip)[t] = pair;
        }
    }
}

// Sums again those of a strip's outputs that are NaN, by multiply-adds; `x` is under the strip's first and
// tap 0.
template <class Element>
__device__ __forceinline__ void mend(const Problem& problem, const Element* x, const Element* w, float bias,
                                     Element* strip_smem) {
    const int taps = static_cast<int>(problem.K), dilation = static_cast<int>(problem.dilation);
#pragma unroll 1
    for (int i = 0; i < kStrip; ++i) {
        float sum = widen(strip_smem[i]);
        if (sum == sum) continue;
        sum = bias;
#pragma unroll 1
        for (int k = 0; k < taps; ++k) sum += widen(w[k * dilation]) * widen(x[i + k * dilation]);
        strip_smem[i] = narrow<Element>(sum);
    }
}

// Stores a warp's strips, 16 bytes a lane.
template <class Element>
__device__ __forceinline__ void store_y(const Params& params, const Visit<Element>& visit, int strip_first,
                                        const Element* x_smem, const Element* w_smem, float bias,
                                        Element* y_smem) {
    Element* const y = visit.y;
    const int y_begin = visit.y_begin, y_end = visit.y_end;
#pragma unroll 1
    for (int strip = threadIdx.x % 32; strip < kStretches * params.tiles; strip += 32) {
        const int first = (strip_first + strip) * kStrip;
        if (first >= y_end) break;
        Element* strip_smem = y_smem + strip * kStrip;
        if (holds_nan<Element>(*reinterpret_cast<const uint4*>(strip_smem))) {
            mend<Element>(params.problem, x_smem + visit.x_first + first, w_smem + kStrip, bias, strip_smem);
        }
        if (params.problem.activation != Activation::none) {
#pragma unroll 1
            for (int i = 0; i < kStrip; ++i)
                strip_smem[i] = activate<Element>(params.problem.activation, widen(strip_smem[i]));
        }
        if (first >= y_begin && first + kStrip <= y_end) {
            *reinterpret_cast<uint4*>(y + first) = *reinterpret_cast<const uint4*>(strip_smem);
            continue;
        }
#pragma unroll 1
        for (int i = max(y_begin - first, 0); i < min(y_end - first, kStrip); ++i) {
            y[first + i] = strip_smem[i];
        }
    }
}

#endif

template <class Element>
__global__ void __launch_bounds__(kMaxWarps * 32, kBlocksPerSm)
    depthwise_toeplitz_kernel(const __grid_constant__ Params params) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
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
    Element* const x_smem = reinterpret_cast<Element*>(visits + kMaxRounds);  // two buffers
    Element* const w_smem = x_smem + 2 * params.x_elems;
    Element* const y_smem = w_smem + 2 * params.w_elems + strip_first * kStrip;
    if (thread < rounds)
        visits[thread] = plan_visit<Element>(params, n + thread, channel, segment_first, strips);
    __syncthreads();
    const int count = (strips + 2 * params.steps) * kStrip;
    fetch_x(visits[0], problem.x_stride_l, count, x_smem, thread, threads);
    float* const bias = &visits[0].bias;
    if (channel < params.channels) {
        fetch_w(problem, static_cast<const Element*>(problem.w) + channel * problem.K, params.w_elems, w_smem,
                thread, threads);
        if (thread == 0) {
            *bias = problem.bias == nullptr ? 0 : widen(static_cast<const Element*>(problem.bias)[channel]);
        }
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
        if (strip_first * kStrip < visit.y_end) {
            const Element* x_now = x_smem + round % 2 * params.x_elems;
            float sum[kMaxTiles][4] = {};
            add_products<Element>(params, visit, strip_first, x_now, w_smem, sum);
            stage_y<Element>(sum, *bias, params.tiles, y_smem);
            __syncwarp();
            store_y<Element>(params, visit, strip_first, x_now, w_smem, *bias, y_smem);
            __syncwarp();
        }
    }
#endif
}

// Positions that the taps span. Taps further apart than this fit no block's shared memory.
constexpr int64_t kMaxSpan = 1 << 14;
inline int64_t span(const Problem& problem) {
    const bool small = problem.K <= kMaxSpan && problem.dilation <= kMaxSpan;
    return small ? (problem.K - 1) * problem.dilation + 1 : kMaxSpan + 1;
}

inline int64_t strips_of_row(const Problem& problem) {
    const int64_t row_bytes = problem.P * element_bytes(problem.dtype);
    const bool aligned = row_bytes % 16 == 0 && reinterpret_cast<uint64_t>(problem.y) % 16 == 0;
    return ceil_div(problem.P + (aligned ? 0 : kStrip - 1), kStrip);
}

// Rows of `warps`, in segments of at most `most` of them.
inline Params plan_segments(const Problem& problem, int64_t warps, int64_t tiles, int64_t most) {
    Params params{};
    params.problem = problem;
    const int64_t segments = ceil_div(warps, most);
    params.segments = static_cast<uint32_t>(segments);
    params.warps_per_row = static_cast<int32_t>(ceil_div(warps, segments));
    params.tiles = static_cast<int32_t>(tiles);
    params.steps = static_cast<int32_t>(ceil_div(span(problem) + kStrip, kDepth));
    const int64_t strips = params.warps_per_row * kStretches * tiles;
    // All that the last step reads, for the tiles that are not stored too, and some for x_first.
    params.x_elems = static_cast<int32_t>((strips + 2 * params.steps + kWindow) * kStrip);
    // The copies begin 16 banks apart.
    params.w_elems = static_cast<int32_t>(round_up(kStrip + params.steps * kDepth, 64) + 32);
    const int64_t elems = 2 * params.x_elems + 2 * params.w_elems + strips * kStrip;
    params.row_bytes = static_cast<int32_t>(kMaxRounds * sizeof(Visit<uint16_t>) + elems * sizeof(uint16_t));
    return params;
}

// row_bytes is beyond kSmemBytes where not even one warp's work fits.
inline Params plan(const Problem& problem) {
    const int64_t strips = strips_of_row(problem);
    int64_t warps = ceil_div(strips, kStretches * kMaxTiles);
    // Few rows are cut further, until each multiprocessor has work.
    const int64_t channels = problem.G * problem.O, rows = problem.N * channels;
    while (rows * warps < 8 * problem.device.sm_count && strips > 2 * kStretches * warps) warps *= 2;
    const int64_t tiles = ceil_div(strips, kStretches * warps);
    Params params = plan_segments(problem, warps, tiles, kMaxWarps);
    for (int64_t most = kMaxWarps / 2; most > 0 && params.row_bytes > kSmemBytes; most /= 2) {
        params = plan_segments(problem, warps, tiles, most);
    }
    params.rows_per_block = 1;
    if (params.segments == 1 && params.row_bytes <= kSmemBytes) {
        const int64_t most = std::min<int64_t>(kRowsWarps / warps, kSmemBytes / params.row_bytes);
        params.rows_per_block = static_cast<int32_t>(std::max<int64_t>(most, 1));
    }
    params.channels = static_cast<uint32_t>(channels);
    params.channel_blocks = static_cast<uint32_t>(ceil_div(channels, params.rows_per_block));
    const int64_t blocks = params.channel_blocks * problem.N * params.segments;
    const int64_t full = blocks / (kBlocks * std::max(problem.device.sm_count, 1));
    params.rounds =
        static_cast<uint32_t>(std::max<int64_t>(1, std::min({full, problem.N, int64_t{kMaxRounds}})));
    return params;
}

template <class Element>
Error launch_element(const Params& params, cudaStream_t stream) {
    const auto blocks = static_cast<unsigned>(ceil_div(params.problem.N, params.rounds) *
                                              params.channel_blocks * params.segments);
    const dim3 threads(params.warps_per_row * 32, params.rows_per_block);
    const int smem_bytes = params.rows_per_block * params.row_bytes;
    depthwise_toeplitz_kernel<Element><<<blocks, threads, smem_bytes, stream>>>(params);
    return launch_error();
}

}  // namespace toeplitz

inline bool fits_toeplitz(const Problem& any_problem) {
    const Problem problem = canonical(any_problem);
    if (element_bytes(problem.dtype) != 2 || problem.device.arch < 80) return false;
    if (problem.C != 1 || problem.O > toeplitz::kMaxO || problem.stride != 1) return false;
    if (toeplitz::span(problem) > toeplitz::kMaxSpan) return false;
    // A block takes at least a warp's work of a row, of which there are fewer than P / 16 + 1.
    if (problem.N * problem.G * problem.O * (problem.P / 16 + 1) > kMaxBlocks) return false;
    return toeplitz::plan(problem).row_bytes <= toeplitz::kSmemBytes;
}

inline Error launch_toeplitz(const Problem& any_problem, cudaStream_t stream) {
    const toeplitz::Params params = toeplitz::plan(canonical(any_problem));
    if (params.problem.dtype == Dtype::float16) return toeplitz::launch_element<__half>(params, stream);
    return toeplitz::launch_element<__nv_bfloat16>(params, stream);
}

}  // namespace conv1d
