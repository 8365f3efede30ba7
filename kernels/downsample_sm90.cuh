// Dense convolution of three taps at a stride of 2 on Hopper, the downsampling of audio and speech models.
//
// gemm_sm90.cuh converts x to K-major rows once for every tile of outputs, which at a stride of 2 takes as
// long as the products. Here x stays in shared memory as the copy engine brings it, [channel][position], and
// is operand A, from registers: D[position][output] = x^T * W^T. Two product warpgroups take 128 positions
// each (64 of split operands) of the same 128 outputs. A lane reads four words of a channel at once and one
// from the lane beside it: the windows of two neighbouring positions (four of 16 bits), from which it takes
// all three taps. Rows that do not begin at 16-byte pieces are loaded by their residue: four (eight of 16
// bits) neighbouring channels make one row of a tensor map, and the lanes' channels begin in different banks.
// Four warps order them, some channels with their packed weights a stage. fp32 runs as three fp16 products;
// what those cannot hold is done again by gemm_sm90.cuh, tile by tile (Mode). Sums add terms in the order of
// channels, a stage at a time, taps within. results/findings.md has what was measured.
#pragma once
#include <type_traits>

#include "downsample_sm90_plan.cuh"
#include "gemm_sm90_convert.cuh"
#include "gemm_sm90_pipeline.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tensor_map.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

namespace conv1d {
namespace sm90 {

struct DownBarriers {
    uint32_t base;
    __device__ __forceinline__ uint32_t full(int stage) const { return base + 8 * stage; }
    __device__ __forceinline__ uint32_t empty(int stage) const {
        return base + 8 * (kDownMostStages + stage);
    }
};

// Where a part of a tile lies: the positions of one warpgroup.
struct DownPlace {
    int32_t group, o;  // the first output, inside the group
    int32_t n, p;      // the sample, N where there is none; the first position
};

// Tiles of one window of x and all outputs follow each other, so x is shared in L2.
template <Mode kMode>
__device__ __forceinline__ DownPlace place_part(const DownGeometry& geometry, const Problem& problem,
                                                int32_t tile, int warpgroup) {
    const int32_t rest = tile / geometry.o_tiles, groups = static_cast<int32_t>(problem.G);
    const int32_t window = rest / groups, part = 2 * window + warpgroup, n = part / geometry.parts_per_sample;
    return {rest - window * groups, (tile - rest * geometry.o_tiles) * kDownOutputs, n,
            (part - n * geometry.parts_per_sample) * DownTraits<kMode>::kPositions};
}

// How far the row of channel c begins behind a 16-byte piece, in elements: that of its residue.
template <Mode kMode>
__device__ __forceinline__ int32_t lateness(const Problem& problem, int residue) {
    return residue * static_cast<int32_t>(problem.x_stride_c % DownTraits<kMode>::kResidues) %
           DownTraits<kMode>::kResidues;
}

// One thread of each of kDownOrderWarps warps: orders its share of each stage's x, of which each block of a
// cluster brings one part to all; the first one this block's weights as well.
template <Mode kMode>
__device__ __forceinline__ void order_down(const DownGeometry& geometry, const Problem& problem,
                                           const TensorMap& x_map, uint32_t smem,
                                           const DownBarriers& barriers, const uint8_t* image, int warp) {
    using Traits = DownTraits<kMode>;
    constexpr int kSharers = kDownOrderWarps * kDownCluster;
    constexpr uint16_t kAllBlocks = (1 << kDownCluster) - 1;
    const int32_t residues = geometry.residues, boxes = Traits::kSubs * residues;
    const int32_t sharer = static_cast<int32_t>(ptx::cluster_ctarank()) * kDownOrderWarps + warp;
    // All of them in one span of 64 positions.
    const int32_t begin = boxes * sharer / kSharers, end = boxes * (sharer + 1) / kSharers;
    // Stages do not wait for a warp that has none: to it a parity two phases on would look like no change.
    if (warp > 0 && begin == end) return;
    const int32_t sub = begin / residues, box_bytes = geometry.sub_bytes / residues;
    const int32_t stride_c = static_cast<int32_t>(problem.x_stride_c);
    // An odd padding: positions begin one element before a piece.
    const int32_t early = problem.pad_left % 2 != 0 ? Traits::kResidues : 0;
    if (warp == 0) ptx::griddepcontrol_wait();  // for packed weights
    Ring ring;
    ring.parity = 1;  // an empty ring: the first waits return at once
    for (int32_t tile = blockIdx.x; tile < geometry.tiles; tile += gridDim.x) {
        const DownPlace place = place_part<kMode>(geometry, problem, tile, sub / Traits::kProducts);
        // Of a part that does not exist, the x of another.
        const int32_t n = min(place.n, static_cast<int32_t>(problem.N) - 1);
        const int32_t l = (place.p + sub % Traits::kProducts * kDownSub) * kDownStride - early;
        const int32_t image_tile = place.group * geometry.o_tiles + place.o / kDownOutputs;
        const uint8_t* weights = image + int64_t{image_tile} * geometry.stages * Traits::kWeightBytes;
#pragma unroll 1
        for (int32_t i = 0; i < geometry.stages; ++i, weights += Traits::kWeightBytes) {
            const uint32_t full = barriers.full(ring.stage), stage = smem + ring.stage * geometry.stage_bytes;
            ptx::mbarrier_wait(barriers.empty(ring.stage), ring.parity);
            if (warp == 0) {
                ptx::mbarrier_arrive_expect_tx(full, geometry.stage_bytes);
                ptx::cp_async_bulk(stage, weights, Traits::kWeightBytes, full);
            }
#pragma unroll 1
            for (int32_t box = begin; box < end; ++box)
                ptx::cp_async_bulk_tensor_multicast(
                    stage + Traits::kWeightBytes + box * box_bytes, &x_map,
                    (l + (box - sub * residues) * stride_c) / Traits::kResidues * Traits::kResidues,
                    i * (Traits::kStageChannels / residues), place.group, n, full, kAllBlocks);
            ring.advance(geometry.ring);
        }
    }
}

// One of the product warpgroups' threads. Lane 4*g + t holds, of a step of 32 bytes of K, words t and t + 4:
// channels t and t + 4, or, of 16 bits and split operands, 2t, 2t + 1 and those + 8. fp32: of positions 2g
// and 2g + 1 of each 16 of its warp; 16 bits: of positions 4g to 4g + 3 of its 32. And these of outputs
// 8*j + 2t and that + 1.
template <Mode kMode>
struct DownProduct {
    using Traits = DownTraits<kMode>;
    using Element = std::conditional_t<Traits::kIsFloat, float,
                                       std::conditional_t<kMode == Mode::f16, __half, __nv_bfloat16>>;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts;
    static constexpr int kColumns = kIsSplit ? kDownOutputs / 2 : kDownOutputs;  // of one product
    static constexpr int kValues = kColumns / 2;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kColumns>;
    static constexpr int kParts = kIsSplit ? 2 : 1;
    static constexpr int kTogether = Traits::kIsTf32 ? 1 : 2;  // channels whose numbers share words
    // Of two products: 64 positions each, or half of the outputs.
    using Sums = float[2][kValues];

    const DownGeometry& geometry;
    const Problem& problem;
    const DownBarriers& barriers;
    const Scratch& scratch;
    const uint32_t smem;
    Element* const staged;  // [kDownStagedOutputs][kStagedPitch], this warp's own
    const int warp, lane;   // warp of 8: warpgroup warp / 4
    uint32_t lane_offset[kTogether];  // of this lane's first channels and positions, in a stage
    uint32_t half_step;               // from words t to words t + 4
    bool odd[kTogether];              // 16 bits: positions begin at the second half of a word
    Ring ring;
    uint32_t largest;  // f16x3: magnitudes of high parts
    int32_t small;     // f16x3: values of x too small for a split

    struct Fragments {
        uint32_t part[kParts][kDownTaps][kProducts][4];  // high, then low
    };

    __device__ __forceinline__ bool has_odd_padding() const {
        return static_cast<uint32_t>(problem.pad_left) % 2 != 0;
    }

    __device__ __forceinline__ void find_lane() {
        const int g = lane / 4, t = lane % 4, sub = warp / (4 / Traits::kProducts);
        constexpr int kBytes = Traits::kElementBytes, kResidues = Traits::kResidues;
        const bool apart = geometry.residues > 1;
        const int pitch = (apart ? Traits::kApartPitch : Traits::kPitch) * kBytes;
        const int rows = Traits::kIsTf32 ? 4 : 8;  // of channels between words t and t + 4
        const bool odd_padding = has_odd_padding();
        half_step = rows / geometry.residues * pitch;
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
            const int channel = kTogether * t + u;
            int place = channel * pitch + (odd_padding ? 16 : 0);
            odd[u] = odd_padding;
            if (apart) {
                const int residue = channel % kResidues, late = lateness<kMode>(problem, residue);
                place = residue * (geometry.sub_bytes / kResidues) + channel / kResidues * pitch +
                        (Traits::kIsFloat ? late : late / 2) * 4;
                odd[u] = !Traits::kIsFloat && late % 2 != 0;
            }
            lane_offset[u] = Traits::kWeightBytes + sub * geometry.sub_bytes +
                             warp % (4 / Traits::kProducts) * Traits::kWarpPositions * kDownStride * kBytes +
                             16 * g + place;
        }
    }

    // Of each channel, five words that follow each other: the windows of this lane's two neighbouring fp32
    // positions or four of 16 bits. kSpans: of 16 fp32 positions each, 128 bytes apart.
    static constexpr int kSpans = kMode == Mode::tf32 ? 2 : 1;
    static constexpr int kHalves = kIsSplit ? 1 : 2;  // at once: as registers allow
    using Words = uint32_t[kHalves][kTogether][kSpans][5];

    // Of rows that begin at 16-byte pieces: four from memory, one from the lane beside. kOddPadding: that is
    // the first, else the last.
    template <bool kOddPadding>
    __device__ __forceinline__ void load_aligned(Words& words, uint32_t stage) const {
        const int g = lane / 4;
        uint4 four[kHalves][kTogether][kSpans];
        uint32_t beside[kHalves][kTogether];
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
                const uint32_t source = stage + lane_offset[u] + half * half_step;
#pragma unroll
                for (int i = 0; i < kSpans; ++i) ptx::ld_shared(four[half][u][i], source + 128 * i);
                beside[half][u] = 0;
                if (kOddPadding) ptx::ld_shared_if(g == 0, beside[half][u], source - 4);
                else ptx::ld_shared_if(g == 7, beside[half][u], source + 128 * (kSpans - 1) + 16);
            }
        }
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
                uint32_t from_lane[kSpans];
#pragma unroll
                for (int i = 0; i < kSpans; ++i) {
                    const uint4& own = four[half][u][i];
                    from_lane[i] = __shfl_sync(0xFFFFFFFF, kOddPadding ? own.w : own.x,
                                               (lane + (kOddPadding ? 28 : 4)) % 32);
                }
#pragma unroll
                for (int i = 0; i < kSpans; ++i) {
                    const uint4& own = four[half][u][i];
                    const int other = kOddPadding ? i - 1 : i + 1;  // the span that goes on beyond this one
                    const bool is_there = other >= 0 && other < kSpans;
                    const uint32_t beyond = is_there ? from_lane[is_there ? other : 0] : beside[half][u];
                    const uint32_t fifth = g == (kOddPadding ? 0 : 7) ? beyond : from_lane[i];
                    constexpr int kFirst = kOddPadding ? 1 : 0;
                    auto& five = words[half][u][i];
                    five[kOddPadding ? 0 : 4] = fifth;
                    five[kFirst] = own.x, five[kFirst + 1] = own.y;
                    five[kFirst + 2] = own.z, five[kFirst + 3] = own.w;
                }
            }
        }
    }

    __device__ __forceinline__ void load_words(Words& words, uint32_t stage) const {
        if (geometry.residues > 1) {
#pragma unroll
            for (int i = 0; i < kHalves * kTogether * kSpans * 5; ++i) {
                const int j = i % 5, span = i / 5 % kSpans, u = i / 5 / kSpans % kTogether;
                const int half = i / 5 / kSpans / kTogether;
                ptx::ld_shared(words[half][u][span][j],
                               stage + lane_offset[u] + half * half_step + 128 * span + 4 * j);
            }
        } else if (has_odd_padding()) {
            load_aligned<true>(words, stage);
        } else {
            load_aligned<false>(words, stage);
        }
    }

    static __device__ __forceinline__ bool is_small(uint32_t bits) {
        return (bits & 0x7FFFFFFF) - 1 < __float_as_uint(kSmallestScaled / kXScale) - 1;
    }

    // All of one stage of x, as operand A of the products of its taps.
    // Split operands take one half, words t or t + 4, at a time.
    __device__ __forceinline__ void load_fragments(Fragments& fragments, uint32_t stage, int first_half) {
        Words words;
        load_words(words, stage + first_half * half_step);
#pragma unroll
        for (int i = 0; i < kHalves; ++i) {
            const int half = first_half + i;
            auto& channels = words[i];
            if constexpr (kMode == Mode::tf32) {
#pragma unroll
                for (int product = 0; product < kProducts; ++product) {
                    uint32_t(&five)[5] = channels[0][product];
#pragma unroll
                    for (int j = 0; j < 5; ++j) five[j] = round_tf32(five[j]);
#pragma unroll
                    for (int tap = 0; tap < kDownTaps; ++tap) {
#pragma unroll
                        for (int r = 0; r < 2; ++r)
                            fragments.part[0][tap][product][2 * half + r] = five[tap + 2 * r];
                    }
                }
            } else if constexpr (kIsSplit) {
                split_words(fragments, channels[0][0], channels[1][0], half);
            } else {
                take_halves(fragments, channels[0][0], channels[1][0], half);
            }
        }
    }

    // f16x3: two channels' words, of two positions.
    __device__ __forceinline__ void split_words(Fragments& fragments, const uint32_t (&even)[5],
                                                const uint32_t (&odd_ones)[5], int half) {
        uint32_t parts[2][5], smallest = 0x7FFF7FFF;
#pragma unroll
        for (int j = 0; j < 5; ++j) {
            const uint32_t first = even[j], second = odd_ones[j];
            parts[0][j] = split_f16(__uint_as_float(first) * kXScale, __uint_as_float(second) * kXScale,
                                    parts[1][j]);
            largest = ptx::max_magnitude_f16(largest, parts[0][j]);
            smallest = ptx::min_magnitude_f16(smallest, parts[0][j]);
        }
        if (min(smallest & 0xFFFF, smallest >> 16) <= kSmallestHigh) {  // zeros are counted only now
#pragma unroll
            for (int j = 0; j < 5; ++j) small += is_small(even[j]) + is_small(odd_ones[j]);
        }
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
#pragma unroll
            for (int tap = 0; tap < kDownTaps; ++tap) {
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    fragments.part[part][tap][0][2 * half + r] = parts[part][tap + 2 * r];
            }
        }
    }

    // 16 bits: of two channels the numbers of four positions. Position z's tap k is number 2*z + k of the
    // channel's words, or the one behind it.
    __device__ __forceinline__ void take_halves(Fragments& fragments, const uint32_t (&first)[5],
                                                const uint32_t (&second)[5], int half) const {
        const uint32_t outer = (odd[0] ? 0x32 : 0x10) | (odd[1] ? 0x7600 : 0x5400);
        const uint32_t inner = (odd[0] ? 0x10 : 0x32) | (odd[1] ? 0x5400 : 0x7600);
#pragma unroll
        for (int z = 0; z < 4; ++z) {
            const uint32_t middle[2] = {odd[0] ? first[z + 1] : first[z], odd[1] ? second[z + 1] : second[z]};
            auto& taps = fragments.part[0];
            const int i = z / 2, at = 2 * half + z % 2;
            taps[0][i][at] = __byte_perm(first[z], second[z], outer);
            taps[1][i][at] = __byte_perm(middle[0], middle[1], inner);
            taps[2][i][at] = __byte_perm(first[z + 1], second[z + 1], outer);
        }
    }

    // The registers of A must not be written between products.
    static __device__ __forceinline__ void settle(Fragments& fragments) {
        uint32_t* const registers = &fragments.part[0][0][0][0];
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof(Fragments) / 4); ++i) ptx::settle(registers[i]);
    }

    // To each block of the cluster, as each brings x to all.
    __device__ __forceinline__ void release(int32_t stage) {
        if (lane < kDownCluster) ptx::mbarrier_arrive_cluster(ptx::mapa(barriers.empty(stage), lane));
    }

    // The next stage, once it is there.
    __device__ __forceinline__ void load_stage(Fragments& fragments) {
        ptx::mbarrier_wait(barriers.full(ring.stage), ring.parity);
#pragma unroll
        for (int half = 0; half < 2; half += kHalves)
            load_fragments(fragments, smem + ring.stage * geometry.stage_bytes, half);
    }

    // All products of one tile. f16x3: those with a low part first, which are too large by kLowScale; the
    // accumulator truncates, totals round to nearest.
    __device__ __forceinline__ void multiply_tile(Sums& sums) {
        Sums total;
        if constexpr (kIsSplit) {
#pragma unroll
            for (int i = 0; i < 2 * kValues; ++i) total[i % 2][i / 2] = 0.0f;
        }
        Fragments fragments[kIsSplit ? 1 : 2];
        bool accumulate = false;
        int32_t done = -1;  // a stage whose products may still be running
#pragma unroll 1
        for (int32_t first = 0; first < geometry.stages; first += 2) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                Fragments& current = fragments[kIsSplit ? 0 : i];
                const int32_t number = ring.stage;
                load_stage(current);
                settle(current);
                const uint32_t stage = smem + number * geometry.stage_bytes;
                ring.advance(geometry.ring);
                // The products of all taps: x's high or low part by that of w, of one part of the outputs.
                const auto multiply = [&](int outputs, int x_part, int w_part, bool adds) {
                    ptx::wgmma_fence();
#pragma unroll
                    for (int tap = 0; tap < kDownTaps; ++tap) {
                        const uint32_t w = stage + w_part * Traits::kWeightPartBytes +
                                           (tap * kDownOutputs + outputs * kColumns) * 32;
#pragma unroll
                        for (int product = 0; product < kProducts; ++product)
                            Mma::issue(sums[kIsSplit ? outputs : product],
                                       current.part[x_part][tap][product],
                                       ptx::wgmma_descriptor_plain<256>(w / 16), adds || tap > 0);
                    }
                };
                if constexpr (kIsSplit) {
                    // One half of the outputs is multiplied while the other's sums are added.
#pragma unroll
                    for (int outputs = 0; outputs < 2; ++outputs) {
                        multiply(outputs, 1, 0, false);
                        multiply(outputs, 0, 1, true);
                        ptx::wgmma_commit_group();
                    }
#pragma unroll
                    for (int outputs = 0; outputs < 2; ++outputs) {
                        ptx::wgmma_wait_group<1>();
#pragma unroll
                        for (int j = 0; j < kValues; ++j)
                            total[outputs][j] = fmaf(sums[outputs][j], 1 / kLowScale, total[outputs][j]);
                        multiply(outputs, 0, 0, false);
                        ptx::wgmma_commit_group();
                    }
#pragma unroll
                    for (int outputs = 0; outputs < 2; ++outputs) {
                        if (outputs == 0) ptx::wgmma_wait_group<1>();
                        else ptx::wgmma_wait_group<0>();
#pragma unroll
                        for (int j = 0; j < kValues; ++j) total[outputs][j] += sums[outputs][j];
                    }
                    release(number);
                } else {
                    multiply(0, 0, 0, accumulate);
                    ptx::wgmma_commit_group();
                    accumulate = true;
                    ptx::wgmma_wait_group<1>();  // the stage before this one is done
                    if (done >= 0) release(done);
                    done = number;
                }
            }
        }
        if constexpr (kIsSplit) {
#pragma unroll
            for (int i = 0; i < 2 * kValues; ++i) sums[i % 2][i / 2] = total[i % 2][i / 2];
        } else {
            ptx::wgmma_wait_group<0>();
            release(done);
        }
    }

    // Of output place.o + lane + 32*i.
    __device__ __forceinline__ float load_bias(const DownPlace& place, int i) const {
        const int32_t o = place.o + lane + 32 * i;
        if (problem.bias == nullptr || o >= problem.O) return 0.0f;
        return widen(static_cast<const Element*>(problem.bias)[place.group * problem.O + o]);
    }
    // f16x3, likewise: what undoes the scales of x and w, and how many weights are too small.
    __device__ __forceinline__ float2 load_scaling(const DownPlace& place, int i) const {
        return scratch.row_scaling[(place.group * geometry.o_tiles * kDownOutputs) + place.o + lane + 32 * i];
    }

    // That of output 8*j + 2t + next and position_of(i, r).
    static __device__ __forceinline__ float sum_of(const Sums& sums, int i, int j, int r, int next) {
        constexpr int kGroups = kColumns / 8;
        return sums[kIsSplit ? j / kGroups : i][4 * (j % kGroups) + 2 * r + next];
    }
    // One of this warp's positions.
    __device__ __forceinline__ int32_t position_of(int i, int r) const {
        return Traits::kIsFloat ? 16 * i + 2 * (lane / 4) + r : 4 * (lane / 4) + 2 * i + r;
    }

    // f16x3: whether x and weights are in range, and sums large enough for the values that were too small;
    // see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const Sums& sums, const DownPlace& place,
                                                 const float2 (&scaling)[4]) const {
        const float2 most = __half22float2(*reinterpret_cast<const __half2*>(&largest));
        bool suffice = most.x <= kLargestScaled && most.y <= kLargestScaled;
        const float of_x = kSumOfSmallX * static_cast<float>(__reduce_add_sync(0xFFFFFFFF, small));
#pragma unroll
        for (int j = 0; j < kDownOutputs / 8; ++j) {
#pragma unroll
            for (int next = 0; next < 2; ++next) {
                const int o = 8 * j + 2 * (lane % 4) + next;
                const float2 of_output = {__shfl_sync(0xFFFFFFFF, scaling[j / 4].x, o % 32),
                                          __shfl_sync(0xFFFFFFFF, scaling[j / 4].y, o % 32)};
                if (place.o + o >= problem.O) continue;
                const float least = of_x + kSumOfSmallW * of_output.y;
                suffice = suffice && of_output.x > 0.0f;
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    suffice = suffice && (fabsf(sum_of(sums, 0, j, r, next)) >= least ||
                                          place.p + position_of(0, r) >= problem.P);
            }
        }
        const bool exists = place.n < problem.N && place.p < problem.P;
        return __all_sync(0xFFFFFFFF, suffice || !exists);
    }

    // Through shared memory, some outputs at a time, to rows of y.
    __device__ __forceinline__ void store_tile(const Sums& sums, const DownPlace& place,
                                               const float (&bias)[4], const float2 (&scaling)[4]) const {
        constexpr int kStagedPitch = Traits::kStagedPitch, kOutputs = kDownStagedOutputs;
        constexpr int kRows = 32 / Traits::kWarpPositions;  // stored at once
        const int32_t position = lane % Traits::kWarpPositions, row = lane / Traits::kWarpPositions;
        const int64_t first = (place.n * problem.G + place.group) * problem.O + place.o + row;
        Element* y = static_cast<Element*>(problem.y) + first * problem.P + place.p + position;
        const bool exists = place.n < problem.N && place.p + position < problem.P;
        int32_t outputs = exists ? static_cast<int32_t>(problem.O) - place.o - row : 0;
#pragma unroll
        for (int begin = 0; begin < kDownOutputs; begin += kOutputs, outputs -= kOutputs) {
#pragma unroll
            for (int k = 0; k < kOutputs / 8; ++k) {
#pragma unroll
                for (int next = 0; next < 2; ++next) {
                    const int j = begin / 8 + k, o = 8 * k + 2 * (lane % 4) + next;
                    const int of_lane = (begin + o) % 32;
                    const float added = __shfl_sync(0xFFFFFFFF, bias[j / 4], of_lane);
                    const float scale =
                        kIsSplit ? __shfl_sync(0xFFFFFFFF, scaling[j / 4].x, of_lane) : 1.0f;
#pragma unroll
                    for (int i = 0; i < kProducts; ++i) {
                        Vector<Element, 2> pair;
#pragma unroll
                        for (int r = 0; r < 2; ++r) {
                            const float sum = sum_of(sums, i, j, r, next);
                            pair.at[r] = narrow<Element>(kIsSplit ? fmaf(sum, scale, added) : sum + added);
                        }
                        *reinterpret_cast<Vector<Element, 2>*>(staged + o * kStagedPitch +
                                                               position_of(i, 0)) = pair;
                    }
                }
            }
            __syncwarp();
            if (problem.activation != Activation::none)
                activate_staged(problem.activation, staged, kOutputs * kStagedPitch);
            constexpr int kLoads = 8;  // before any is stored
#pragma unroll
            for (int i = 0; i < kOutputs; i += kLoads * kRows, y += kLoads * kRows * problem.P) {
                Element values[kLoads];
#pragma unroll
                for (int k = 0; k < kLoads; ++k)
                    values[k] = staged[(i + k * kRows + row) * kStagedPitch + position];
#pragma unroll
                for (int k = 0; k < kLoads; ++k)
                    if (i + k * kRows < outputs) y[k * kRows * problem.P] = values[k];
            }
            __syncwarp();
        }
    }

    __device__ __forceinline__ void run() {
        find_lane();
        if (kIsSplit) ptx::griddepcontrol_wait();  // for the scales and an empty list
#pragma unroll 1
        for (int32_t tile = blockIdx.x; tile < geometry.tiles; tile += gridDim.x) {
            largest = 0, small = 0;
            Sums sums;
            multiply_tile(sums);
            DownPlace place = place_part<kMode>(geometry, problem, tile, warp / 4);  // of this warp
            place.p += warp % 4 * Traits::kWarpPositions;
            float bias[4];  // only now: registers are scarce
            float2 scaling[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                bias[i] = load_bias(place, i);
                if constexpr (kIsSplit) scaling[i] = load_scaling(place, i);
            }
            if constexpr (kIsSplit) {
                if (!sums_suffice(sums, place, scaling) && lane == 0) {
                    const auto most = [](int32_t end, int64_t extent) {
                        return min(end, static_cast<int32_t>(extent));
                    };
                    list_overlapped(geometry.safe, problem, scratch, place.n,
                                    {place.p, most(place.p + Traits::kWarpPositions, problem.P)}, place.group,
                                    {place.o, most(place.o + kDownOutputs, problem.O)});
                }
                __syncwarp();
            }
            store_tile(sums, place, bias, scaling);
        }
    }
};

template <Mode kMode>
__global__ void __launch_bounds__(kDownThreads, 1)
    downsample_sm90_kernel(const __grid_constant__ TensorMap x_map, const __grid_constant__ Problem problem,
                           const __grid_constant__ DownGeometry geometry,
                           const __grid_constant__ Scratch scratch) {
#if __CUDA_ARCH__ == 900
    using Traits = DownTraits<kMode>;
    ptx::griddepcontrol_launch_dependents();
    extern __shared__ uint8_t smem_base[];
    uint8_t* const smem = smem_base + ((1024 - (ptx::smem_address(smem_base) & 1023)) & 1023);
    uint8_t* const staging = smem + geometry.ring * geometry.stage_bytes;
    const DownBarriers barriers{ptx::smem_address(staging + kProductWarps * Traits::kStagedBytes)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < kDownMostStages; ++i) {
            ptx::mbarrier_init(barriers.full(i), 1);
            ptx::mbarrier_init(barriers.empty(i), kProductWarps * kDownCluster);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    // Through a shuffle, so that the compiler knows it is the same in the whole warp.
    const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (warp < kProductWarps) {
        ptx::setmaxnreg_inc<Traits::kProductRegisters>();
        using Element = typename DownProduct<kMode>::Element;
        DownProduct<kMode> product{geometry,
                                   problem,
                                   barriers,
                                   scratch,
                                   ptx::smem_address(smem),
                                   reinterpret_cast<Element*>(staging + warp * Traits::kStagedBytes),
                                   warp,
                                   lane};
        product.run();
    } else {
        ptx::setmaxnreg_dec<Traits::kOrderRegisters>();
        if (ptx::elect())
            order_down<kMode>(geometry, problem, x_map, ptx::smem_address(smem), barriers, scratch.image,
                              warp - kProductWarps);
    }
    ptx::cluster_sync();  // shared memory outlives what other blocks do there
#endif
}

// What the copy engine loads: where rows lie differently, some that follow each other as one.
template <Mode kMode>
inline BoxedTensor describe_down(const Problem& problem, const DownGeometry& geometry) {
    using Traits = DownTraits<kMode>;
    const int64_t residues = geometry.residues, stride_g = problem.C * problem.x_stride_c;
    // One sample's stride means nothing and may be zero, which the driver refuses.
    return {problem.x,
            Traits::kElementBytes,
            {(residues - 1) * problem.x_stride_c + problem.L, problem.C / residues, problem.G, problem.N},
            {residues * problem.x_stride_c, stride_g,
             problem.N == 1 ? problem.G * stride_g : problem.x_stride_n},
            {residues == 1 ? Traits::kPitch : Traits::kApartPitch,
             static_cast<int32_t>(Traits::kStageChannels / residues), 1, 1},
            false};
}

template <Mode kMode>
inline Error launch_down_products(const Problem& problem, const DownGeometry& geometry,
                                  const Scratch& scratch, cudaStream_t stream) {
    TensorMap x_map;
    Error error = encode_tensor_map(describe_down<kMode>(problem, geometry), 4, &x_map);
    if (error == nullptr) error = allow_smem<downsample_sm90_kernel<kMode>>(problem.device);
    if (error != nullptr) return error;
    const int most = max(problem.device.sm_count / kDownCluster * kDownCluster, kDownCluster);
    const int blocks = min(geometry.tiles, most);
    // Begins while weights are packed: see griddepcontrol_wait.
    cudaLaunchAttribute attributes[2]{};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim = {kDownCluster, 1, 1};
    const cudaLaunchConfig_t config{static_cast<unsigned>(blocks), kDownThreads,
                                    static_cast<size_t>(geometry.smem_bytes), stream, attributes, 2};
    cudaLaunchKernelEx(&config, downsample_sm90_kernel<kMode>, x_map, problem, geometry, scratch);
    return launch_error();
}

template <Mode kMode>
inline Error launch_down(const Problem& problem, cudaStream_t stream) {
    const DownGeometry geometry = cut_down<kMode>(problem);
    const Geometry packed = packing_down<kMode>(problem);
    Scratch scratch;
    lay_out<kMode>(problem, packed, static_cast<uint8_t*>(problem.workspace), &scratch);
    if constexpr (kMode == Mode::f16x3) {
        const Geometry safe = choose_cut<Mode::tf32x3>(problem).geometry;
        pack_split_weights<Mode::tf32x3>(problem, packed, safe, scratch, stream);
        const Error error = launch_down_products<kMode>(problem, geometry, scratch, stream);
        return error == nullptr ? launch_listed_tiles(problem, scratch, stream) : error;
    } else {
        pack_weights<kMode>(problem, packed, scratch, stream);
        return launch_down_products<kMode>(problem, geometry, scratch, stream);
    }
}

}  // namespace sm90

inline Error launch_downsample_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_stream_mode(problem, [&](auto mode) {
        return sm90::launch_down<decltype(mode)::value>(problem, stream);
    });
}

}  // namespace conv1d
