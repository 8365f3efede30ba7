// Runs random problems through the Hopper GEMM, the streaming, the downsampling and the sliding convolution on
// the emulator, tensors between guard pages, and compares with float64: driver SEED COUNT [BREAK]. Problem i of a
// run has seed SEED + i; `driver SEED 1` repeats one.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "downsample_sm90.cuh"
#include "gemm_sm90.cu"
#include "gemm_sm90_16bit.cu"
#include "gemm_sm90_channels_last.cu"
#include "gemm_sm90_channels_last_16bit.cu"
#include "gemm_sm90_folded.cu"
#include "gemm_sm90_folded_16bit.cu"
#include "harness.h"
#include "sliding_sm90_five.cu"
#include "stream_sm90.cuh"

namespace conv1d {
namespace {

enum class Kind { gemm, streaming, downsampling, sliding };

// The instances that a mode has, forced; `chosen` leaves the choice to the kernel.
struct Instance {
    Mode mode;
    Kind kind;
    int columns;  // of tiles
    int taps;     // of windows
    sm90::Geometry (*cut)(const Problem&, const sm90::Tiling&);
    size_t (*lay_out)(const Problem&, const sm90::Geometry&, uint8_t* base, sm90::Scratch*);
    Error (*launch)(const Problem&, const sm90::Tiling&, const sm90::Geometry&);
};
template <Mode kMode, int kN>
constexpr Instance instance() {
    return {kMode,
            Kind::gemm,
            kN,
            0,
            [](const Problem& problem, const sm90::Tiling& tiling) {
                return sm90::cut<kMode>(problem, tiling, problem.K);
            },
            sm90::lay_out<kMode>,
            [](const Problem& problem, const sm90::Tiling& tiling, const sm90::Geometry& geometry) {
                return sm90::launch_columns<kMode, kN>(problem, tiling, geometry, nullptr);
            }};
}
// Other routes' f16x3 lists tiles of tf32x3, of which `packed` has the number; no route takes zero tiles.
template <Mode kMode>
sm90::Geometry listing(sm90::Geometry packed, int32_t tiles) {
    if (kMode != Mode::f16x3 || tiles == 0) packed.tiles = tiles;
    return packed;
}
template <Mode kMode, int kN>
constexpr Instance stream_instance() {
    return {kMode,
            Kind::streaming,
            kN,
            0,
            [](const Problem& problem, const sm90::Tiling&) {
                return listing<kMode>(sm90::packing<kMode>(problem),
                                      sm90::cut_stream<kMode>(problem, kN).tiles);
            },
            sm90::lay_out<kMode>,
            [](const Problem& problem, const sm90::Tiling&, const sm90::Geometry&) {
                return sm90::launch_stream<kMode>(problem, sm90::cut_stream<kMode>(problem, kN), nullptr);
            }};
}
template <class Loader>
constexpr Instance window_instance() {
    using Traits = typename Loader::Traits;
    return {Traits::kMode,
            Traits::kStride == 1 ? Kind::sliding : Kind::downsampling,
            0,
            Traits::kTaps,
            [](const Problem& problem, const sm90::Tiling&) {
                return listing<Traits::kMode>(sm90::packing_of<Traits>(problem),
                                              sm90::cut_windows<Traits>(problem).pairs);
            },
            sm90::lay_out<Traits::kMode>,
            [](const Problem& problem, const sm90::Tiling&, const sm90::Geometry&) {
                return sm90::launch_windows<Loader>(problem, nullptr);
            }};
}
template <Mode kMode>
constexpr Instance down_instance() {
    return window_instance<sm90::DownLoader<sm90::DownTraits<kMode>>>();
}
template <Mode kMode, int kTaps, int kOutputs>
constexpr Instance slide_instance() {
    return window_instance<sm90::SlideLoader<sm90::WindowTraits<kMode, kTaps, 1, kOutputs>>>();
}
constexpr Instance kInstances[] = {
#ifdef FEW_INSTANCES
    down_instance<Mode::bf16>(),
    down_instance<Mode::tf32>(),
    slide_instance<Mode::bf16, 5, 64>(),
    slide_instance<Mode::tf32, 3, 128>(),
    stream_instance<Mode::tf32, 72>(),
    instance<Mode::tf32, 64>(),
    instance<Mode::f16x3, 64>(),
#else
    instance<Mode::tf32, 64>(),
    instance<Mode::tf32, 128>(),
    instance<Mode::tf32, 192>(),
    instance<Mode::f16, 64>(),
    instance<Mode::f16, 128>(),
    instance<Mode::f16, 192>(),
    instance<Mode::bf16, 64>(),
    instance<Mode::bf16, 128>(),
    instance<Mode::bf16, 192>(),
    instance<Mode::tf32x3, 64>(),
    instance<Mode::tf32x3, 128>(),
    instance<Mode::f16x3, 64>(),
    instance<Mode::f16x3, 128>(),
    // Twice: they launch twice.
    instance<Mode::f16x3, 64>(),
    instance<Mode::f16x3, 128>(),
    stream_instance<Mode::tf32, 136>(),
    stream_instance<Mode::tf32, 72>(),
    stream_instance<Mode::f16, 144>(),
    stream_instance<Mode::f16, 256>(),
    stream_instance<Mode::bf16, 80>(),
    stream_instance<Mode::f16x3, 128>(),
    stream_instance<Mode::f16x3, 64>(),
    down_instance<Mode::tf32>(),
    down_instance<Mode::f16x3>(),
    down_instance<Mode::f16>(),
    down_instance<Mode::bf16>(),
    slide_instance<Mode::tf32, 3, 64>(),
    slide_instance<Mode::tf32, 5, 128>(),
    slide_instance<Mode::f16x3, 3, 128>(),
    slide_instance<Mode::f16x3, 5, 64>(),
    slide_instance<Mode::f16, 5, 128>(),
    slide_instance<Mode::bf16, 3, 64>(),
#endif
};
constexpr int kInstanceCount = sizeof(kInstances) / sizeof(kInstances[0]);
const char* const kModeNames[] = {"tf32", "tf32x3", "f16x3", "f16", "bf16"};

struct Counts {
    int problems = 0, flat = 0, chosen = 0, none_listed = 0, some_listed = 0, all_listed = 0, resident = 0;
    int beside = 0, alone = 0, folded = 0, planes = 0, down = 0, apart = 0, slides = 0, between = 0;
} counts;

// False where the random numbers make no small, valid problem for this instance.
bool run_problem(uint64_t seed, Random& random) {
    const Instance& instance = kInstances[random.range(0, kInstanceCount - 1)];
    const Mode mode = instance.mode;
    const bool streams = instance.kind == Kind::streaming, slides = instance.kind == Kind::sliding;
    const bool down = instance.kind == Kind::downsampling, windows = slides || down;
    const int64_t piece = mode == Mode::f16 || mode == Mode::bf16 ? 8 : 4;  // elements of 16 bytes
    // Rows of x begin between 16-byte pieces; samples may not, unless the channels are so many.
    const bool between = slides && random.chance(0.5);
    const bool flat = !streams && !windows && random.chance(0.35);
    const sm90::Tiling tiling{instance.columns, flat, static_cast<sm90::Share>(random.range(0, 2))};
    Problem problem{};
    problem.N = random.range(1, flat ? 6 : 3);
    problem.G = random.chance(0.25) ? random.range(2, 3) : 1;
    problem.C = random.chance(0.3) ? 16 * random.range(1, 6) : random.range(16, 100);
    problem.O = random.chance(0.3) ? 64 * random.range(1, 3) : random.range(8, 200);
    problem.K = random.chance(0.2) ? random.range(8, 20) : random.range(1, 7);
    problem.stride = random.chance(0.5) ? 1 : random.chance(0.1) ? random.range(9, 32) : random.range(2, 8);
    problem.dilation = random.chance(0.6) ? 1 : random.range(2, 9);
    if (streams) {
        problem.G = 1, problem.C = random.range(33, 64), problem.O = random.range(33, 128);
        problem.K = instance.columns > 100 && instance.columns < 192 ? random.range(2, 3) : 3;
        problem.stride = random.chance(0.5) ? 1 : random.range(2, 8);
        if (random.chance(0.3)) problem.dilation = random.range(60, 600), problem.stride = 1;  // a box a tap
    }
    if (windows) {
        problem.K = instance.taps, problem.stride = slides ? 1 : 2, problem.dilation = 1;
        problem.C = random.chance(0.5) ? 32 * random.range(2, 4) : random.range(64, 130);
        problem.O = random.range(129, 256);
        problem.N = random.range(1, 2);
        if (slides) problem.C -= random.range(0, 48), problem.O -= random.range(0, 120), problem.N *= 2;
        if (between) problem.C = round_up(problem.C, random.chance(0.7) ? piece : 2);
    }
    const bool folds = !streams && !windows && !flat && random.chance(0.3);  // mostly; what is folded has to be small
    if (folds) {
        problem.N = random.range(1, 2), problem.G = 1;
        problem.C = random.range(16, 48);
        problem.stride = sm90::kFold, problem.dilation = 1;
        problem.K = random.chance(0.5) ? 8 * random.range(1, 2) : random.range(5, 16);
    }
    problem.P = folds                ? random.range(90, 200)
                : random.chance(0.2) ? random.range(1, 20)
                                     : random.range(1, flat ? 200 : 500);
    if (windows) problem.P = random.range(1, 200);
    if (random.chance(0.5)) problem.P = round_up(problem.P, 4);
    problem.pad_left = random.chance(0.3) ? 0 : random.range(0, problem.K * problem.dilation);
    const bool apart = down && random.chance(0.5);  // rows of x begin between 16-byte pieces
    if (down) problem.pad_left = apart ? 0 : random.range(0, 1);
    const int64_t span = (problem.P - 1) * problem.stride + (problem.K - 1) * problem.dilation + 1;
    int64_t pad_right = random.chance(0.3) ? 0 : random.range(0, problem.K * problem.dilation);
    if (apart) pad_right = 0;
    problem.L = span - problem.pad_left - pad_right + random.range(0, problem.stride - 1);
    if (problem.L < 1) return false;
    const double work = static_cast<double>(problem.N * problem.G * round_up(problem.O, 128)) *
                        static_cast<double>(round_up(problem.P, 32) * problem.K * round_up(problem.C, 32));
    if (work > 3e7 || span * problem.N * problem.G * problem.C > 4000000) return false;
    problem.dtype = mode == Mode::f16    ? Dtype::float16
                    : mode == Mode::bf16 ? Dtype::bfloat16
                                         : Dtype::float32;
    problem.precision = mode == Mode::tf32 ? Precision::tf32 : Precision::ieee;
    problem.activation = random.chance(0.7) ? Activation::none : static_cast<Activation>(random.range(1, 3));
    const bool chosen = !streams && !windows && random.chance(0.1);
    // The tiles of tf32x3, which streams list, must fit as well.
    const bool needs_all = chosen || windows || (streams && mode == Mode::f16x3);
    const int smem_kb = needs_all || random.chance(0.5) ? 227 : static_cast<int>(random.range(80, 227));
    problem.device = {90, static_cast<int32_t>(random.range(1, 3)), smem_kb << 10, 0};

    Memory memory;
    const int64_t element = element_bytes(problem.dtype);
    int least_alignment = streams || windows ? 3 : 0;
    const auto take = [&](int64_t elements) {
        const int64_t alignments[] = {element, element, 2 * element, 16, 32, 256};
        const int64_t alignment = alignments[random.range(least_alignment, 5)];
        return memory.take(elements * element, alignment, random.chance(0.8));
    };
    // x contiguous, with rows apart, transposed, every second position, or one sample for all.
    const int64_t channels = problem.G * problem.C;
    const int64_t layout = !streams && !windows ? random.range(0, 7) : random.chance(0.5) ? 3 : 0;
    problem.x_stride_l = layout == 1 ? channels : layout == 2 ? 2 : 1;
    int64_t row = (problem.L - 1) * problem.x_stride_l + 1 + (layout == 3 ? random.range(0, 5) : 0);
    if (streams || (windows && !apart && !between)) row = round_up(row, piece);
    if (between && piece == 8) row = round_up(row, 2);
    problem.x_stride_c = layout == 1 ? 1 : row;
    problem.x_stride_n = layout == 4 || problem.N == 1 ? 0 : layout == 1 ? problem.L * channels : row * channels;
    const int64_t x_elements = (problem.N - 1) * problem.x_stride_n + (channels - 1) * problem.x_stride_c +
                               (problem.L - 1) * problem.x_stride_l + 1;
    Tensor x{take(x_elements), mode};
    least_alignment = 0;
    Tensor w{take(problem.G * problem.O * problem.C * problem.K), mode};
    Tensor bias{random.chance(0.5) ? take(problem.G * problem.O) : nullptr, mode};
    problem.x = x.data, problem.w = w.data, problem.bias = bias.data;
    problem.y = take(problem.N * problem.G * problem.O * problem.P);

    if (streams && !sm90::has_tensor_map(problem)) return memory.give_back(), false;
    const sm90::Geometry geometry = instance.cut(problem, tiling);
    sm90::Scratch scratch;
    if (!chosen && geometry.tiles == 0) return memory.give_back(), false;
    if (chosen && !fits_gemm_sm90(problem)) return memory.give_back(), false;
    // Data. Splits by fp16 do not hold all magnitudes: 1: most of x too large, 2: x too large in places,
    // 3: some weights too small or too large, 4: in places not finite (all modes but streams).
    const int64_t data = mode == Mode::f16x3    ? random.range(0, 4)
                         : streams || apart ? 0 : 4 * random.range(0, 1);
    char text[600];
    std::snprintf(
        text, sizeof text,
        "seed %" PRIu64
        ": %s%s kind %d, columns %d%s share=%d N=%d G=%d C=%d O=%d L=%d P=%d K=%d stride=%d dilation=%d "
        "pad_left=%d layout=%d data=%d activation=%d blocks<=%d smem=%d KB tiles=%d lead=%d "
        "x_stages=%d w_stages=%d resident=%d folded=%d ragged=%d",
        seed, kModeNames[static_cast<int>(mode)],
        chosen ? " (choice left to the kernel)" : apart ? " (rows apart)" : "",
        static_cast<int>(instance.kind), instance.columns, flat ? " flat" : "",
        static_cast<int>(tiling.share), static_cast<int>(problem.N),
        static_cast<int>(problem.G), static_cast<int>(problem.C), static_cast<int>(problem.O),
        static_cast<int>(problem.L), static_cast<int>(problem.P), static_cast<int>(problem.K),
        static_cast<int>(problem.stride), static_cast<int>(problem.dilation),
        static_cast<int>(problem.pad_left), static_cast<int>(layout), static_cast<int>(data),
        static_cast<int>(problem.activation), problem.device.sm_count, smem_kb, geometry.tiles, geometry.lead,
        geometry.x_stages, geometry.w_stages, geometry.resident, geometry.folded,
        geometry.ragged);
    emulator::about = text;
    const size_t bytes =
        chosen ? workspace_gemm_sm90(problem) : instance.lay_out(problem, geometry, nullptr, &scratch);
    problem.workspace = memory.take(static_cast<int64_t>(bytes), 256, true);
    instance.lay_out(problem, geometry, static_cast<uint8_t*>(problem.workspace), &scratch);

    const auto value = [&] {
        return static_cast<float>(random.real() + random.real() + random.real() + random.real() - 2);
    };
    const double rare = data == 0 || data == 1 ? 0 : 2.0 / static_cast<double>(x_elements);
    for (int64_t i = 0; i < x_elements; ++i) {
        float scale = data == 1 ? 1e4f : 1;
        if (rare > 0 && random.chance(rare))
            scale = data == 4 ? (random.chance(0.5) ? INFINITY : NAN) : data == 2 ? 1e5f : 1e-7f;
        x.set(i, value() * scale);
    }
    const int64_t row_weights = problem.C * problem.K;
    for (int64_t i = 0; i < problem.G * problem.O * row_weights; ++i) {
        const bool odd = data == 3 && i / row_weights % 7 == 3;
        w.set(i, value() * (odd ? (i % 2 == 0 ? 1e-9f : 1.0f) : 1.0f));
    }
    for (int64_t i = 0; bias.data != nullptr && i < problem.G * problem.O; ++i) bias.set(i, value());

    emulator::schedule = random_schedule(random);
    emulator::few_warps = random.range(0, 4096);
    const Error error =
        chosen ? launch_gemm_sm90(problem, nullptr) : instance.launch(problem, tiling, geometry);
    if (error != nullptr) fail("%s", error);
    compare(problem, mode, data == 4);
    counts.problems += 1;
    counts.flat += !chosen && flat;
    counts.chosen += chosen;
    counts.resident += !chosen && geometry.resident;
    counts.beside += !chosen && tiling.share == sm90::Share::columns;
    counts.alone += !chosen && tiling.share == sm90::Share::none;
    counts.folded += !chosen && geometry.folded;
    counts.planes += !chosen && geometry.planes > 0;
    counts.down += down;
    counts.slides += slides;
    counts.between += between;
    counts.apart += apart;
    if (mode == Mode::f16x3 && !chosen) {
        const int listed = scratch.tickets[1];
        ++(listed == 0               ? counts.none_listed
           : listed < geometry.tiles ? counts.some_listed
                                     : counts.all_listed);
    }
    memory.give_back();
    return true;
}

// tf32x3 does the tiles again that f16x3 lists by number: both must cut alike. No kernel runs here.
void compare_cuts(Random& random) {
    Problem problem{};
    problem.N = random.range(1, 8), problem.G = random.range(1, 3);
    problem.C = random.range(16, 300), problem.O = random.range(8, 300), problem.K = random.range(1, 40);
    problem.stride = random.range(1, 8), problem.dilation = random.range(1, 9);
    problem.P = random.range(1, 1000);
    problem.L = problem.P * problem.stride;
    problem.x_stride_l = 1, problem.x_stride_c = problem.L;
    problem.device = {90, 132, static_cast<int32_t>(random.range(80, 227)) << 10, 0};
    const int columns = random.chance(0.5) ? 64 : 128;
    const bool flat = random.chance(0.3);
    const sm90::Tiling tiling{columns, flat, static_cast<sm90::Share>(random.range(0, 2))};
    const sm90::Geometry first = sm90::cut<Mode::f16x3>(problem, tiling, problem.K);
    if (first.tiles == 0) return;
    const sm90::Geometry again = sm90::cut<Mode::tf32x3>(problem, tiling, first.taps_per_group);
    if (again.tiles != first.tiles || again.lead != first.lead || again.tile_advance != first.tile_advance ||
        again.rows_per_sample != first.rows_per_sample || again.tiles_per_sample != first.tiles_per_sample)
        fail("tf32x3 cuts other tiles than f16x3: C=%d K=%d P=%d flat=%d", static_cast<int>(problem.C),
             static_cast<int>(problem.K), static_cast<int>(problem.P), flat);
}

}  // namespace
}  // namespace conv1d

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    if (argc > 3) emulator::broken = std::atoi(argv[3]);
    conv1d::watch_addresses();
    const uint64_t first = std::strtoull(argv[1], nullptr, 10);
    const int count = std::atoi(argv[2]);
    emulator::Random cuts{first};
    for (int i = 0; i < 2000; ++i) conv1d::compare_cuts(cuts);
    for (int i = 0; i < count; ++i) {
        emulator::Random random{(first + static_cast<uint64_t>(i)) * 0x9E3779B97F4A7C15};
        while (!conv1d::run_problem(first + static_cast<uint64_t>(i), random)) {
        }
    }
    const auto& counts = conv1d::counts;
    std::printf("problems=%d flat=%d chosen=%d resident=%d beside=%d alone=%d folded=%d planes=%d down=%d "
                "apart=%d slides=%d between=%d none_listed=%d some_listed=%d all_listed=%d\n",
                counts.problems, counts.flat, counts.chosen, counts.resident, counts.beside, counts.alone,
                counts.folded, counts.planes, counts.down, counts.apart, counts.slides, counts.between,
                counts.none_listed, counts.some_listed, counts.all_listed);
}
