// Plans of the Hopper GEMM for random problems: prints each broken promise. Host code only.
#include <cstdio>
#include <cstring>
#include <random>

#include "gemm_sm90_plan.cuh"

using namespace conv1d;

static std::mt19937 numbers(1);
static int64_t few(int a, int b) { return std::uniform_int_distribution<int>(a, b)(numbers); }

static Problem draw() {
    Problem problem{};
    problem.N = few(1, 500), problem.G = few(1, 3), problem.O = few(8, 600);
    problem.C = few(16, few(0, 3) ? 200 : 1500);
    problem.K = few(1, few(0, 4) ? 9 : 200);
    problem.stride = few(1, 9), problem.dilation = few(1, few(0, 2) ? 4 : 90), problem.pad_left = few(0, 20);
    const int64_t reach = problem.dilation * (problem.K - 1);
    problem.L = reach + 1 + few(0, few(0, 1) ? 300 : 5000);
    problem.P = (problem.L + 2 * problem.pad_left - reach - 1) / problem.stride + 1;
    problem.x_stride_l = 1, problem.x_stride_c = problem.L, problem.x_stride_n = problem.L * problem.C * problem.G;
    problem.device = {90, 132, 232448};
    return problem;
}

// The second mode of fp32 does tiles again that the first one listed: both must mean the same by them.
static bool same_tiles(const sm90::Geometry& a, const sm90::Geometry& b) {
    return a.tiles == b.tiles && a.tile_advance == b.tile_advance && a.lead == b.lead && a.o_tiles == b.o_tiles &&
           a.rows_per_sample == b.rows_per_sample && a.tiles_per_sample == b.tiles_per_sample &&
           a.taps_per_group == b.taps_per_group;
}

static bool fits_memory(const sm90::Geometry& geometry) {
    return geometry.x_stages >= 2 && geometry.w_stages >= 1 && geometry.smem_bytes <= 232448;
}

// In which order terms are added: by which mode, and how many taps share a window.
static int64_t order_of(const sm90::Choice& choice) {
    return choice.cut.geometry.taps_per_group * 8 + static_cast<int>(choice.mode);
}
static int cut_apart = 0;  // problems of which one sample has tiles of another shape
static bool is_one_order(Problem problem) {
    problem.dtype = few(0, 1) ? Dtype::float32 : Dtype::bfloat16;
    problem.precision = few(0, 1) ? Precision::ieee : Precision::tf32;
    Problem alone = problem;
    alone.N = 1, alone.x_stride_n = 0;
    alone.x = reinterpret_cast<void*>(few(0, 7) * element_bytes(problem.dtype));  // never read
    const sm90::Choice choice = sm90::choose(problem), choice_alone = sm90::choose(alone);
    cut_apart += choice.cut.tiling.share != choice_alone.cut.tiling.share;
    return order_of(choice) == order_of(choice_alone);
}

int main() {
    int cuts = 0, broken = 0;
    for (int i = 0; i < 50000; ++i) {
        const Problem problem = draw();
        if (!is_one_order(problem) && ++broken <= 5)
            std::printf("C %d O %d K %d L %d stride %d dilation %d: one sample is added in another order\n",
                        int(problem.C), int(problem.O), int(problem.K), int(problem.L), int(problem.stride),
                        int(problem.dilation));
        for (const int columns : {64, 128}) {
            for (const int shape : {0, 1, 2, 3, 4, 5}) {
                const sm90::Tiling tiling{columns, shape % 2 == 1, static_cast<sm90::Share>(shape / 2)};
                const auto first = sm90::cut<sm90::Mode::f16x3>(problem, tiling, problem.K);
                if (first.tiles == 0) continue;
                const auto second = sm90::cut<sm90::Mode::tf32x3>(problem, tiling, first.taps_per_group);
                ++cuts;
                if (same_tiles(first, second) && fits_memory(first) && fits_memory(second)) continue;
                if (++broken <= 5)
                    std::printf("C %d O %d K %d L %d stride %d dilation %d columns %d shape %d\n", int(problem.C),
                                int(problem.O), int(problem.K), int(problem.L), int(problem.stride),
                                int(problem.dilation), columns, shape);
            }
        }
    }
    std::printf("%d cuts, %d broken, %d cut apart\n", cuts, broken, cut_apart);
    return broken > 0 || cuts < 10000 || cut_apart < 1000;
}
