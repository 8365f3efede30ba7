// The product warpgroups of the Hopper GEMM (gemm_sm90.cuh): D = W * X by wgmma, then D to y.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "gemm_sm90_pipeline.cuh"
#include "gemm_sm90_plan.cuh"
#include "problem.h"
#include "ptx.cuh"
#include "tile.cuh"
#include "wgmma.cuh"

namespace conv1d {
namespace sm90 {

template <Mode kMode, int kN, Layout kLayout>
struct Product {
    using Traits = ModeTraits<kMode>;
    using Mma = Wgmma<Traits::kOperand, kN>;
    using Bits = typename Traits::Bits;
    using Element = std::conditional_t<Traits::kIsFloat, float,
                                       std::conditional_t<kMode == Mode::f16, __half, __nv_bfloat16>>;
    static constexpr int kValues = kN / 2;
    static constexpr int kPitch = Traits::stage_pitch(kN);

    const Geometry& geometry;
    const Problem& problem;
    const Barriers& barriers;
    const Scratch& scratch;
    const uint32_t x_smem, w_smem;
    Bits* const staging;   // [8][kPitch], this warp's own
    const int warp, lane;  // warp of 8: warpgroup warp / 4, in which 16 output channels each
    Ring stages, weights;

    // 32 bytes of K; addresses in units of 16 bytes.
    __device__ __forceinline__ void multiply_step(float (&acc)[kValues], uint32_t w16, uint32_t x16,
                                                  bool accumulate) {
        Mma::issue(acc, ptx::wgmma_descriptor(w16), ptx::wgmma_descriptor(x16), accumulate);
    }

    // The first kSteps steps of a row, of one tap and chunk, issued and committed. Split: on return acc is
    // not yet in `total`.
    template <int kSteps, int kTotal>
    __device__ __forceinline__ void multiply_steps(float (&acc)[kValues], float (&total)[kTotal],
                                                   uint32_t w16, uint32_t x16, bool accumulate) {
        ptx::wgmma_fence();
        if constexpr (Traits::kIsSplit) {  // low parts first: the accumulator truncates
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                multiply_step(acc, w16 + 2 * k, x16 + 2 * (k + 2), k > 0);
                multiply_step(acc, w16 + 2 * (k + 2), x16 + 2 * k, true);
            }
            if constexpr (kMode == Mode::f16x3) {  // these are too large by kLowScale
                ptx::wgmma_commit_group();
                ptx::wgmma_wait_group<0>();
#pragma unroll
                for (int i = 0; i < kValues; ++i) total[i] = fmaf(acc[i], 1 / kLowScale, total[i]);
                ptx::wgmma_fence();
            }
        }
#pragma unroll
        for (int k = 0; k < kSteps; ++k)
            multiply_step(acc, w16 + 2 * k, x16 + 2 * k,
                          kMode == Mode::tf32x3 || (!Traits::kIsSplit && accumulate) || k > 0);
        ptx::wgmma_commit_group();
    }

    // The same of fewer steps than Traits::kSteps: 1 to 3; split: 1.
    template <int kTotal>
    __device__ __forceinline__ void multiply(float (&acc)[kValues], float (&total)[kTotal], uint32_t w16,
                                             uint32_t x16, int32_t steps, bool accumulate) {
        if (!Traits::kIsSplit && steps == 3) multiply_steps<3>(acc, total, w16, x16, accumulate);
        else if (!Traits::kIsSplit && steps == 2) multiply_steps<2>(acc, total, w16, x16, accumulate);
        else multiply_steps<1>(acc, total, w16, x16, accumulate);
    }

    __device__ __forceinline__ void release(uint32_t barrier) {
        if (lane == 0) ptx::mbarrier_arrive(barrier);
    }

    // Whether no column of this place is an output.
    __device__ __forceinline__ bool is_behind_end(const Announcement& place) const {
        return place.sample >= problem.N || (!geometry.flat && place.row >= problem.P);
    }

    // What a loop over taps multiplies: nothing, as many steps as have channels, or all steps: of the first
    // tap, which overwrites acc, of others at any stride, and at a stride of 1.
    enum class Taps { none, some, first, quick, quick_adjacent };

    // All products of one tile into acc. The instructions between two products bound a warpgroup that has few
    // columns, so most taps have no branches there.
    __device__ __forceinline__ void multiply_tile(float (&acc)[kValues], const Announcement& place) {
        // A warpgroup without outputs multiplies nothing, but passes the stages on like the other.
        const bool idle = place.channel >= problem.O || is_behind_end(place);
        const uint32_t w_warpgroup16 =
            (w_smem + (geometry.share == Share::channels ? warp / 4 * kWarpgroupO * kRowBytes : 0)) / 16;
        const int32_t first_row = geometry.share == Share::columns ? warp / 4 * geometry.advance : 0;
        const int32_t stride = geometry.stride;
        const int32_t step_shift = geometry.dilation / stride;
        const int32_t step_plane = geometry.dilation - step_shift * stride;
        float total[Traits::kIsSplit ? kValues : 1];
        if constexpr (Traits::kIsSplit) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) total[i] = 0.0f;
        }
        bool accumulates = false;
        int32_t weights_done = -1, stage_done = -1;  // stages whose products may still be running
        const bool releases = lane == 0 && !geometry.resident;
        if (geometry.resident) weights.stage = 0, weights.parity = 0;
        for (int tap_group = 0; tap_group < geometry.tap_groups; ++tap_group) {
            const int32_t taps =
                min(geometry.taps_per_group, geometry.taps - tap_group * geometry.taps_per_group);
            for (int chunk = 0; chunk < geometry.chunks; ++chunk) {
                ptx::mbarrier_wait(barriers.x_full(stages.stage), stages.parity);
                const uint32_t x_stage16 = (x_smem + stages.stage * geometry.x_stage_bytes) / 16;
                constexpr int32_t kStepChannels = Traits::kChunkChannels / Traits::kSteps;
                const int32_t channels = geometry.channels - chunk * Traits::kChunkChannels;
                const int32_t steps = (channels + kStepChannels - 1) / kStepChannels;
                int32_t plane = 0, shift = first_row;
                const auto run_taps = [&](auto kind, int32_t count) {
                    constexpr bool kAdjacent = kind.value == Taps::quick_adjacent;
#pragma unroll 1
                    for (int32_t tap = 0; tap < count; ++tap) {
                        const int32_t plane_begin = kAdjacent ? 0 : plane_row(geometry, plane);
                        const uint32_t x16 = x_stage16 + (shift + plane_begin) * (kRowBytes / 16);
                        const uint32_t w16 = w_warpgroup16 + weights.stage * (geometry.weight_bytes / 16);
                        ptx::mbarrier_wait(barriers.w_full(weights.stage), weights.parity);
                        if constexpr (kind.value == Taps::some)
                            multiply(acc, total, w16, x16, steps, accumulates);
                        else if constexpr (kind.value != Taps::none)
                            multiply_steps<Traits::kSteps>(acc, total, w16, x16, kind.value != Taps::first);
                        accumulates = true;
                        ptx::wgmma_wait_group<Traits::kIsSplit ? 0 : 1>();  // else the tap before is done
                        if constexpr (Traits::kIsSplit && kind.value != Taps::none) {
#pragma unroll
                            for (int i = 0; i < kValues; ++i)
                                total[i] += acc[i];  // the accumulator truncates, this rounds to nearest
                        }
                        if (releases && weights_done >= 0)
                            ptx::mbarrier_arrive(barriers.w_empty(weights_done));
                        if (stage_done >= 0) release(barriers.x_empty(stage_done));
                        stage_done = -1;
                        weights_done = weights.stage;
                        weights.advance(geometry.w_stages);
                        shift += step_shift;
                        if constexpr (!kAdjacent) {
                            plane += step_plane;
                            if (plane >= stride) plane -= stride, ++shift;
                        }
                    }
                };
                // Split operands begin from zero by themselves.
                const int32_t first = Traits::kIsSplit || accumulates ? 0 : 1;
                if (idle) {
                    run_taps(std::integral_constant<Taps, Taps::none>{}, taps);
                } else if (steps < Traits::kSteps) {
                    run_taps(std::integral_constant<Taps, Taps::some>{}, taps);
                } else {
                    if (first > 0) run_taps(std::integral_constant<Taps, Taps::first>{}, first);
                    if (stride > 1) run_taps(std::integral_constant<Taps, Taps::quick>{}, taps - first);
                    else run_taps(std::integral_constant<Taps, Taps::quick_adjacent>{}, taps - first);
                }
                stage_done = stages.stage;
                stages.advance(geometry.x_stages);
            }
        }
        ptx::wgmma_wait_group<0>();
        if (!geometry.resident) release(barriers.w_empty(weights_done));
        release(barriers.x_empty(stage_done));
        if constexpr (Traits::kIsSplit) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) acc[i] = total[i];
        }
    }

    // Two neighbours of a row of D, as they lie in memory.
    using Pair = std::conditional_t<Traits::kIsFloat, float2, uint32_t>;
    static __device__ __forceinline__ Pair round_pair(float first, float second) {
        if constexpr (Traits::kIsFloat) {
            return make_float2(first, second);
        } else if constexpr (kMode == Mode::f16) {
            const __half2 pair = __floats2half2_rn(first, second);
            return *reinterpret_cast<const uint32_t*>(&pair);
        } else {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
            return *reinterpret_cast<const uint32_t*>(&pair);
        }
    }

    // How far row r behind `target` begins behind a 32-byte sector of y, where tiles keep to sectors, or else
    // behind a piece of 16 bytes.
    __device__ __forceinline__ int32_t offset_of(const Bits* target, int32_t r) const {
        const uint32_t index = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(target)) / sizeof(Bits);
        return static_cast<int32_t>((index + r * static_cast<uint32_t>(problem.P)) & geometry.offset_mask);
    }

    // This warp's rows 8*half..8*half + 7 of D. Column c of row r goes to staging[r][phi + c], phi being the
    // row's offset_of. kPaired: all phi are even, so that pairs stay aligned.
    template <bool kPaired>
    __device__ __forceinline__ void stage(const float (&acc)[kValues], int half, int32_t phi) {
        const uint32_t target = ptx::smem_address(staging + lane / 4 * kPitch + 2 * (lane % 4) + phi);
#pragma unroll
        for (int j = 0; j < kN / 8; ++j) {
            const Pair pair = round_pair(acc[4 * j + 2 * half], acc[4 * j + 2 * half + 1]);
            if constexpr (kPaired) ptx::st_shared(target + 8 * j * sizeof(Bits), pair);
            else ptx::st_shared_apart(target + 8 * j * sizeof(Bits), pair);
        }
    }

    // Eight staged rows to y, of which `target` is where column 0 of the first belongs; in flat tiles, of
    // each sample that the tile touches. Staged rows are as far behind 16 bytes as those of y: eight lanes
    // store the whole pieces of a row, and the elements before and behind them.
    __device__ __forceinline__ void store_rows(Bits* target, const Announcement& place, int32_t rows) {
        constexpr int32_t kPiece = 16 / Traits::kElementBytes, kRowLanes = 8;
        const int32_t P = static_cast<int32_t>(problem.P), lead = geometry.lead;
        const int64_t next_sample = problem.G * problem.O * problem.P - geometry.rows_per_sample;
        const int32_t row_lane = lane % kRowLanes;
        int32_t row = place.row;
#pragma unroll 1
        for (int32_t n = place.sample; n < problem.N && row > -kN; ++n) {
            constexpr int kUnroll = Traits::kIsSplit ? 1 : 2;  // two would spill a register
#pragma unroll kUnroll
            for (int32_t r = lane / kRowLanes; r < 8; r += 32 / kRowLanes) {
                const int32_t phi = offset_of(target, r), first = lead > 0 ? lead : phi;
                const int32_t begin = max(first, phi - row);
                const int32_t end = r < rows ? min(first + geometry.advance, phi + P - row) : 0;
                const int32_t pieces = (begin + kPiece - 1) & -kPiece, pieces_end = end & -kPiece;
                const Bits* const staged = staging + r * kPitch;
                Bits* const y = target + r * problem.P - phi;
#pragma unroll
                for (int32_t k = 0; k <= kN / (kPiece * kRowLanes); ++k) {
                    const int32_t piece = pieces + (row_lane + k * kRowLanes) * kPiece;
                    if (piece < pieces_end)
                        *reinterpret_cast<uint4*>(y + piece) =
                            *reinterpret_cast<const uint4*>(staged + piece);
                }
                if (row_lane < kPiece) {
                    const int32_t head = begin + row_lane, tail = max(pieces, pieces_end) + row_lane;
                    if (head < min(pieces, end)) y[head] = staged[head];
                    if (tail < end) y[tail] = staged[tail];
                }
            }
            if (!geometry.flat) break;
            row -= geometry.rows_per_sample;
            target += next_sample;
        }
    }

    // f16x3: of row lane/4 of a half of this warp's output channels.
    __device__ __forceinline__ float2 load_scaling(const Announcement& place, int half) {
        return scratch.row_scaling[place.group * geometry.o_tiles * geometry.tile_o + place.channel +
                                   warp % 4 * 16 + 8 * half + lane / 4];
    }

    // Of row lane/4 of a half of this warp's output channels.
    __device__ __forceinline__ float load_bias(const Announcement& place, int half) {
        const int32_t channel = place.channel + warp % 4 * 16 + 8 * half + lane / 4;
        if (problem.bias == nullptr || channel >= problem.O) return 0.0f;
        const Bits bits = static_cast<const Bits*>(problem.bias)[place.group * problem.O + channel];
        if constexpr (Traits::kIsFloat) return __uint_as_float(bits);
        else if constexpr (kMode == Mode::f16) return __half2float(__ushort_as_half(bits));
        else return __bfloat162float(__ushort_as_bfloat16(bits));
    }

    // D through shared memory to y, 8 output channels at a time.
    __device__ __forceinline__ void store_tile(float (&acc)[kValues], const Announcement& place,
                                               const float (&bias)[2]) {
#pragma unroll
        for (int i = 0; i < kValues; ++i) acc[i] += bias[i / 2 % 2];
        const int32_t channel = place.channel + warp % 4 * 16;  // the first of 16, inside the group
        Bits* const y_warp =
            static_cast<Bits*>(problem.y) +
            (place.sample * problem.G * problem.O + place.group * problem.O + channel) * problem.P +
            place.row;
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
            const int32_t rows = min(8, static_cast<int32_t>(problem.O) - channel - 8 * half);
            if (rows <= 0) continue;
            Bits* const target = y_warp + 8 * half * problem.P;
            const int32_t phi = offset_of(target, lane / 4);
            __syncwarp();  // the rows that were here have left
#pragma unroll
            for (int i = 0; i < 2; ++i) {  // registers have no index
                if (i != half) continue;
                if (problem.P % 2 == 0) stage<true>(acc, i, phi);
                else stage<false>(acc, i, phi);
            }
            if (problem.activation != Activation::none) {
                __syncwarp();
                activate_staged(problem.activation, reinterpret_cast<Element*>(staging), 8 * kPitch);
            }
            __syncwarp();
            store_rows(target, place, rows);
        }
    }

    // Split operands: see is_sound. Folded: a weight of zero that K lacks meets infinity.
    static constexpr bool kMends =
        kMode == Mode::tf32x3 || (kLayout == Layout::folded && !Traits::kIsSplit);

    static __device__ __forceinline__ bool is_right(float sum) {
        return Traits::kIsSplit ? is_sound(sum) : sum == sum;
    }

    // Does this warp's outputs again where they are not sound.
    __device__ __forceinline__ void mend_tile(const Announcement& place) {
        __syncwarp();  // all lanes have stored
#pragma unroll 1
        for (int32_t o = place.channel + warp % 4 * 16;
             o < min(place.channel + warp % 4 * 16 + 16, static_cast<int32_t>(problem.O)); ++o) {
            Element* const y = static_cast<Element*>(problem.y) + (place.group * problem.O + o) * problem.P;
            const int64_t sample_values = problem.G * problem.O * problem.P;
            const auto* const first = reinterpret_cast<Bits*>(y + place.sample * sample_values + place.row);
            const int32_t begin = geometry.lead > 0 ? geometry.lead - offset_of(first, 0) : 0;
#pragma unroll 1
            for (int column = lane; column < geometry.advance; column += 32) {
                int32_t p = place.row + begin + column;
                const int32_t n = place.sample + (geometry.flat ? wrap_row(geometry, p) : 0);
                if (n >= problem.N || p < 0 || p >= problem.P) continue;
                Element* const value = y + n * sample_values + p;
                const float sum = widen(*value);
                // Beside sums that are not, zero may be what is left of numbers too small for TF32.
                if ((Traits::kIsSplit && sum == 0.0f) || !is_right(sum))
                    *value = finish_exactly<Element>(problem, n, place.group, o, p);
            }
        }
    }

    // f16x3: whether the sums are large enough for the values that were too small; see kSumOfSmallX.
    __device__ __forceinline__ bool sums_suffice(const float (&acc)[kValues], const Announcement& place,
                                                 const float2 (&scaling)[2]) {
        const float of_x = kSumOfSmallX * static_cast<float>(barriers.small_count[place.counter]);
        bool suffice = true;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float least = of_x + kSumOfSmallW * scaling[half].y;
            if (least == 0.0f || place.channel + warp % 4 * 16 + 8 * half + lane / 4 >= problem.O) continue;
            float smallest = least;
#pragma unroll
            for (int i = 0; i < kValues; ++i) {
                if (i / 2 % 2 != half) continue;
                const int32_t p = place.row + 8 * (i / 4) + 2 * (lane % 4) + i % 2;
                const bool exists = geometry.flat || (p >= 0 && p < problem.P);
                smallest = exists ? fminf(smallest, fabsf(acc[i])) : smallest;
            }
            suffice = suffice && smallest >= least;
        }
        return suffice;
    }

    // Turns the place of a tile into that of this warpgroup's part of it.
    __device__ __forceinline__ void take_share(Announcement& place) {
        if (warp < 4) return;
        if (geometry.share == Share::channels) {
            place.channel += kWarpgroupO;
        } else if (geometry.share == Share::columns) {
            place.row += geometry.advance;
            if (geometry.flat) place.sample += wrap_row(geometry, place.row);
        } else {
            place.sample = static_cast<int32_t>(problem.N);  // none there
        }
    }

    __device__ __forceinline__ void run() {
        Ring tiles;
        if (kMode == Mode::f16x3) ptx::griddepcontrol_wait();  // for the scales
        for (;;) {
            ptx::mbarrier_wait(barriers.tile_full(tiles.stage), tiles.parity);
            Announcement place = barriers.tile[tiles.stage];
            __syncwarp();
            release(barriers.tile_empty(tiles.stage));
            tiles.advance(kTileSlots);
            if (place.tile < 0) break;
            take_share(place);
            const float bias[2] = {load_bias(place, 0), load_bias(place, 1)};  // arrives during the products
            float2 scaling[2];
            if constexpr (kMode == Mode::f16x3) {
                scaling[0] = load_scaling(place, 0), scaling[1] = load_scaling(place, 1);
            }
            float acc[kValues];
            multiply_tile(acc, place);
            if constexpr (kMode == Mode::f16x3) {
                const bool right = is_behind_end(place) || (scaling[0].x > 0 && scaling[1].x > 0 &&
                                                            sums_suffice(acc, place, scaling));
                if (!__all_sync(0xFFFFFFFF, right) && lane == 0) list_tile(scratch, place.tile);
#pragma unroll
                for (int i = 0; i < kValues; ++i) acc[i] *= scaling[i / 2 % 2].x;
            }
            bool sound = true;
            if constexpr (kMends) {
                Soundness soundness;
#pragma unroll
                for (int i = 0; i < kValues; ++i) soundness.add(acc[i]);
                sound = Traits::kIsSplit ? soundness.holds()
                                         : soundness.is_finite() || problem.K % kFold == 0;
                sound = __all_sync(0xFFFFFFFF, sound);
            }
            store_tile(acc, place, bias);
            if constexpr (kMends) {
                if (!sound) mend_tile(place);
            }
        }
    }
};

}  // namespace sm90
}  // namespace conv1d
