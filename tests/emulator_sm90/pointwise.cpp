// Runs random problems through the pointwise convolution on the emulator, tensors between guard pages, and
// compares with float64: pointwise SEED COUNT [BREAK]. Problem i of a run has seed SEED + i.
#include "harness.h"
#include "pointwise_sm90.cuh"

namespace conv1d {
namespace {

struct Counts {
    int problems = 0, boxes = 0, in_turn = 0, shared = 0, direct = 0, wide = 0, activated = 0;
} counts;

// False where the random numbers make no small, valid problem.
bool run_problem(uint64_t seed, Random& random) {
    constexpr Mode kModes[] = {Mode::tf32, Mode::f16, Mode::bf16, Mode::tf32x3};
    const Mode mode = kModes[random.range(0, 3)];
    Problem problem{};
    problem.N = random.range(1, 5);
    problem.G = random.chance(0.25) ? random.range(2, 3) : 1;
    problem.C = random.chance(0.5) ? 16 * random.range(1, 12) : random.range(16, 200);
    problem.O = random.chance(0.3) ? 64 * random.range(1, 5) : random.range(8, 300);
    problem.K = problem.stride = problem.dilation = 1;
    problem.P = round_up(random.chance(0.2) ? random.range(1, 20) : random.range(1, 400),
                         4 << random.range(0, 1));
    if (random.chance(0.4)) problem.P = 256 - 4 * random.range(0, 3);
    // Blocks that may share x, with more stages of it than shared memory has.
    const bool shares = random.chance(0.15);
    if (shares) {
        problem.G = 1, problem.P = 256 - 4 * random.range(0, 1);
        problem.C = 16 * random.range(8, 12), problem.O = 128 * random.range(1, 2);
    }
    problem.L = problem.P;
    const double work = static_cast<double>(problem.N * problem.G * round_up(problem.O, 128)) *
                        static_cast<double>(round_up(problem.P, 32) * round_up(problem.C, 64));
    if (work > 3e7) return false;
    problem.dtype = mode == Mode::f16    ? Dtype::float16
                    : mode == Mode::bf16 ? Dtype::bfloat16
                                         : Dtype::float32;
    problem.precision = mode == Mode::tf32 ? Precision::tf32 : Precision::ieee;
    problem.activation = random.chance(0.7) ? Activation::none : static_cast<Activation>(random.range(1, 3));
    problem.device = {90, static_cast<int32_t>(random.range(1, 3)),
                      static_cast<int32_t>(random.chance(0.5) ? 227 : random.range(225, 227)) << 10, 0};

    Memory memory;
    const int64_t element = element_bytes(problem.dtype);
    const auto take = [&](int64_t elements) {
        const int64_t alignments[] = {element, 2 * element, 16, 16, 32, 256};
        return memory.take(elements * element, alignments[random.range(0, 5)], random.chance(0.8));
    };
    // x contiguous, with rows apart, or one sample for all.
    const int64_t channels = problem.G * problem.C;
    const int64_t layout = random.chance(0.5) ? 0 : random.range(1, 2);
    problem.x_stride_l = 1;
    problem.x_stride_c = problem.L + (layout == 1 ? 4 * random.range(0, 4) : 0);
    problem.x_stride_n = layout == 2 ? 0 : problem.x_stride_c * channels;
    const int64_t x_elements =
        (problem.N - 1) * problem.x_stride_n + (channels - 1) * problem.x_stride_c + problem.L;
    Tensor x{take(x_elements), mode};
    Tensor w{take(problem.G * problem.O * problem.C), mode};
    Tensor bias{random.chance(0.5) ? take(problem.G * problem.O) : nullptr, mode};
    problem.x = x.data, problem.w = w.data, problem.bias = bias.data;
    problem.y = take(problem.N * problem.G * problem.O * problem.P);
    if (!fits_pointwise_sm90(problem)) return memory.give_back(), false;

    const bool special = random.chance(0.3);  // values that are not finite, or very small
    const auto value = [&] {
        const auto normal = static_cast<float>(random.real() + random.real() + random.real() + random.real() - 2);
        if (!special || random.chance(0.999)) return normal;
        return mode == Mode::f16 || random.chance(0.7) ? (random.chance(0.5) ? INFINITY : NAN) : normal * 1e-30f;
    };
    for (int64_t i = 0; i < x_elements; ++i) x.set(i, value());
    for (int64_t i = 0; i < problem.G * problem.O * problem.C; ++i) w.set(i, value());
    for (int64_t i = 0; bias.data != nullptr && i < problem.G * problem.O; ++i) bias.set(i, value());

    pointwise_sm90::with_traits(problem, [&](auto traits) {
        using Traits = decltype(traits);
        const bool wide = Traits::kParts == 1 && random.chance(0.5);
        auto params = [&] {
            if constexpr (Traits::kParts == 1)
                if (wide) return pointwise_sm90::cut<Traits, 128>(problem);
            return pointwise_sm90::cut<Traits, 64>(problem);
        }();
        if (params.boxes && params.o_tiles % 2 == 0)
            params.cluster = static_cast<int32_t>(random.range(1, 2));
        char text[600];
        std::snprintf(text, sizeof text,
                      "seed %" PRIu64
                      ": mode %d columns=%d N=%d G=%d C=%d O=%d L=%d "
                      "layout=%d activation=%d bias=%d special=%d blocks<=%d tiles=%d chunks=%d stages=%d "
                      "w_copy=%d boxes=%d residues=%d cluster=%d direct=%d",
                      seed, static_cast<int>(mode), wide ? 128 : 64, static_cast<int>(problem.N),
                      static_cast<int>(problem.G), static_cast<int>(problem.C), static_cast<int>(problem.O),
                      static_cast<int>(problem.L), static_cast<int>(layout),
                      static_cast<int>(problem.activation), bias.data != nullptr, special,
                      problem.device.sm_count, params.tiles, params.chunks, params.stages, params.w_copy,
                      params.boxes, params.residues, params.cluster, params.y_direct);
        emulator::about = text;
        emulator::schedule = random_schedule(random);
        Error error = nullptr;
        if constexpr (Traits::kParts == 1)
            if (wide) error = pointwise_sm90::launch_tiles<Traits, 128>(params, nullptr);
        if (!wide) error = pointwise_sm90::launch_tiles<Traits, 64>(params, nullptr);
        if (error != nullptr) fail("%s", error);
        counts.boxes += params.boxes;
        counts.in_turn += params.residues > 1;
        counts.shared += params.cluster > 1;
        counts.direct += params.y_direct;
        counts.wide += wide;
    });
    compare(problem, mode, false);
    ++counts.problems;
    counts.activated += problem.activation != Activation::none;
    memory.give_back();
    return true;
}

}  // namespace
}  // namespace conv1d

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    if (argc > 3) emulator::broken = std::atoi(argv[3]);
    conv1d::watch_addresses();
    const uint64_t first = std::strtoull(argv[1], nullptr, 10);
    const int count = std::atoi(argv[2]);
    for (int i = 0; i < count; ++i) {
        emulator::Random random{(first + static_cast<uint64_t>(i)) * 0x9E3779B97F4A7C15};
        while (!conv1d::run_problem(first + static_cast<uint64_t>(i), random)) {
        }
    }
    const auto& counts = conv1d::counts;
    std::printf("problems=%d boxes=%d in_turn=%d shared=%d direct=%d wide=%d activated=%d\n",
                counts.problems, counts.boxes, counts.in_turn, counts.shared, counts.direct, counts.wide,
                counts.activated);
}
