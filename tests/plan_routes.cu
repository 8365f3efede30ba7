// Routes of random problems: prints each sample that takes another route alone than in its batch, or none. Host
// code only.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "problem.h"

using namespace conv1d;

static std::mt19937 numbers(1);
static int64_t few(int64_t a, int64_t b) { return std::uniform_int_distribution<int64_t>(a, b)(numbers); }
// As likely between 1 and 10 as between 100 and 1,000.
static int64_t size(double most) {
    return std::lround(std::exp(std::uniform_real_distribution<>(0, std::log(most))(numbers)));
}

static Problem draw() {
    Problem problem{};
    const Dtype dtypes[] = {Dtype::float32, Dtype::float32, Dtype::float16, Dtype::bfloat16, Dtype::float64};
    problem.dtype = dtypes[few(0, few(0, 9) ? 3 : 4)];
    problem.precision = few(0, 1) ? Precision::ieee : Precision::tf32;
    const Device devices[] = {{90, 132, 232448}, {90, 132, 232448}, {80, 108, 166912}, {86, 84, 101376}};
    problem.device = devices[few(0, 3)];
    problem.N = size(500);
    const int regime = few(0, 5);  // depthwise, few channels, few outputs, long rows and few taps, the rest
    switch (regime) {
        case 0: problem.C = 1, problem.O = few(0, 1) ? 1 : size(64), problem.G = size(600); break;
        case 1: problem.C = few(1, 15), problem.O = size(512), problem.G = few(0, 1) ? 1 : size(40); break;
        case 2: problem.C = size(1000), problem.O = few(1, 8), problem.G = few(0, 1) ? 1 : size(8); break;
        case 3: problem.C = 16 * few(1, 40), problem.O = 16 * few(1, 40), problem.G = 1; break;
        default: problem.C = size(1500), problem.O = size(1500), problem.G = few(0, 2) ? 1 : size(16); break;
    }
    const bool is_long = regime == 3;
    problem.K = is_long ? few(1, 5) : few(0, 3) ? few(1, 9) : size(2000);
    problem.stride = is_long ? few(1, 3) : few(0, 1) ? 1 : few(1, 9);
    problem.dilation = is_long || few(0, 1) ? 1 : few(1, few(0, 3) ? 6 : 200);
    const int64_t reach = problem.dilation * (problem.K - 1);
    problem.pad_left = few(0, 2) ? few(0, 20) : reach / 2;
    const int64_t least = std::max<int64_t>(reach + 1 - 2 * problem.pad_left, 0);
    problem.L = least + (is_long ? few(1000, 200000) : size(5000));
    if (few(0, 1)) problem.L = (problem.L + 7) / 8 * 8;
    problem.P = (problem.L + 2 * problem.pad_left - reach - 1) / problem.stride + 1;
    const bool channels_last = few(0, 4) == 0;
    problem.x_stride_l = channels_last ? problem.G * problem.C : 1;
    problem.x_stride_c = channels_last ? 1 : problem.L;
    problem.x_stride_n = problem.G * problem.C * problem.L;
    return problem;
}

int main() {
    constexpr int kProblems = 2000000;
    int differ = 0, taken[32] = {};
    for (int i = 0; i < kProblems; ++i) {
        const Problem batch = draw();
        Problem alone = batch;
        alone.N = 1;
        const Plan plan = conv1d_cuda_plan(&batch, nullptr), single = conv1d_cuda_plan(&alone, nullptr);
        const bool fits = plan.route >= 0;
        if (fits) ++taken[plan.route];
        if ((fits && plan.route == single.route) || ++differ > 10) continue;
        std::printf("sm_%d dtype %d precision %d N %d C %d O %d G %d L %d K %d stride %d dilation %d",
                    batch.device.arch, int(batch.dtype), int(batch.precision), int(batch.N), int(batch.C),
                    int(batch.O), int(batch.G), int(batch.L), int(batch.K), int(batch.stride),
                    int(batch.dilation));
        std::printf(" padding %d: %s, alone %s\n", int(batch.pad_left), fits ? plan.name : "no route",
                    single.route >= 0 ? single.name : "no route");
    }
    int unused = 0;
    for (int32_t route = 0; const char* name = conv1d_cuda_route_name(route); ++route) {
        if (taken[route] >= 100) continue;
        std::printf("%s takes %d problems only\n", name, taken[route]);
        ++unused;
    }
    std::printf("%d problems, %d differ\n", kProblems, differ);
    return differ > 0 || unused > 0;
}
