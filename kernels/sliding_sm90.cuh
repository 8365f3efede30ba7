// Dense convolution of three or five taps at a stride of 1 on Hopper: window_sm90.cuh with x of neighbouring
// positions in a lane, which loads the words that all their taps need once.
#pragma once
#include <type_traits>

#include "gemm_sm90_convert.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "sliding_sm90_plan.cuh"
#include "tile.cuh"
#include "window_sm90.cuh"

namespace conv1d {
namespace sm90 {

// Lane 4*g + t holds, of a step of 32 bytes of K, words t and t + 4: channels t and t + 4, or, of 16 bits and
// split operands, 2t, 2t + 1 and those + 8; of positions kSpan*g of its warp and those that follow. Rows g
// and g + 8 of product i are of these i and i + kProducts.
template <class Traits_>
struct SlideLoader {
    using Traits = Traits_;
    static constexpr bool kIsSplit = Traits::kIsSplit;
    static constexpr int kProducts = Traits::kProducts, kSpan = 2 * kProducts;
    static constexpr int kParts = kIsSplit ? 2 : 1;
    static constexpr int kTogether = Traits::kIsTf32 ? 1 : 2;  // channels whose numbers share words
    // In the staged rows of y.
    static constexpr int kRuns = 1, kRun = kSpan;
    static __device__ __forceinline__ int run_start(int lane, int) { return kSpan * (lane / 4); }
    static __device__ __forceinline__ constexpr int product_of(int, int z) { return z % kProducts; }
    static __device__ __forceinline__ constexpr int row_of(int z) { return z / kProducts; }
    static __device__ __forceinline__ int position(int lane, int product, int row) {
        return kSpan * (lane / 4) + product + kProducts * row;
    }

    // Operand A of tap k of product i: numbers k + i and k + i + kProducts of those in the windows of all
    // positions, which is that of tap k + 1 of the product before.
    static constexpr int kNumbers = Traits::kTaps + kSpan - 1, kOperands = Traits::kTaps + kProducts - 1;
    struct Fragments {
        uint32_t part[kParts][kOperands][4];  // high, then low
    };
    static __device__ __forceinline__ const uint32_t (&operand(const Fragments& fragments, int part, int tap,
                                                               int product))[4] {
        return fragments.part[part][tap + product];
    }

    // 16 bits: rows of odd channels may begin in the middle of a 16-byte piece. All come with what lies
    // around them, which must not count as padding.
    static constexpr bool kMayBeApart = !Traits::kIsFloat;

    const Problem& problem;
    const int lane;
    const bool apart;
    uint32_t lane_offset[kTogether];  // of this lane's first channels and position, in a stage
    uint32_t half_step;               // from words t to words t + 4
    int late;                         // elements from there to the window of the first position
    bool has_padding = false;         // apart: of this tile's windows of this warp, some reach out of the row
    int32_t first;                    // apart: where that of the first position begins in the row
    int32_t small;                    // f16x3: values of x too small for a split

    __device__ __forceinline__ SlideLoader(const WindowGeometry& geometry, const Problem& problem, int warp,
                                           int lane)
        : problem(problem), lane(lane), apart(kMayBeApart && geometry.residues > 1) {
        const int t = lane % 4;
        const int pitch = (apart ? Traits::kApartPitch : Traits::kPitch) * Traits::kElementBytes;
        half_step = (Traits::kIsTf32 || apart ? 4 : 8) * pitch;
        const int position = warp % Traits::kWarpsOfBox * Traits::kWarpPositions + kSpan * (lane / 4);
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
            const int late_in_box = lateness<Traits>(problem, apart ? u : 0);
            const int row = apart ? u * (geometry.box_bytes / 2) + t * pitch : (kTogether * t + u) * pitch;
            late = late_in_box % kSpan;  // the same of both
            lane_offset[u] = Traits::kWeightBytes + warp / Traits::kWarpsOfBox * geometry.box_bytes + row +
                             (position + late_in_box / kSpan * kSpan) * Traits::kElementBytes;
        }
    }

    // Of a tile in which this warp's positions begin at p.
    __device__ __forceinline__ void begin_tile(int32_t p) {
        if (!apart) return;
        const int32_t begin = p - static_cast<int32_t>(problem.pad_left), L = static_cast<int32_t>(problem.L);
        has_padding = begin < 0 || begin + Traits::kWarpPositions + Traits::kTaps - 1 > L;
        first = begin + kSpan * (lane / 4);
    }

    // All of one stage of x. kLate: elements from this lane's first to the window of its first position.
    template <int kLate>
    __device__ __forceinline__ void load_fragments(Fragments& fragments, uint32_t stage) {
        constexpr int kBlocks = (kLate + kNumbers + kSpan - 1) / kSpan;
        constexpr int kWords = kSpan * Traits::kElementBytes / 4;  // of a block
        using Block = std::conditional_t<kWords == 4, uint4, uint2>;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            uint32_t words[kTogether][kBlocks * kWords];
#pragma unroll
            for (int u = 0; u < kTogether; ++u) {
#pragma unroll
                for (int i = 0; i < kBlocks; ++i) {
                    Block block;
                    ptx::ld_shared(block, stage + lane_offset[u] + half * half_step +
                                              i * static_cast<int>(sizeof(Block)));
                    uint32_t* const to = words[u] + i * kWords;
                    to[0] = block.x, to[1] = block.y;
                    if constexpr (kWords == 4) to[2] = block.z, to[3] = block.w;
                }
            }
            uint32_t numbers[kParts][kNumbers];
            if constexpr (Traits::kIsTf32) {
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) numbers[0][j] = round_tf32(words[0][kLate + j]);
            } else if constexpr (kIsSplit) {
                uint32_t smallest = 0x7FFF7FFF;
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) {
                    const float first = __uint_as_float(words[0][kLate + j]);
                    const float second = __uint_as_float(words[kTogether - 1][kLate + j]);
                    numbers[0][j] = split_f16(first * kXScale, second * kXScale, numbers[kParts - 1][j]);
                    smallest = ptx::min_magnitude_f16(smallest, numbers[0][j]);
                }
                if (min(smallest & 0xFFFF, smallest >> 16) <= kSmallestHigh) {  // zeros are counted only now
#pragma unroll
                    for (int j = 0; j < kNumbers; ++j) {
                        if (j >= kSpan && lane < 28) continue;  // another lane's
                        small += is_too_small(words[0][kLate + j]) +
                                 is_too_small(words[kTogether - 1][kLate + j]);
                    }
                }
            } else {
#pragma unroll
                for (int j = 0; j < kNumbers; ++j) {
                    const int at = kLate + j;
                    numbers[0][j] = __byte_perm(words[0][at / 2], words[kTogether - 1][at / 2],
                                                at % 2 != 0 ? 0x7632 : 0x5410);
                }
            }
#pragma unroll
            for (int part = 0; part < kParts; ++part) {
#pragma unroll
                for (int i = 0; i < kOperands; ++i) {
                    fragments.part[part][i][2 * half] = numbers[part][i];
                    fragments.part[part][i][2 * half + 1] = numbers[part][i + kProducts];
                }
            }
        }
    }

    __device__ __forceinline__ void load(Fragments& fragments, uint32_t stage) {
        if (late == 0) load_fragments<0>(fragments, stage);
        else if (late == 1) load_fragments<1>(fragments, stage);
        else if (late == 2) load_fragments<2 % kSpan>(fragments, stage);
        else load_fragments<3 % kSpan>(fragments, stage);
        if (kMayBeApart && has_padding) {
#pragma unroll
            for (int i = 0; i < kOperands; ++i) {
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    if (static_cast<uint32_t>(first + i + r * kProducts) >= static_cast<uint32_t>(problem.L))
                        fragments.part[0][i][r] = fragments.part[0][i][2 + r] = 0;
                }
            }
        }
    }
};

// Those of five taps are compiled in sliding_sm90_five.cu.
#define CONV1D_SM90_SLIDE(mode, outputs) \
    Error launch_windows<SlideLoader<WindowTraits<Mode::mode, 5, 1, outputs>>>(const Problem&, cudaStream_t);
#define CONV1D_SM90_SLIDES_OF_FIVE(what) \
    what CONV1D_SM90_SLIDE(tf32, 128)    \
    what CONV1D_SM90_SLIDE(tf32, 64)     \
    what CONV1D_SM90_SLIDE(f16x3, 128)   \
    what CONV1D_SM90_SLIDE(f16x3, 64)    \
    what CONV1D_SM90_SLIDE(f16, 128)     \
    what CONV1D_SM90_SLIDE(f16, 64)      \
    what CONV1D_SM90_SLIDE(bf16, 128)    \
    what CONV1D_SM90_SLIDE(bf16, 64)
CONV1D_SM90_SLIDES_OF_FIVE(extern template)

}  // namespace sm90
}  // namespace conv1d
