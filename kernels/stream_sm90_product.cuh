// The product warpgroups of the streaming convolution (stream_sm90.cuh): D = W * X by wgmma, then D to y.
#pragma once
#include <type_traits>

#include "gemm_sm90_product.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "stream_sm90_convert.cuh"
#include "stream_sm90_plan.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN, int kTaps>
struct StreamProduct {
    using Traits = StreamTraits<kMode>;
    using Mma = WgmmaFromRegisters<Traits::kOperand, kN>;
    using Bits = typename Traits::Bits;
    using Element = std::conditional_t<Traits::kIsFloat, float,
                                       std::conditional_t<kMode == Mode::f16, __half, __nv_bfloat16>>;
    static constexpr int kValues = kN / 2, kLead = Traits::kLead, kAdvance = kN - kLead;
    static constexpr int kPitch = Traits::pitch(kN);
    static constexpr int kChunks = Traits::kChunks, kBlocks = kChunks * kTaps;

    const StreamGeometry& geometry;
    const Problem& problem;
    const StreamBarriers& barriers;
    const Scratch& scratch;
    const uint32_t x_smem16;  // in units of 16 bytes
    Bits* const staging;      // [8][kPitch], this warp's own
    const int warp, lane;     // warp of 8: 16 output channels each, or of four
    uint32_t weights[kBlocks][4][4];  // of a tap and chunk, steps of 32 bytes of K, as operand A

    __device__ __forceinline__ int32_t first_channel() const {
        return (geometry.alternate ? warp % 4 : warp) * 16;
    }

    __device__ __forceinline__ void load_weights() {
        const uint32_t* const image = reinterpret_cast<const uint32_t*>(scratch.image);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                const int row = first_channel() + lane / 4 + i % 2 * 8, piece = i / 4 * 2 + i / 2 % 2;
                weights[block][i / 4][i % 4] =
                    __ldg(&image[((block * kTileO + row) * 8 + (piece ^ (row & 7))) * 4 + lane % 4]);
            }
        }
    }

    __device__ __forceinline__ void release(uint32_t barrier) {
        if (lane == 0) ptx::mbarrier_arrive(barrier);
    }

    // The product of step `w` of a tap's weights and step `x` of its rows.
    __device__ __forceinline__ void multiply_step(float (&acc)[kValues], int chunk, int tap, int w, int x,
                                                  uint32_t stage16, bool accumulate) {
        const uint32_t rows16 = stage16 + geometry.tap_row[tap] * (kRowBytes / 16);
        Mma::issue(acc, weights[chunk * kTaps + tap][w], ptx::wgmma_descriptor(rows16 + 2 * x),
                   accumulate);
    }

    // The stages of the tile that was taken as number `taken`; there are 2 or 4.
    __device__ __forceinline__ int32_t stage_of(uint32_t taken, int chunk) const {
        return (taken * kChunks + chunk) & (geometry.x_stages - 1);
    }
    __device__ __forceinline__ void wait_for_x(uint32_t taken, int chunk) const {
        ptx::mbarrier_wait(barriers.x_full(stage_of(taken, chunk)),
                           ((taken * kChunks + chunk) & geometry.x_stages) != 0);
    }

    // f16x3: the product warpgroups take turns, so that one multiplies while the other stores.
    __device__ __forceinline__ void wait_for_turn() const {
        if (warp < 4) ptx::bar_sync<kFirstTurn>(256);
        else ptx::bar_sync<kSecondTurn>(256);
    }
    __device__ __forceinline__ void give_turn() const {
        if (warp < 4) ptx::bar_arrive<kSecondTurn>(256);
        else ptx::bar_arrive<kFirstTurn>(256);
    }

    // All products of the tile that was taken as number `taken` into acc; its first stage is there, and all
    // its stages are left behind. f16x3: first the products with a low part, which are too large by
    // kLowScale: the accumulator truncates.
    __device__ __forceinline__ void multiply_tile(float (&acc)[kValues], uint32_t taken) {
        constexpr bool kIsSplit = kMode == Mode::f16x3;
        const auto stage16_of = [&](int chunk) {
            return x_smem16 + stage_of(taken, chunk) * (geometry.x_stage_bytes / 16);
        };
#pragma unroll
        for (int chunk = 0; chunk < kChunks; ++chunk) {
            if (chunk > 0) wait_for_x(taken, chunk);
            ptx::wgmma_fence();
#pragma unroll
            for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
                for (int k = 0; k < 4; ++k)  // split: a high part times a low one, in turn
                    multiply_step(acc, chunk, tap, k, kIsSplit ? k ^ 2 : k, stage16_of(chunk),
                                  chunk > 0 || tap > 0 || k > 0);
            }
            ptx::wgmma_commit_group();
        }
        if constexpr (kIsSplit) {
            ptx::wgmma_wait_group<0>();
#pragma unroll
            for (int i = 0; i < kValues; ++i) acc[i] *= 1 / kLowScale;
            ptx::wgmma_fence();
#pragma unroll
            for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
                for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
                    for (int k = 0; k < 2; ++k)
                        multiply_step(acc, chunk, tap, k, k, stage16_of(chunk), true);
                }
                ptx::wgmma_commit_group();
            }
        }
        if (kIsSplit) give_turn();
        if constexpr (kChunks > 1) {
            ptx::wgmma_wait_group<1>();
            release(barriers.x_empty(stage_of(taken, 0)));
        }
        ptx::wgmma_wait_group<0>();
        release(barriers.x_empty(stage_of(taken, kChunks - 1)));
    }

    // Row lane/4 of half `half` of this warp's output channels.
    __device__ __forceinline__ int32_t channel_of(int half) const {
        return first_channel() + 8 * half + lane / 4;
    }

    __device__ __forceinline__ float load_bias(int half) const {
        if (problem.bias == nullptr || channel_of(half) >= problem.O) return 0.0f;
        return widen(static_cast<const Element*>(problem.bias)[channel_of(half)]);
    }

    // Two neighbours of a row of D, as they lie in memory.
    using Pair = std::conditional_t<Traits::kIsFloat, float2, uint32_t>;
    using PairBits = std::conditional_t<Traits::kIsFloat, uint2, uint32_t>;
    static __device__ __forceinline__ Pair finish_pair(float first, float second, float scale, float bias) {
        if constexpr (kMode == Mode::f16x3)
            return make_float2(fmaf(first, scale, bias), fmaf(second, scale, bias));
        else
            return Product<kMode, 64, Layout::positions>::round_pair(first + bias, second + bias);
    }

    // Eight staged rows of D to y, of which `target` is where column kLead of the first belongs, position p
    // of its sample. Each row stores kAdvance columns from a 32-byte sector on; a lane moves a Piece of them
    // at once. Some rows are loaded before any of them is stored. kWhole: all positions exist, and all rows.
    template <class Piece, bool kWhole>
    __device__ __forceinline__ void store_rows(Bits* target, int32_t p, int32_t rows) const {
        constexpr int kCount = sizeof(Piece) / sizeof(Bits), kPieces = (kAdvance - 1) / (32 * kCount) + 1;
        constexpr int kRegisters = kPieces * (sizeof(Piece) == 8 ? 2 : 1);  // of a row
        constexpr int kTogether = kRegisters > 4 ? 2 : kRegisters > 3 ? 4 : 8;
        const uint32_t index = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(target) / sizeof(Bits));
        const auto phi_of = [&](int r) -> int32_t {
            if constexpr (kLead == 0) return 0;
            else return (index + r * static_cast<uint32_t>(problem.P)) % kLead;
        };
        const uint32_t source = ptx::smem_address(staging + kLead + kCount * lane);
        Bits* const y = target + kCount * lane;
        const auto exists = [&](int i) { return kCount * lane + 32 * kCount * i < kAdvance; };
#pragma unroll
        for (int first = 0; first < 8; first += kTogether) {
            Piece piece[kTogether][kPieces];
#pragma unroll
            for (int r = 0; r < kTogether; ++r) {
#pragma unroll
                for (int i = 0; i < kPieces; ++i)
                    if (exists(i))
                        ptx::ld_shared(piece[r][i], source + ((first + r) * kPitch - phi_of(first + r) +
                                                              32 * kCount * i) *
                                                                 static_cast<int>(sizeof(Bits)));
            }
#pragma unroll
            for (int r = 0; r < kTogether; ++r) {
                const int32_t phi = phi_of(first + r);
                Bits* const row = y + ((first + r) * problem.P - phi);
#pragma unroll
                for (int i = 0; i < kPieces; ++i) {
                    const int32_t at = p - phi + kCount * lane + 32 * kCount * i;
                    if (exists(i) && (kWhole || (first + r < rows && at >= 0 && at < problem.P)))
                        *reinterpret_cast<Piece*>(row + 32 * kCount * i) = piece[r][i];
                }
            }
        }
    }

    // D through shared memory to y, 8 output channels at a time. `scale` undoes the scales of f16x3.
    __device__ __forceinline__ void store_tile(float (&acc)[kValues], const Announcement& place,
                                               const float (&scale)[2]) {
        const int32_t p = place.row + kLead;
        const bool inside = p >= kLead && p + kAdvance <= problem.P;
        Bits* const y =
            static_cast<Bits*>(problem.y) + (place.sample * problem.O + first_channel()) * problem.P + p;
        const float bias[2] = {load_bias(0), load_bias(1)};
        // f16x3 finishes all before it stages any, or stores would hold up its registers.
        Pair pair[kValues / 2];
#pragma unroll
        for (int i = 0; i < kValues / 2; ++i) {
            pair[i] = finish_pair(acc[2 * i], acc[2 * i + 1], scale[i % 2], bias[i % 2]);
            if (Traits::kIsSplit) ptx::settle(pair[i]);
        }
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
            const int32_t rows = static_cast<int32_t>(problem.O) - first_channel() - 8 * half;
            const uint32_t staged = ptx::smem_address(staging + lane / 4 * kPitch + 2 * (lane % 4));
#pragma unroll
            for (int i = 0; i < 2; ++i) {  // registers have no index
                if (i != half) continue;
#pragma unroll
                for (int j = 0; j < kN / 8; ++j)
                    ptx::st_shared(staged + 8 * j * sizeof(Bits), pair[2 * j + i]);
            }
            __syncwarp();
            if (problem.activation != Activation::none)
                activate_staged(problem.activation, reinterpret_cast<Element*>(staging), 8 * kPitch);
            Bits* const target = y + 8 * half * problem.P;
            if (geometry.paired && inside && rows >= 8) store_rows<PairBits, true>(target, p, rows);
            else if (geometry.paired) store_rows<PairBits, false>(target, p, rows);
            else store_rows<Bits, false>(target, p, rows);
            __syncwarp();
        }
    }

    // f16x3: what undoes the scales of x and w, and how many weights are too small.
    __device__ __forceinline__ float2 load_scaling(int half) const {
        return scratch.row_scaling[channel_of(half)];
    }

    // f16x3: whether x and weights are in range, and sums large enough for the values that were too small;
    // see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const float (&acc)[kValues], const Announcement& place,
                                                 int32_t doubts) const {
        if (doubts >= kTooLarge) return false;
        const float of_x = kSumOfSmallX * static_cast<float>(doubts);
        const float2 scaling[2] = {load_scaling(0), load_scaling(1)};
        const float least[2] = {channel_of(0) < problem.O ? of_x + kSumOfSmallW * scaling[0].y : 0.0f,
                                channel_of(1) < problem.O ? of_x + kSumOfSmallW * scaling[1].y : 0.0f};
        bool suffice = scaling[0].x > 0.0f && scaling[1].x > 0.0f;
        const int32_t begin = place.row + 2 * (lane % 4);
#pragma unroll
        for (int i = 0; i < kValues; ++i) {
            const uint32_t p = begin + 8 * (i / 4) + i % 2;
            suffice &= fabsf(acc[i]) >= least[i / 2 % 2] || p >= static_cast<uint32_t>(problem.P);
        }
        return __all_sync(0xFFFFFFFF, suffice);
    }

    __device__ __forceinline__ void run() {
        ptx::griddepcontrol_wait();  // for packed weights; x is ordered and converted meanwhile
        load_weights();
        float scale[2] = {1.0f, 1.0f};
        bool doubtful = false;  // f16x3: some weights of this warp are out of range or too small
        if constexpr (kMode == Mode::f16x3) {
            const float2 scaling[2] = {load_scaling(0), load_scaling(1)};
            scale[0] = scaling[0].x, scale[1] = scaling[1].x;
            const bool right = scale[0] > 0.0f && scale[1] > 0.0f && scaling[0].y + scaling[1].y == 0.0f;
            doubtful = !__all_sync(0xFFFFFFFF, right);
            if (warp >= 4) give_turn();  // the first one is the other's
        }
        const uint32_t step = geometry.alternate ? 2 : 1;
        for (uint32_t taken = geometry.alternate ? warp / 4 : 0;; taken += step) {
            if (kMode == Mode::f16x3) wait_for_turn();
            wait_for_x(taken, 0);  // what is converted has been announced
            const int slot = taken % kStreamTileSlots;
            if (__shfl_sync(0xFFFFFFFF, barriers.tile[slot].tile, 0) < 0) break;
            float acc[kValues];
            multiply_tile(acc, taken);
            const Announcement place = read_tile(barriers, slot);  // only now: registers are scarce
            if constexpr (kMode == Mode::f16x3) {
                const int32_t doubts = __shfl_sync(0xFFFFFFFF, barriers.doubts[taken % kStreamCounters], 0);
                if ((doubtful || doubts > 0) && !sums_suffice(acc, place, doubts)) {
                    const int32_t end = min(place.row + kN, static_cast<int32_t>(problem.P));
                    if (lane == 0)
                        list_overlapped(geometry.safe, problem, scratch, place.sample,
                                        {max(place.row, 0), end}, 0, {0, static_cast<int32_t>(problem.O)});
                    __syncwarp();
                }
            }
            release(barriers.tile_empty(slot));
            store_tile(acc, place, scale);
        }
        if (kMode == Mode::f16x3) give_turn();
    }
};

}  // namespace sm90
}  // namespace conv1d
