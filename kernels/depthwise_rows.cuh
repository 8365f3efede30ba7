// Depthwise rows whose taps lie near each other: a warp takes a row or a segment of one, by itself, in
// stages. x comes to shared memory as it lies in global memory, by copies of 16 bytes, one stage ahead.
// Three ways to sum:
//
// strips   stride 1, dilation 1: a lane slides over a strip of 12 positions, a new vector of 4 x for 48
//          multiply-adds. (3 vectors: an odd count, so that a warp's strips meet no bank twice.) y is put in
//          order where x has been.
// words    any dilation, and short rows: a lane has words of y, 32 words apart, so that neither the alignment
//          of x nor that of y matters.
// strided  a lane has outputs of its own and takes their taps in turns (plan_turns), so that lanes meet no
//          bank twice. Where there are few outputs, or strides are long, some lanes share one.
#pragma once
#include <algorithm>

#include "problem.h"
#include "mma.cuh"
#include "ptx.cuh"
#include "depthwise_row.cuh"

namespace conv1d {
namespace depthwise {

constexpr int kRowsWarps = kMaxThreads / 32;
constexpr int kMaxStages = 4;    // of a warp, where the GPU is full anyway
constexpr int kLineBytes = 128;  // where the stores of a warp begin
constexpr int kWords = 4;        // of y, 4 bytes each, that a lane sums at once
template <class Element>
constexpr int kPack = 4 / sizeof(Element);  // elements of a word
constexpr int kStridedOutputs = 4;   // that a lane sums at once
constexpr int kStridedBytes = 1024;  // of x that a stage has, about
constexpr int64_t kMaxSpan = 1 << 16;  // of x: no stage is that large
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
template <Way kWay>
constexpr int kRowsBlocks = kWay == Way::words ? 5 : 4;
#else
template <Way kWay>
constexpr int kRowsBlocks = 1;
#endif

struct RowsParams : Params {
    int32_t lanes_log2;         // strided: of an output
    int32_t turns;              // taps of a lane after which its outputs have been in all banks they meet
    int32_t turn_outputs_log2;  // outputs after which banks repeat
    int32_t stage_positions;    // of y
    int32_t stage_elems;        // of their x, in shared memory
    int32_t warp_bytes;         // of two stages and taps
};

// Starts to bring `count` elements of x from row position l on, which is aligned, by one warp.
template <class Element>
__device__ __forceinline__ void fetch_stage(const Element* row_x, int l, int L, int count, Element* x_smem) {
    constexpr int kWide = kWideBytes / sizeof(Element);
#pragma unroll 1
    for (int i = threadIdx.x % 32 * kWide; i < count; i += 32 * kWide) {
        const Element* const source = row_x + (l + i);
        auto* const target = reinterpret_cast<Vector<Element, kWide>*>(x_smem + i);
        const int begin = -(l + i), end = L - (l + i);  // of the row
        if (begin <= 0 && end >= kWide) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
            *target = *reinterpret_cast<const Vector<Element, kWide>*>(source);
#else
            ptx::cp_async_16(ptx::smem_address(target), source, kWideBytes);
#endif
        } else {
            Vector<Element, kWide> some;
#pragma unroll
            for (int j = 0; j < kWide; ++j) {
                some.at[j] = j >= begin && j < end ? source[j] : narrow<Element>(0);
            }
            *target = some;
        }
    }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    ptx::cp_async_commit_group();
#endif
}

// Returns once the warp's stages but the last kPending are in shared memory.
template <int kPending>
__device__ __forceinline__ void wait_for_stage() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    ptx::cp_async_wait_group<kPending>();
#endif
    __syncwarp();
}

// What a warp of the rows kernel works on: positions [p, p_end) of a row, of which those before 0 are none.
// Their x is in shared memory, and their taps.
template <class Element>
struct Stage {
    const Row<Element>& row;
    int p, p_end;
    Element* x_smem;
    const float* w_smem;
    float bias;
};

// A lane has words of y, 32 words apart.
template <class Element>
__device__ __forceinline__ void sum_words(const Params& params, const Stage<Element>& stage, int shift) {
    using Word = Vector<Element, kPack<Element>>;
    constexpr int kWordElems = kPack<Element>;
    const int lane = threadIdx.x % 32;
    const int taps = params.K, dilation = params.dilation;
#pragma unroll 1
    for (int p_first = stage.p; p_first < stage.p_end; p_first += 32 * kWords * kWordElems) {
        float sum[kWords][kWordElems] = {};
        int at = p_first - stage.p + shift;
#pragma unroll 2
        for (int k = 0; k < taps; ++k, at += dilation) {
            const float w = stage.w_smem[k];
            const Word* const x = reinterpret_cast<const Word*>(stage.x_smem) + at / kWordElems + lane;
            if (at % kWordElems == 0) {
#pragma unroll
                for (int i = 0; i < kWords; ++i) {
#pragma unroll
                    for (int j = 0; j < kWordElems; ++j)
                        sum[i][j] = fmaf(w, widen(x[32 * i].at[j]), sum[i][j]);
                }
            } else {
#pragma unroll
                for (int i = 0; i < kWords; ++i) {
                    const float first = widen(x[32 * i].at[kWordElems - 1]);
                    const float last = widen(x[32 * i + 1].at[0]);
                    sum[i][0] = fmaf(w, first, sum[i][0]);
                    sum[i][kWordElems - 1] = fmaf(w, last, sum[i][kWordElems - 1]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            const int p = p_first + (32 * i + lane) * kWordElems;
            Word out;
#pragma unroll
            for (int j = 0; j < kWordElems; ++j) out.at[j] = narrow<Element>(sum[i][j] + stage.bias);
            if (p >= 0 && p + kWordElems <= stage.p_end) {
                *reinterpret_cast<Word*>(stage.row.y + p) = out;
                continue;
            }
#pragma unroll
            for (int j = 0; j < kWordElems; ++j) {
                if (p + j >= 0 && p + j < stage.p_end) stage.row.y[p + j] = out.at[j];
            }
        }
        if (params.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = 0; i < kWords * kWordElems; ++i) {
            const int p = p_first + (i / kWordElems * 32 + lane) * kWordElems + i % kWordElems;
            if (p < 0 || p >= stage.p_end) continue;
            stage.row.y[p] = activate<Element>(params.activation, widen(stage.row.y[p]));
        }
    }
}

// A lane has strips of neighbours, which then go through shared memory, where x has been.
template <class Element>
__device__ __forceinline__ void sum_strips(const Params& params, const Stage<Element>& stage) {
    using Word = Vector<Element, kPack<Element>>;
    using ElementVector = Vector<Element, kVector>;
    constexpr int kWordElems = kPack<Element>, kSpan = 32 * kStrip;
    const int lane = threadIdx.x % 32, taps = params.K;
    const SumVector* const w = reinterpret_cast<const SumVector*>(stage.w_smem);
#pragma unroll 1
    for (int p_first = stage.p; p_first < stage.p_end; p_first += kSpan) {
        Element* const span_smem = stage.x_smem + (p_first - stage.p);
        auto* const strip = reinterpret_cast<ElementVector*>(span_smem + lane * kStrip);
        float sum[kStrip] = {};
        SumVector window[kStripVectors + 1];
#pragma unroll
        for (int i = 0; i < kStripVectors; ++i) window[i] = widen_vector(strip[i]);
#pragma unroll 1
        for (int k = 0; k < taps; k += kChunkTaps) {
            if (k + kChunkTaps <= taps) {
                add_chunk<true, Element>(strip + k / kVector, w + k / kVector, kChunkTaps, window, sum);
            } else {
                add_chunk<false, Element>(strip + k / kVector, w + k / kVector, taps - k, window, sum);
            }
        }
        __syncwarp();  // x has been read by all lanes
#pragma unroll
        for (int v = 0; v < kStripVectors; ++v) {
            ElementVector out;
#pragma unroll
            for (int i = 0; i < kVector; ++i)
                out.at[i] = narrow<Element>(sum[v * kVector + i] + stage.bias);
            strip[v] = out;
        }
        if (params.activation != Activation::none) {
#pragma unroll 1
            for (int i = lane * kStrip; i < (lane + 1) * kStrip; ++i) {
                span_smem[i] = activate<Element>(params.activation, widen(span_smem[i]));
            }
        }
        __syncwarp();  // y is there
        Element* const y = stage.row.y + p_first;
        if (kWordElems == 1 || p_first < 0 || p_first + kSpan > stage.p_end) {
            const uint32_t end = stage.p_end;
#pragma unroll
            for (int i = lane; i < kSpan; i += 32) {
                if (static_cast<uint32_t>(p_first + i) < end) y[i] = span_smem[i];
            }
        } else if (misalignment<kWordElems>(y) == 0) {
#pragma unroll
            for (int i = 0; i < kStrip / kWordElems; ++i) {
                reinterpret_cast<Word*>(y)[32 * i + lane] =
                    reinterpret_cast<const Word*>(span_smem)[32 * i + lane];
            }
        } else {
            y[lane == 0 ? 0 : kSpan - 1] = span_smem[lane == 0 ? 0 : kSpan - 1];
#pragma unroll
            for (int i = 0; i < kStrip / kWordElems; ++i) {
                const int at = (32 * i + lane) * kWordElems + 1;
                Word word;
                word.at[0] = span_smem[at];
                word.at[kWordElems - 1] = span_smem[at + kWordElems - 1];
                if (at + 1 < kSpan) *reinterpret_cast<Word*>(y + at) = word;
            }
        }
    }
}

// A lane has outputs 32 apart; where rows are short, `lanes` neighbours share each, with every lanes-th tap.
// Lanes whose outputs lie in the same banks for any one tap take their taps in turns: from another one on.
template <class Element>
__device__ __forceinline__ void sum_strided(const RowsParams& params, const Stage<Element>& stage,
                                            int shift) {
    const int taps = params.K, dilation = params.dilation;
    const int stride = params.stride, lanes = 1 << params.lanes_log2;
    const int lane = threadIdx.x % lanes, output = threadIdx.x % 32 >> params.lanes_log2;
    const int outputs = 32 >> params.lanes_log2;  // at once, kStridedOutputs times
    const int turns = params.turns, first = (output >> params.turn_outputs_log2) * kPack<Element>;
#pragma unroll 1
    for (int p_first = stage.p; p_first < stage.p_end; p_first += kStridedOutputs * outputs) {
        float sum[kStridedOutputs] = {};
        const Element* const x = stage.x_smem + shift + (p_first - stage.p + output) * stride;
        const auto add = [&](int k, const Element* at) {
            const float w = stage.w_smem[k];
#pragma unroll
            for (int i = 0; i < kStridedOutputs; ++i) sum[i] += w * widen(at[i * outputs * stride]);
        };
        int k = lane;
        if (turns > 1) {
            for (; k + (turns - 1) * lanes < taps; k += turns * lanes) {
#pragma unroll 2
                for (int turn = 0; turn < turns; ++turn) {
                    const int other = k + (turn + first & turns - 1) * lanes;
                    add(other, x + other * dilation);
                }
            }
        }
        const Element* at = x + k * dilation;
#pragma unroll 2
        for (; k < taps; k += lanes, at += lanes * dilation) add(k, at);
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
            for (int i = 0; i < kStridedOutputs; ++i) sum[i] += __shfl_xor_sync(0xFFFFFFFF, sum[i], distance);
        }
#pragma unroll
        for (int i = 0; i < kStridedOutputs; ++i) {
            const int p = p_first + i * outputs + output;
            if (i % lanes == lane && p < stage.p_end) stage.row.y[p] = narrow<Element>(sum[i] + stage.bias);
        }
        if (params.activation == Activation::none) continue;
#pragma unroll 1
        for (int i = lane; i < kStridedOutputs; i += lanes) {
            const int p = p_first + i * outputs + output;
            if (p >= stage.p_end) break;
            stage.row.y[p] = activate<Element>(params.activation, widen(stage.row.y[p]));
        }
    }
}

template <class Element, Way kWay>
__global__ void __launch_bounds__(kMaxThreads, kRowsBlocks<kWay>)
    depthwise_rows_kernel(const __grid_constant__ RowsParams params) {
    constexpr int kWide = kWideBytes / sizeof(Element);
    extern __shared__ __align__(16) unsigned char smem[];
    const int warp = threadIdx.x / 32;
    const uint32_t item = blockIdx.x * kRowsWarps + warp, index = params.segments.quotient(item);
    if (index >= params.rows) return;
    const uint32_t n = params.channels.quotient(index);
    const Row<Element> row = row_at<Element>(params, index, n, index - n * params.channels.divisor);
    const float bias = bias_of<Element>(params, row.o);
    const int taps = params.K, L = params.L;
    const int stride = kWay == Way::strided ? params.stride : 1;
    Element* x_smem = reinterpret_cast<Element*>(smem + warp * params.warp_bytes);
    Element* x_next = x_smem + params.stage_elems;
    float* const w_smem = reinterpret_cast<float*>(x_next + params.stage_elems);
    // The first of them on their way while x is.
    const int lane = threadIdx.x % 32;
    const Element w_first = row.w[min(lane, taps - 1)];

    // Segments of words begin where y is aligned, those of strips where x is.
    const int positions = params.stage_positions;
    int p_begin = static_cast<int>(item - index * params.segments.divisor) * params.segment;
    if (kWay == Way::words) p_begin -= misalignment<kLineBytes / sizeof(Element)>(row.y);
    if (kWay == Way::strips) p_begin -= misalignment<kWide>(row.x - params.pad_left);
    const int p_end = min(p_begin + params.segment, params.P);
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int first_l = p_begin * stride - params.pad_left;
    const int shift =
        kWay == Way::strips ? 0 : __shfl_sync(0xFFFFFFFF, misalignment<kWide>(row.x + first_l), 0);
    // Of x for some positions. Words of odd taps reach one element further.
    const auto count_of = [&](int some) {
        const int reach = (taps - 1) * params.dilation;
        return shift + (min(some, positions) - 1) * stride + reach + 2;
    };
    if (p_begin < p_end) fetch_stage(row.x, first_l - shift, L, count_of(p_end - p_begin), x_smem);
    if (lane < taps) w_smem[lane] = widen(w_first);
    for (int k = lane + 32; k < taps; k += 32) w_smem[k] = widen(row.w[k]);
#pragma unroll 1
    for (int p = p_begin; p < p_end; p += positions) {
        const int left = p_end - p - positions;
        if (left > 0) {
            const int l = (p + positions) * stride - params.pad_left - shift;
            fetch_stage(row.x, l, L, count_of(left), x_next);
            wait_for_stage<1>();
        } else {
            wait_for_stage<0>();
        }
        const Stage<Element> stage = {row, p, min(p + positions, p_end), x_smem, w_smem, bias};
        if constexpr (kWay == Way::words) sum_words(params, stage, shift);
        if constexpr (kWay == Way::strips) sum_strips(params, stage);
        if constexpr (kWay == Way::strided) sum_strided(params, stage, shift);
        __syncwarp();  // x and y have been read by all lanes
        Element* const now = x_smem;
        x_smem = x_next;
        x_next = now;
    }
}

// An output's lanes in strided rows: several where rows are short or strides long, but not more than half of
// the taps.
inline int32_t strided_lanes_log2(const Problem& problem) {
    int32_t log2 = 0;
    for (int64_t lanes = 1; lanes < 32; lanes *= 2, ++log2) {
        const bool is_far = problem.stride > 8 * lanes;
        const bool is_short = 32 / lanes * kStridedOutputs >= 2 * problem.P;
        if (!is_far && (2 * lanes > problem.K || !is_short)) break;
    }
    return log2;
}

// In what turns the lanes of a warp take their taps.
inline void plan_turns(const Problem& problem, RowsParams& params) {
    const int64_t pack = 4 / element_bytes(problem.dtype), lanes = int64_t{1} << params.lanes_log2;
    const int64_t power = std::min<int64_t>(problem.stride & -problem.stride, 32);
    const int64_t outputs = 32 / std::max<int64_t>(power / pack, 1);  // in banks of their own
    params.turn_outputs_log2 = 0;
    while (outputs >> (params.turn_outputs_log2 + 1) > 0) ++params.turn_outputs_log2;
    const int64_t turns = std::max<int64_t>(32 / lanes / outputs, 1);
    params.turns = static_cast<int32_t>(turns > 1 ? turns * pack : 1);
}

// For x contiguous along l. False where taps reach too far, or the stride is too long, for shared memory.
inline bool plan_rows(const Problem& problem, RowsParams& params, Way way) {
    const int64_t bytes = element_bytes(problem.dtype), wide = kWideBytes / bytes, pack = 4 / bytes;
    int64_t positions = 32 * pack * (way == Way::words ? 2 * kWords : kStrip), lead = 0;
    if (way == Way::words) lead = kLineBytes / bytes - 1;
    if (way == Way::strips) lead = wide - 1;
    if (way == Way::strided) {
        params.lanes_log2 = strided_lanes_log2(problem);
        plan_turns(problem, params);
        const int64_t outputs = kStridedOutputs * (32 >> params.lanes_log2);
        const int64_t times = std::max<int64_t>(kStridedBytes / (outputs * problem.stride * bytes), 1);
        positions = round_up(outputs * times, wide);  // so that stages of x are aligned alike
    }
    // With what lies between aligned x and a row's, and what words and strips read ahead.
    const int64_t reach = (problem.K - 1) * problem.dilation;
    if (problem.stride > kMaxSpan / positions || reach > kMaxSpan) return false;
    const int64_t elems = round_up(positions * problem.stride + reach + 2 * wide, wide);
    const int64_t warp_bytes = 2 * elems * bytes + round_up(problem.K, kVector) * kSumBytes;
    // Two blocks a multiprocessor have enough of x on its way.
    const int64_t most_bytes = way == Way::strided ? std::min<int64_t>(problem.device.smem_bytes, 110 << 10)
                                                   : kPlainSmemBytes;
    if (kRowsWarps * warp_bytes > most_bytes) return false;
    params.stage_positions = static_cast<int32_t>(positions);
    params.stage_elems = static_cast<int32_t>(elems);
    params.warp_bytes = static_cast<int32_t>(warp_bytes);
    const int64_t stages = ceil_div(problem.P + lead, positions);
    const int64_t full = params.rows * stages / (64 * std::max<int64_t>(problem.device.sm_count, 1));
    const int64_t segments = ceil_div(stages, std::clamp<int64_t>(full, 1, kMaxStages));
    params.segment = static_cast<int32_t>(ceil_div(stages, segments) * positions);
    params.segments = plan_index_divisor(segments);
    return true;
}

}  // namespace depthwise
}  // namespace conv1d
