// Dense convolution on Hopper with x as register operand: the kernel of sliding_sm90.cuh and
// downsample_sm90.cuh, which bring loaders of x.
//
// x stays in shared memory as the copy engine brings it, [channel][position], and is operand A, from
// registers: D[position][output] = x^T * W^T. Two product warpgroups take neighbouring positions of the same
// outputs; the two blocks of a cluster share weights or x. A stage is one step of K of all taps; sums add
// terms in the order of channels, a step at a time, taps within. Other warps order stages, bring each tile's
// constants, and store y, chunk by chunk, while the next tile is multiplied. fp32 runs as three fp16
// products; what those cannot hold is done again by gemm_sm90.cuh, tile by tile (Mode). results/findings.md
// has what was measured.
#pragma once
#include <type_traits>

#include "gemm_sm90_convert.cuh"
#include "gemm_sm90_pipeline.cuh"
#include "launch.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tensor_map.cuh"
#include "tile.cuh"
#include "wgmma.cuh"
#include "window_sm90_plan.cuh"

namespace conv1d {
namespace sm90 {

struct WindowBarriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t empty(int stage) const { return full(kWindowMostStages + stage); }
    __device__ __forceinline__ uint32_t staged(int chunk) const {
        return full(2 * kWindowMostStages + chunk);
    }
    __device__ __forceinline__ uint32_t stored(int chunk) const { return staged(kWindowMostChunks + chunk); }
    __device__ __forceinline__ uint32_t constants(int tile) const { return stored(kWindowMostChunks + tile); }
    __device__ __forceinline__ uint32_t constants_read(int tile) const { return constants(2 + tile); }
};

template <class Traits>
using ElementOf = std::conditional_t<
    Traits::kIsFloat, float, std::conditional_t<Traits::kMode == Mode::f16, __half, __nv_bfloat16>>;

// f16x3: the parts of values of x of two channels. Adds to `small` how many are too small for a split, of
// those that `counts(j)`.
template <int kCount, class Counts>
__device__ __forceinline__ void split_values(const uint32_t* first, const uint32_t* second,
                                             uint32_t (&parts)[2][kCount], int32_t& small, Counts counts) {
    uint32_t smallest = 0x7FFF7FFF;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
        parts[0][j] = split_f16(__uint_as_float(first[j]) * kXScale, __uint_as_float(second[j]) * kXScale,
                                parts[1][j]);
        smallest = ptx::min_magnitude_f16(smallest, parts[0][j]);
    }
    if (min(smallest & 0xFFFF, smallest >> 16) <= kSmallestHigh) {  // zeros are counted only now
#pragma unroll
        for (int j = 0; j < kCount; ++j)
            if (counts(j))
                small += is_too_small(__uint_as_float(first[j])) + is_too_small(__uint_as_float(second[j]));
    }
}

struct WindowPlace {
    int32_t group, o;  // the first output, inside the group
    int32_t box;       // the first, of all samples'
};

// Of a tile's outputs. f16x3: what undoes the scales of x and w, and how many weights are too small.
template <int kOutputs>
struct WindowConstants {
    float bias[kOutputs], scale[kOutputs], small[kOutputs];

    // One warp.
    template <class Traits>
    __device__ __forceinline__ void bring(const WindowGeometry& geometry, const Problem& problem,
                                          const Scratch& scratch, const WindowPlace& place, int lane) {
#pragma unroll 1
        for (int i = lane; i < kOutputs; i += 32) {
            const int32_t o = place.o + i;
            const auto* const all = static_cast<const ElementOf<Traits>*>(problem.bias);
            bias[i] = all != nullptr && o < problem.O ? widen(all[place.group * problem.O + o]) : 0.0f;
            if constexpr (Traits::kIsSplit) {
                const float2 scaling = scratch.row_scaling[place.group * geometry.o_tiles * kOutputs + o];
                scale[i] = scaling.x, small[i] = scaling.y;
            }
        }
    }
};

// Tiles of one window of x and all outputs follow each other, so x is shared in L2.
template <class Traits>
__device__ __forceinline__ WindowPlace place_of_pair(const WindowGeometry& geometry, int32_t pair) {
    constexpr int kWindows = kWindowCluster / Traits::kOTiles;
    const int32_t rank = static_cast<int32_t>(ptx::cluster_ctarank());
    const int32_t rest = geometry.o_steps.quotient(pair), windows = geometry.groups.quotient(rest);
    const int32_t o_step = pair - rest * static_cast<int32_t>(geometry.o_steps.divisor);
    const int32_t o_tile = o_step * Traits::kOTiles + (Traits::kSharesX ? rank : 0);
    const int32_t window = windows * kWindows + (Traits::kSharesX ? 0 : rank);
    return {rest - windows * static_cast<int32_t>(geometry.groups.divisor), o_tile * Traits::kOutputs,
            window * Traits::kBoxes};
}
__device__ __forceinline__ int32_t first_pair() { return blockIdx.x / kWindowCluster; }
__device__ __forceinline__ int32_t pair_step() { return gridDim.x / kWindowCluster; }

struct WindowBox {
    int32_t n, p;  // the sample; N where there is none
};
__device__ __forceinline__ WindowBox find_box(const WindowGeometry& geometry, int32_t box) {
    const int32_t n = geometry.sample_boxes.quotient(box);
    return {n, (box - n * static_cast<int32_t>(geometry.sample_boxes.divisor)) * kWindowBox};
}

// How far the window of a box's first position begins behind the box, in elements, in rows of a residue:
// boxes begin at 16-byte pieces.
template <class Traits>
__device__ __forceinline__ int32_t lateness(const Problem& problem, int residue) {
    const int32_t start = residue * static_cast<int32_t>(problem.x_stride_c % Traits::kPiece) -
                          static_cast<int32_t>(problem.pad_left % Traits::kPiece);
    return start & (Traits::kPiece - 1);
}

// What the blocks of a cluster share, each brings a half of to both.
constexpr uint16_t kAllBlocks = (1 << kWindowCluster) - 1;

// One warp: orders each stage's weights and brings each tile's constants.
template <class Traits>
__device__ __forceinline__ void bring_weights(const WindowGeometry& geometry, const Problem& problem,
                                              uint32_t smem, const WindowBarriers& barriers,
                                              const Scratch& scratch,
                                              WindowConstants<Traits::kOutputs>* constants, int lane) {
    constexpr int kBytes = Traits::kSharesX ? Traits::kWeightBytes : Traits::kWeightBytes / kWindowCluster;
    const uint32_t share = Traits::kSharesX ? 0 : ptx::cluster_ctarank() * kBytes;
    ptx::griddepcontrol_wait();  // for packed weights
    Ring ring, tiles;
    ring.parity = tiles.parity = 1;  // empty rings: the first waits return at once
    for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step()) {
        const WindowPlace place = place_of_pair<Traits>(geometry, pair);
        if (ptx::elect()) {
            const int32_t image_tile = place.group * geometry.o_tiles + place.o / Traits::kOutputs;
            const uint8_t* weights =
                scratch.image + int64_t{image_tile} * geometry.image_stages * Traits::kWeightBytes + share;
#pragma unroll 1
            for (int32_t i = 0; i < geometry.stages; ++i, weights += Traits::kWeightBytes) {
                const uint32_t full = barriers.full(ring.stage);
                const uint32_t target = smem + ring.stage * geometry.stage_bytes + share;
                ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);
                ptx::mbarrier_arrive_expect_tx(full, geometry.stage_bytes);
                if (Traits::kSharesX) ptx::cp_async_bulk(target, weights, kBytes, full);
                else ptx::cp_async_bulk_multicast(target, weights, kBytes, full, kAllBlocks);
                ring.advance(geometry.ring);
            }
        }
        __syncwarp();
        // Not needed before the tile's last product.
        ptx::mbarrier_wait(barriers.constants_read(tiles.stage), tiles.parity);
        constants[tiles.stage].template bring<Traits>(geometry, problem, scratch, place, lane);
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive(barriers.constants(tiles.stage));
        tiles.advance(2);
    }
}

// One thread of each of some warps: orders its part of this block's share of each stage's x.
template <class Traits>
__device__ __forceinline__ void order_x(const WindowGeometry& geometry, const Problem& problem,
                                        const TensorMap& x_map, uint32_t smem, const WindowBarriers& barriers,
                                        int warp) {
    constexpr int kSharers = Traits::kSharesX ? kWindowXWarps * kWindowCluster : kWindowXWarps;
    const int32_t residues = geometry.residues;
    const int32_t sharer = Traits::kSharesX ? ptx::cluster_ctarank() * kWindowXWarps + warp : warp;
    const int32_t boxes = Traits::kBoxes * residues, bytes = geometry.box_bytes / residues;
    const int32_t begin = boxes * sharer / kSharers, end = boxes * (sharer + 1) / kSharers;
    // Stages do not wait for a warp that has none: to it a parity two phases on would look like no change.
    if (begin == end) return;
    const int32_t pad_left = static_cast<int32_t>(problem.pad_left);
    Ring ring;
    ring.parity = 1;
    for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step()) {
        const WindowPlace place = place_of_pair<Traits>(geometry, pair);
        // Of boxes that do not exist, the x of another sample.
        const int32_t last = static_cast<int32_t>(problem.N) - 1;
        WindowBox first = find_box(geometry, place.box + begin / residues);
        first.n = min(first.n, last);
#pragma unroll 1
        for (int32_t c = 0; c < geometry.stages * (Traits::kStageChannels / residues);
             c += Traits::kStageChannels / residues) {
            const uint32_t full = barriers.full(ring.stage);
            ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);
            const uint32_t target = smem + ring.stage * geometry.stage_bytes + Traits::kWeightBytes;
            WindowBox box = first;
            int32_t residue = begin % residues;
#pragma unroll 1
            for (int32_t i = begin; i < end; ++i) {
                const int32_t l = box.p * Traits::kStride - pad_left +
                                  residue * static_cast<int32_t>(problem.x_stride_c);
                const int32_t start = l & -Traits::kPiece;
                if (Traits::kSharesX)
                    ptx::cp_async_bulk_tensor_multicast(target + i * bytes, &x_map, start, c, place.group,
                                                        box.n, full, kAllBlocks);
                else
                    ptx::cp_async_bulk_tensor(target + i * bytes, &x_map, start, c, place.group, box.n, full);
                if (++residue < residues) continue;
                residue = 0;
                box.p += kWindowBox;
                if (box.p >= problem.P) box.p = 0, box.n = min(box.n + 1, last);
            }
            ring.advance(geometry.ring);
        }
    }
}

// One of the warps that store: its share of the outputs of each chunk.
template <class Traits, class Element>
struct WindowStore {
    static constexpr int kRows = kWindowChunkOutputs / kWindowStoreWarps;
    static constexpr int kPiece = Traits::kPiece;

    const WindowGeometry& geometry;
    const Problem& problem;
    const WindowBarriers& barriers;
    Element* const staged;  // chunk 0's first output of this warp
    const int warp, lane;

    // Of outputs from y's row `row` on, as many as there are, by vectors that lie in one piece in all rows.
    template <class Vector>
    __device__ __forceinline__ void store(const Element* source, int32_t first_box, int64_t row,
                                          int32_t outputs) const {
        constexpr int kElements = sizeof(Vector) / sizeof(Element);
        constexpr int kLoads = Traits::kStoreRegisters < 40 ? 2 : 4;  // before any is stored
#pragma unroll 1
        for (int column = lane * kElements; column < Traits::kTilePositions; column += 32 * kElements) {
            const WindowBox box = find_box(geometry, first_box + column / kWindowBox);
            const int32_t p = box.p + column % kWindowBox;
            if (box.n >= problem.N || p >= problem.P) continue;
            const Element* const from = source + column;
            Element* y = static_cast<Element*>(problem.y) +
                         (box.n * problem.G * problem.O + row) * problem.P + p;
#pragma unroll
            for (int i = 0; i < kRows; i += kLoads, y += kLoads * problem.P) {
                Vector values[kLoads];
#pragma unroll
                for (int k = 0; k < kLoads; ++k)
                    values[k] = *reinterpret_cast<const Vector*>(from + (i + k) * Traits::kStagedPitch);
#pragma unroll
                for (int k = 0; k < kLoads; ++k)
                    if (i + k < outputs) *reinterpret_cast<Vector*>(y + k * problem.P) = values[k];
            }
        }
    }

    // The same of 16 bits where rows begin anywhere: run by run, of positions of one sample.
    __device__ __forceinline__ void store_apart(const Element* source, int32_t first_box, int64_t row,
                                                int32_t outputs) const {
        WindowBox box = find_box(geometry, first_box);
#pragma unroll 1
        for (int begin = 0; begin < Traits::kTilePositions && box.n < problem.N; box = {box.n + 1, 0}) {
            const int length = min(static_cast<int32_t>(problem.P) - box.p, Traits::kTilePositions - begin);
            const Element* from = source + begin;
            Element* y = static_cast<Element*>(problem.y) +
                         (box.n * problem.G * problem.O + row) * problem.P + box.p;
#pragma unroll 1
            for (int left = min(outputs, kRows); left > 0; --left) {
                store_run(from, y, length);
                from += Traits::kStagedPitch, y += problem.P;
            }
            begin += (length + kWindowBox - 1) / kWindowBox * kWindowBox;
        }
    }

    // Of one row, from a staged piece on: whole pieces of y from two staged ones each; the ends by elements.
    __device__ __forceinline__ void store_run(const Element* from, Element* y, int length) const {
        const int head = min(static_cast<int>(-reinterpret_cast<uintptr_t>(y) / 2 % kPiece), length);
#pragma unroll 1
        for (int piece = lane; head + (piece + 1) * kPiece <= length; piece += 32) {
            const uint4* const source = reinterpret_cast<const uint4*>(from) + piece;
            *reinterpret_cast<uint4*>(y + head + piece * kPiece) = realign<2>(source[0], source[1], head);
        }
        const int tail = (length - head) % kPiece;
        const int at = lane < kPiece ? lane : length - tail + lane - kPiece;
        if (lane < kPiece ? at < head : at < length && lane < 2 * kPiece) y[at] = from[at];
    }

    __device__ __forceinline__ void run() const {
        Ring ring;
        for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step()) {
            const WindowPlace place = place_of_pair<Traits>(geometry, pair);
#pragma unroll 1
            for (int begin = 0; begin < Traits::kOutputs; begin += kWindowChunkOutputs) {
                ptx::mbarrier_wait(barriers.staged(ring.stage), ring.parity);
                Element* const source = staged + ring.stage * (Traits::kStagedBytes / sizeof(Element));
                if (problem.activation != Activation::none) {
                    activate_staged(problem.activation, source, kRows * Traits::kStagedPitch);
                    __syncwarp();
                }
                const int32_t o = place.o + begin + warp * kRows;
                const int64_t row = place.group * problem.O + o;
                const int32_t outputs = static_cast<int32_t>(problem.O) - o;
                if (geometry.vector_bytes == 16) store<uint4>(source, place.box, row, outputs);
                else if (geometry.vector_bytes == 8) store<uint2>(source, place.box, row, outputs);
                else if (geometry.vector_bytes == 4) store<uint32_t>(source, place.box, row, outputs);
                else if constexpr (sizeof(Element) == 2) store_apart(source, place.box, row, outputs);
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(barriers.stored(ring.stage));
                ring.advance(Traits::kChunks);
            }
        }
    }
};

// One of the product warpgroups' threads; the loader holds its part of x and knows which positions it has.
// Its outputs are 8*j + 2t and that + 1 of the tile, where t is lane % 4.
template <class Loader>
struct WindowProduct {
    using Traits = typename Loader::Traits;
    using Element = ElementOf<Traits>;
    using Fragments = typename Loader::Fragments;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kOutputs = Traits::kOutputs;
    static constexpr int kColumns = kIsSplit ? kOutputs / 2 : kOutputs;  // of one product
    static constexpr int kValues = kColumns / 2;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kColumns>;
    // Of two products: 64 positions each, or half of the outputs.
    using Sums = float[2][kValues];

    const WindowGeometry& geometry;
    const Problem& problem;
    const WindowBarriers& barriers;
    const Scratch& scratch;
    const WindowConstants<kOutputs>* const both_constants;  // of two tiles, in turn
    const uint32_t smem;
    Element* const staged;  // chunk 0's first position of this warp, of this lane's first output
    const int warp, lane;   // warp of 8: warpgroup warp / 4
    Loader loader;
    Ring ring, chunk_ring;

    // The next stage, once it is there.
    __device__ __forceinline__ void load_stage(Fragments& fragments) {
        ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);
        loader.load(fragments, smem + ring.stage * geometry.stage_bytes);
        ring.advance(geometry.ring);
    }

    // The registers of A must not be written between products.
    static __device__ __forceinline__ void settle(Fragments& fragments) {
        auto* const registers = reinterpret_cast<uint32_t*>(&fragments);
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof(Fragments) / 4); ++i) ptx::settle(registers[i]);
    }

    // To each block of the cluster, as each brings its share of weights or x to all.
    __device__ __forceinline__ void release(int32_t stage) {
        if (lane < kWindowCluster) ptx::mbarrier_arrive_cluster(ptx::mapa(barriers.empty(stage), lane));
    }

    // The products of all taps: x's high or low part by that of w, of one part of the outputs.
    __device__ __forceinline__ void multiply(float (&sums)[2][kValues], const Fragments& fragments,
                                             uint32_t stage, int outputs, int x_part, int w_part, bool adds) {
        const uint64_t w_first = ptx::wgmma_descriptor_plain<256>(stage / 16);
#pragma unroll
        for (int tap = 0; tap < Traits::kTaps; ++tap) {
            const int offset = w_part * Traits::kWeightPartBytes + (tap * kOutputs + outputs * kColumns) * 32;
#pragma unroll
            for (int product = 0; product < kProducts; ++product)
                Mma::issue(sums[kIsSplit ? outputs : product],
                           Loader::operand(fragments, x_part, tap, product),
                           ptx::wgmma_descriptor_behind(w_first, offset / 16), adds || tap > 0);
        }
    }

    // All products of one tile.
    __device__ __forceinline__ void multiply_tile(Sums& sums) {
        Fragments fragments[2];
        bool accumulate = false;
        int32_t done = -1;  // a stage whose products may still be running
#pragma unroll 1
        for (int32_t first = 0; first < geometry.stages; first += 2) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if (i > 0 && first + i == geometry.stages) break;
                const int32_t number = ring.stage;
                load_stage(fragments[i]);
                settle(fragments[i]);
                ptx::wgmma_fence();
                multiply(sums, fragments[i], smem + number * geometry.stage_bytes, 0, 0, 0, accumulate);
                ptx::wgmma_commit_group();
                accumulate = true;
                ptx::wgmma_wait_group<1>();  // the stage before this one is done
                if (done >= 0) release(done);
                done = number;
            }
        }
        ptx::wgmma_wait_group<0>();
        release(done);
    }

    // The same of f16x3, some stages at a time. Products with a low part come first, which are too large by
    // kLowScale; the accumulator truncates, totals round to nearest.
    __device__ __forceinline__ void multiply_split_tile(Sums& total) {
        constexpr int kStages = Traits::kStagesTogether;
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) total[i % 2][i / 2] = 0.0f;
        Sums sums;
        Fragments fragments[kStages];
#pragma unroll 1
        for (int32_t first = 0; first < geometry.stages; first += kStages) {
            int32_t number[kStages];
            uint32_t stage[kStages];
#pragma unroll
            for (int i = 0; i < kStages; ++i) {
                number[i] = ring.stage, stage[i] = smem + ring.stage * geometry.stage_bytes;
                load_stage(fragments[i]);
            }
#pragma unroll
            for (int i = 0; i < kStages; ++i) settle(fragments[i]);
            // One half of the outputs is multiplied while the other's sums are added.
#pragma unroll
            for (int outputs = 0; outputs < 2; ++outputs) {
                ptx::wgmma_fence();
#pragma unroll
                for (int i = 0; i < kStages; ++i) {
                    multiply(sums, fragments[i], stage[i], outputs, 1, 0, i > 0);
                    multiply(sums, fragments[i], stage[i], outputs, 0, 1, true);
                }
                ptx::wgmma_commit_group();
            }
#pragma unroll
            for (int outputs = 0; outputs < 2; ++outputs) {
                ptx::wgmma_wait_group<1>();
#pragma unroll
                for (int j = 0; j < kValues; ++j)
                    total[outputs][j] = fmaf(sums[outputs][j], 1 / kLowScale, total[outputs][j]);
                ptx::wgmma_fence();
#pragma unroll
                for (int i = 0; i < kStages; ++i)
                    multiply(sums, fragments[i], stage[i], outputs, 0, 0, i > 0);
                ptx::wgmma_commit_group();
            }
#pragma unroll
            for (int outputs = 0; outputs < 2; ++outputs) {
                if (outputs == 0) ptx::wgmma_wait_group<1>();
                else ptx::wgmma_wait_group<0>();
#pragma unroll
                for (int j = 0; j < kValues; ++j) total[outputs][j] += sums[outputs][j];
            }
#pragma unroll
            for (int i = 0; i < kStages; ++i) release(number[i]);
        }
    }

    // That of output 8*j + 2t + next, of row r of product i.
    static __device__ __forceinline__ float sum_of(const Sums& sums, int i, int j, int r, int next) {
        constexpr int kGroups = kColumns / 8;
        return sums[kIsSplit ? j / kGroups : i][4 * (j % kGroups) + 2 * r + next];
    }

    // f16x3: whether x and weights are in range, and sums large enough for the values that were too small;
    // see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const Sums& sums, const WindowBox& box,
                                                 const WindowPlace& place,
                                                 const WindowConstants<kOutputs>& constants) const {
        if (box.n >= problem.N || box.p >= problem.P) return true;
        float zero = 0.0f;  // NaN where some sum is not finite: x was too large for a high part, or was not
#pragma unroll
        for (int i = 0; i < 2 * kValues; ++i) zero = fmaf(sums[i % 2][i / 2], 0.0f, zero);
        bool suffice = zero == 0.0f;
        float of_w = 0.0f;
#pragma unroll
        for (int i = 0; i < kOutputs; i += 32) {
            suffice = suffice && constants.scale[i + lane] > 0.0f;
            of_w = fmaxf(of_w, constants.small[i + lane]);
        }
        of_w = __uint_as_float(__reduce_max_sync(0xFFFFFFFF, __float_as_uint(of_w)));
        const float of_x = static_cast<float>(__reduce_add_sync(0xFFFFFFFF, loader.small));
        const float least = kSumOfSmallX * of_x + kSumOfSmallW * of_w;
        if (least > 0.0f) {  // seldom
            float smallest = least;
#pragma unroll
            for (int i = 0; i < 2 * kValues; ++i) {
                const int j = i / 4, next = i % 2, r = i / 2 % 2;
                const bool exists = place.o + 8 * j + 2 * (lane % 4) + next < problem.O &&
                                    box.p + Loader::position(lane, 0, r) < problem.P;
                smallest = exists ? fminf(smallest, fabsf(sum_of(sums, 0, j, r, next))) : smallest;
            }
            suffice = suffice && smallest >= least;
        }
        return __all_sync(0xFFFFFFFF, suffice);
    }

    // To the warps that store, some outputs at a time.
    __device__ __forceinline__ void stage_tile(const Sums& sums, const WindowConstants<kOutputs>& constants) {
        constexpr int kPitch = Traits::kStagedPitch, kGroups = kWindowChunkOutputs / 8;
        // Whose constants are there before the first of them is stored, as registers allow.
        constexpr int kTogether = Traits::kIsTf32 && Traits::kTaps > 3 ? 1 : kGroups;
#pragma unroll
        for (int chunk = 0; chunk < kOutputs / kWindowChunkOutputs; ++chunk) {
            ptx::mbarrier_wait(barriers.stored(chunk_ring.stage), chunk_ring.parity ^ 1);
            Element* const target = staged + chunk_ring.stage * (Traits::kStagedBytes / sizeof(Element));
#pragma unroll
            for (int first = 0; first < kGroups; first += kTogether) {
                Vector<float, 2> bias[kTogether], scale[kTogether];
#pragma unroll
                for (int k = 0; k < kTogether; ++k) {
                    const int o = 8 * (chunk * kGroups + first + k) + 2 * (lane % 4);
                    bias[k] = *reinterpret_cast<const Vector<float, 2>*>(constants.bias + o);
                    if (kIsSplit) scale[k] = *reinterpret_cast<const Vector<float, 2>*>(constants.scale + o);
                }
#pragma unroll
                for (int i = 0; i < 2 * kTogether * Loader::kRuns; ++i) {
                    const int run = i % Loader::kRuns, next = i / Loader::kRuns % 2;
                    const int k = i / Loader::kRuns / 2, j = chunk * kGroups + first + k;
                    Vector<Element, Loader::kRun> values;
#pragma unroll
                    for (int z = 0; z < Loader::kRun; ++z) {
                        float sum = sum_of(sums, Loader::product_of(run, z), j, Loader::row_of(z), next);
                        if (kIsSplit) sum *= scale[k].at[next];
                        values.at[z] = narrow<Element>(sum + bias[k].at[next]);
                    }
                    *reinterpret_cast<Vector<Element, Loader::kRun>*>(
                        target + (8 * (first + k) + next) * kPitch + Loader::run_start(lane, run)) = values;
                }
            }
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.staged(chunk_ring.stage));
            chunk_ring.advance(Traits::kChunks);
        }
    }

    // A tile in which none of this warpgroup's positions exist.
    __device__ __forceinline__ void skip_tile() {
#pragma unroll 1
        for (int32_t i = 0; i < geometry.stages; ++i) {
            ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);
            __syncwarp();  // none misses a phase
            release(ring.stage);
            ring.advance(geometry.ring);
        }
#pragma unroll 1
        for (int chunk = 0; chunk < kOutputs / kWindowChunkOutputs; ++chunk) {
            ptx::mbarrier_wait(barriers.stored(chunk_ring.stage), chunk_ring.parity ^ 1);
            __syncwarp();
            if (lane == 0) ptx::mbarrier_arrive(barriers.staged(chunk_ring.stage));
            chunk_ring.advance(Traits::kChunks);
        }
    }

    __device__ __forceinline__ void run() {
        Ring tiles;
        for (int32_t pair = first_pair(); pair < geometry.pairs; pair += pair_step(), tiles.advance(2)) {
            loader.small = 0;
            const WindowPlace place = place_of_pair<Traits>(geometry, pair);
            if (find_box(geometry, place.box + warp / 4 * (Traits::kBoxes / 2)).n >= problem.N) {
                skip_tile();
                ptx::mbarrier_wait(barriers.constants(tiles.stage), tiles.parity);
                __syncwarp();
                if (lane == 0) ptx::mbarrier_arrive(barriers.constants_read(tiles.stage));
                continue;
            }
            WindowBox box = find_box(geometry, place.box + warp / Traits::kWarpsOfBox);
            box.p += warp % Traits::kWarpsOfBox * Traits::kWarpPositions;
            loader.begin_tile(box.p);
            Sums sums;
            if constexpr (kIsSplit) multiply_split_tile(sums);
            else multiply_tile(sums);
            ptx::mbarrier_wait(barriers.constants(tiles.stage), tiles.parity);
            const WindowConstants<kOutputs>& constants = both_constants[tiles.stage];
            if constexpr (kIsSplit) {
                if (!sums_suffice(sums, box, place, constants) && lane == 0) {
                    const auto most = [](int32_t end, int64_t extent) {
                        return min(end, static_cast<int32_t>(extent));
                    };
                    list_overlapped(geometry.safe, problem, scratch, box.n,
                                    {box.p, most(box.p + Traits::kWarpPositions, problem.P)}, place.group,
                                    {place.o, most(place.o + kOutputs, problem.O)});
                }
                __syncwarp();
            }
            stage_tile(sums, constants);
            if (lane == 0) ptx::mbarrier_arrive(barriers.constants_read(tiles.stage));
        }
    }
};

template <class Loader>
__global__ void __launch_bounds__(kWindowThreads, 1)
    window_sm90_kernel(const __grid_constant__ TensorMap x_map, const __grid_constant__ Problem problem,
                        const __grid_constant__ WindowGeometry geometry,
                        const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    using Traits = typename Loader::Traits;
    using Element = ElementOf<Traits>;
    constexpr int kOutputs = Traits::kOutputs;
    ptx::griddepcontrol_launch_dependents();
    extern __shared__ uint8_t smem_base[];
    uint8_t* const aligned = smem_base + ((128 - (ptx::smem_address(smem_base) & 127)) & 127);
    const uint32_t smem = ptx::smem_address(aligned);
    uint8_t* const staging = aligned + geometry.ring * geometry.stage_bytes;
    auto* const constants = reinterpret_cast<WindowConstants<kOutputs>*>(staging + Traits::kConstantsOffset);
    const WindowBarriers barriers{ptx::smem_address(staging + Traits::kBarriersOffset)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kWindowMostStages; ++i) {
            ptx::mbarrier_init(barriers.full(i), 1);
            ptx::mbarrier_init(barriers.empty(i), kProductWarps * kWindowCluster);
        }
        for (int i = 0; i < kWindowMostChunks; ++i) {
            ptx::mbarrier_init(barriers.staged(i), kProductWarps);
            ptx::mbarrier_init(barriers.stored(i), kWindowStoreWarps);
        }
        for (int i = 0; i < 2; ++i) {
            ptx::mbarrier_init(barriers.constants(i), 1);
            ptx::mbarrier_init(barriers.constants_read(i), kProductWarps);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<Traits::kProductRegisters>();
        Element* const staged = reinterpret_cast<Element*>(staging) +
                                2 * (lane % 4) * Traits::kStagedPitch + warp * Traits::kWarpPositions;
        WindowProduct<Loader> product{geometry,  problem, barriers, scratch,
                                      constants, smem, staged, warp, lane,
                                      Loader(geometry, problem, warp, lane)};
        product.run();
    } else if (warp < kProductWarps + kWindowXWarps + 1) {
        ptx::setmaxnreg_dec<Traits::kOrderRegisters>();
        const int other_warp = warp - kProductWarps;
        if (other_warp == kWindowXWarps)
            bring_weights<Traits>(geometry, problem, smem, barriers, scratch, constants,
                                  lane);
        else if (ptx::elect())
            order_x<Traits>(geometry, problem, x_map, smem, barriers, other_warp);
    } else {
        ptx::setmaxnreg_dec<Traits::kStoreRegisters>();
        using Store = WindowStore<Traits, Element>;
        const int store_warp = warp - kProductWarps - kWindowXWarps - 1;
        Element* const staged =
            reinterpret_cast<Element*>(staging) + store_warp * Store::kRows * Traits::kStagedPitch;
        const Store store{geometry, problem, barriers, staged, store_warp, lane};
        store.run();
    }
    ptx::cluster_sync();  // shared memory outlives what other blocks do there
#endif
}

// What the copy engine loads: where rows lie differently, some that follow each other as one.
template <class Traits>
inline BoxedTensor describe_windows(const Problem& problem, const WindowGeometry& geometry) {
    const int64_t residues = geometry.residues, stride_g = problem.C * problem.x_stride_c;
    // One sample's stride means nothing and may be zero, which the driver refuses.
    return {problem.x,
            Traits::kElementBytes,
            {(residues - 1) * problem.x_stride_c + problem.L, problem.C / residues, problem.G, problem.N},
            {residues * problem.x_stride_c, stride_g,
             problem.N == 1 ? problem.G * stride_g : problem.x_stride_n},
            {Traits::pitch(geometry.residues), static_cast<int32_t>(Traits::kStageChannels / residues), 1, 1},
            false};
}

template <class Loader>
inline Error launch_window_products(const Problem& problem, const Scratch& scratch, cudaStream_t stream) {
    using Traits = typename Loader::Traits;
    const WindowGeometry geometry = cut_windows<Traits>(problem);
    TensorMap x_map;
    Error error = encode_tensor_map(describe_windows<Traits>(problem, geometry), 4, &x_map);
    if (error == nullptr) error = allow_smem<window_sm90_kernel<Loader>>(problem.device);
    if (error != nullptr) return error;
    const int blocks = min(geometry.pairs, clusters_of(problem)) * kWindowCluster;
    return launch_shaped(window_sm90_kernel<Loader>,
                         {blocks, kWindowCluster, kWindowThreads, geometry.smem_bytes, true}, stream, x_map,
                         problem, geometry, scratch);
}

template <class Loader>
Error launch_windows(const Problem& problem, cudaStream_t stream) {
    using Traits = typename Loader::Traits;
    const Geometry packed = packing_of<Traits>(problem);
    Scratch scratch;
    lay_out<Traits::kMode>(problem, packed, static_cast<uint8_t*>(problem.workspace), &scratch);
    if constexpr (Traits::kMode == Mode::f16x3) {
        const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
        pack_split_weights<Mode::tf32x3>(problem, packed, safe, scratch, stream);
        const Error error = launch_window_products<Loader>(problem, scratch, stream);
        return error == nullptr ? launch_listed_tiles(problem, scratch, stream) : error;
    } else {
        pack_weights<Traits::kMode>(problem, packed, scratch, stream);
        return launch_window_products<Loader>(problem, scratch, stream);
    }
}

}  // namespace sm90
}  // namespace conv1d
