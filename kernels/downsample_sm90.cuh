// Dense convolution of three taps at a stride of 2 on Hopper, the downsampling of audio and speech models:
// window_sm90.cuh with a loader that reads four words of a channel at once and one from the lane beside it,
// the windows of two neighbouring positions (four of 16 bits), from which it takes all three taps. Rows that
// do not begin at 16-byte pieces are loaded by their residue: four (eight of 16 bits) neighbouring channels
// make one row of a tensor map, and the lanes' channels begin in different banks.
#pragma once
#include <type_traits>

#include "downsample_sm90_plan.cuh"
#include "gemm_sm90_convert.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"
#include "window_sm90.cuh"

namespace conv1d {
namespace sm90 {

// Lane 4*g + t holds, of a step of 32 bytes of K, words t and t + 4: channels t and t + 4, or, of 16 bits and
// split operands, 2t, 2t + 1 and those + 8. fp32: of positions 2g and 2g + 1 of each 16 of its warp; 16 bits:
// of positions 4g to 4g + 3 of its 32.
template <class Traits_>
struct DownLoader {
    using Traits = Traits_;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kParts = Traits::kParts;
    static constexpr int kTogether = Traits::kTogether;

    // In the staged rows of y.
    static constexpr int kRuns = Traits::kIsTf32 ? 2 : 1, kRun = Traits::kIsFloat ? 2 : 4;
    static __device__ __forceinline__ int run_start(int lane, int run) {
        return 16 * run + kRun * (lane / 4);
    }
    static __device__ __forceinline__ constexpr int product_of(int run, int z) {
        return Traits::kIsFloat ? run : z / 2;
    }
    static __device__ __forceinline__ constexpr int row_of(int z) { return z % 2; }
    static __device__ __forceinline__ int position(int lane, int product, int row) {
        return Traits::kIsFloat ? 16 * product + 2 * (lane / 4) + row : 4 * (lane / 4) + 2 * product + row;
    }

    struct Fragments {
        uint32_t part[kParts][Traits::kTaps][kProducts][4];  // high, then low
    };
    static __device__ __forceinline__ const uint32_t (&operand(const Fragments& fragments, int part, int tap,
                                                               int product))[4] {
        return fragments.part[part][tap][product];
    }

    const int lane;
    const bool apart, odd_padding;    // rows begin between 16-byte pieces; windows at odd elements
    uint32_t lane_offset[kTogether];  // of this lane's first channels and positions, in a stage
    uint32_t half_step;               // from words t to words t + 4
    bool odd[kTogether];              // 16 bits: positions begin at the second half of a word
    int32_t small;                    // f16x3: values of x too small for a split

    __device__ __forceinline__ DownLoader(const WindowGeometry& geometry, const Problem& problem, int warp,
                                          int lane)
        : lane(lane),
          apart(geometry.residues > 1),
          odd_padding(static_cast<uint32_t>(problem.pad_left) % 2 != 0) {
        const int g = lane / 4, t = lane % 4;
        constexpr int kBytes = Traits::kElementBytes, kResidues = Traits::kPiece;
        const int pitch = Traits::pitch(geometry.residues) * kBytes;
        const int rows = Traits::kIsTf32 ? 4 : 8;  // of channels between words t and t + 4
        half_step = rows / geometry.residues * pitch;
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
            const int channel = kTogether * t + u;
            int place = channel * pitch + (odd_padding ? 16 : 0);
            odd[u] = odd_padding;
            if (apart) {
                const int residue = channel % kResidues, late = lateness<Traits>(problem, residue);
                place = residue * (geometry.box_bytes / kResidues) + channel / kResidues * pitch +
                        (Traits::kIsFloat ? late : late / 2) * 4;
                odd[u] = !Traits::kIsFloat && late % 2 != 0;
            }
            lane_offset[u] = Traits::kWeightBytes + warp / Traits::kWarpsOfBox * geometry.box_bytes +
                             warp % Traits::kWarpsOfBox * Traits::kWarpPositions * Traits::kStride * kBytes +
                             16 * g + place;
        }
    }

    __device__ __forceinline__ void begin_tile(int32_t) {}

    // Of each channel, five words that follow each other: the windows of this lane's two neighbouring fp32
    // positions or four of 16 bits. kSpans: of 16 fp32 positions each, 128 bytes apart.
    static constexpr int kSpans = Traits::kIsTf32 ? 2 : 1;
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
        if (apart) {
#pragma unroll
            for (int i = 0; i < kHalves * kTogether * kSpans * 5; ++i) {
                const int j = i % 5, span = i / 5 % kSpans, u = i / 5 / kSpans % kTogether;
                const int half = i / 5 / kSpans / kTogether;
                ptx::ld_shared(words[half][u][span][j],
                               stage + lane_offset[u] + half * half_step + 128 * span + 4 * j);
            }
        } else if (odd_padding) {
            load_aligned<true>(words, stage);
        } else {
            load_aligned<false>(words, stage);
        }
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
            if constexpr (Traits::kIsTf32) {
#pragma unroll
                for (int product = 0; product < kProducts; ++product) {
                    uint32_t(&five)[5] = channels[0][product];
#pragma unroll
                    for (int j = 0; j < 5; ++j) five[j] = round_tf32(five[j]);
#pragma unroll
                    for (int tap = 0; tap < Traits::kTaps; ++tap) {
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
        uint32_t parts[2][5];
        split_values(even, odd_ones, parts, small, [](int) { return true; });
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
#pragma unroll
            for (int tap = 0; tap < Traits::kTaps; ++tap) {
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

    __device__ __forceinline__ void load(Fragments& fragments, uint32_t stage) {
#pragma unroll
        for (int half = 0; half < 2; half += kHalves) load_fragments(fragments, stage, half);
    }
};

}  // namespace sm90

inline Error launch_downsample_sm90(const Problem& problem, cudaStream_t stream) {
    return sm90::with_mode(problem, [&](auto mode) {
        using Traits = sm90::DownTraits<decltype(mode)::value>;
        return sm90::launch_windows<sm90::DownLoader<Traits>>(problem, stream);
    });
}

}  // namespace conv1d
