// Random problems of one route, run on the emulator and compared with sums in double precision.
//
//   driver ROUTE FIRST_SEED SECONDS
//
// runs the problems of seeds FIRST_SEED, FIRST_SEED + 1, ... for that long. Of 0 seconds it runs just the
// first.
#include <algorithm>
#include <cmath>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "emulator.h"
#include "problem.h"

using namespace conv1d;

// The route, from a unit of its own.
extern "C" bool route_fits(const Problem* problem);
extern "C" size_t route_workspace_bytes(const Problem* problem);
extern "C" Error route_launch(const Problem* problem);

static Problem problem;
static uint64_t problem_seed;

const char* describe_problem() {
    static char text[600];
    const Problem& p = problem;
    snprintf(text, sizeof(text),
             "seed %lu: N %ld G %ld C %ld O %ld L %ld P %ld K %ld stride %ld dilation %ld pad_left %ld "
             "x_strides %ld %ld %ld dtype %d precision %d activation %d bias %d arch %d sm_count %d",
             problem_seed, p.N, p.G, p.C, p.O, p.L, p.P, p.K, p.stride, p.dilation, p.pad_left, p.x_stride_n,
             p.x_stride_c, p.x_stride_l, static_cast<int>(p.dtype), static_cast<int>(p.precision),
             static_cast<int>(p.activation), p.bias != nullptr, p.device.arch, p.device.sm_count);
    return text;
}

static std::mt19937_64 random_number;
static int64_t between(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(random_number() % static_cast<uint64_t>(most - least + 1));
}
static bool chance(int percent) { return between(1, 100) <= percent; }
static int64_t one_of(std::initializer_list<int64_t> values) {
    return values.begin()[between(0, static_cast<int64_t>(values.size()) - 1)];
}

// Everything but the tensors; false where there is no output or too much work.
static bool draw_numbers(const std::string& route) {
    constexpr Device kDevices[] = {
        {90, 132, 232448, 0}, {90, 2, 232448, 1}, {80, 4, 166912, 2}, {86, 1, 101376, 3}};
    Problem& p = problem;
    p = {};
    p.device = kDevices[between(0, 3)];
    p.dtype = static_cast<Dtype>(between(0, 3));
    p.precision = static_cast<Precision>(between(0, 1));
    p.activation = chance(40) ? static_cast<Activation>(between(1, 3)) : Activation::none;
    p.N = chance(10) ? between(1, 30) : between(1, 4);
    p.G = chance(50) ? 1 : chance(10) ? between(1, 40) : between(1, 6);
    bool is_project = false, is_wide = false;
    if (route == "toeplitz_sm90") {
        p.device = kDevices[between(0, 1)];
        p.C = 1;
        p.N = chance(50) ? p.N : between(1, 12);
        p.G = between(1, 2);
        p.O = chance(70) ? 1 : between(1, 3);
        p.K = chance(50) ? between(512, 700) : between(128, 1500);
        p.dilation = chance(80) ? 1 : 2;
        p.stride = 1;
    } else if (route == "toeplitz" || route == "depthwise") {
        p.C = 1;
        p.O = chance(70) ? 1 : between(1, 4);
        p.K = one_of({1, 2, 3, 4, 5, 7, 8, 9, 15, 31, between(9, 64), between(60, 300)});
        if (chance(2)) p.K = between(300, 2100);
        p.dilation = one_of({1, 1, 1, 1, 2, 3, 4, 23, 24, 25, between(1, 40), between(5, 200)});
        p.stride = chance(route == "depthwise" ? 30 : 3) ? between(2, 9) : 1;
    } else if (route == "fold_sm80") {
        p.C = chance(30) ? 1 : chance(60) ? between(1, 4) : between(1, 15);
        p.O = chance(60) ? between(8, 40) : between(8, 200);
        p.K = chance(50) ? between(1, 12) : chance(70) ? between(1, 45) : between(100, 300);
    } else if (route == "stem_sm80") {
        p.C = chance(40) ? 1 : between(1, 15);
        p.O = chance(60) ? between(16, 70) : between(16, 300);
        p.K = between(7, chance(80) ? std::max<int64_t>(64 / p.C, 7) : 80);
        if (chance(3)) {  // long sums of long rows: 32 channels a job
            is_wide = true;
            p.N = p.G = 1;
            p.O = 32;
            p.C = between(1, 7);
            p.K = (33 + p.C) / p.C;
            p.activation = Activation::none;
        }
    } else if (route == "gather") {
        p.C = one_of({1, 2, 3, between(1, 12), between(1, 60), between(100, 900)});
        p.O = chance(70) ? between(1, 9) : between(1, 40);
        p.K = chance(80) ? between(1, 9) : between(1, 60);
        p.stride = one_of({1, 1, 2, 3, 4, 8, between(1, 70)});
    } else if (route == "few_outputs") {
        p.C = one_of({1, 2, 3, between(1, 12), between(1, 60), between(100, 900)});
        p.O = between(1, 8);
        p.K = chance(70) ? between(1, 9) : chance(70) ? between(1, 60) : between(60, 1200);
        p.stride = one_of({1, 1, 2, 3, 4, 8, between(1, 9), between(1, 70)});
        if (chance(40)) {  // few taps of long rows: "project"
            is_project = true;
            p.C = between(1, 40);
            p.O = between(1, 4);
            p.K = between(1, 8 / p.O);
            p.stride = between(1, p.K);
            p.dilation = between(1, 20);
        }
    } else if (route == "gemm_sm80" || route == "small_sm80") {
        p.C = chance(60) ? between(16, 40) : between(16, 130);
        p.O = chance(60) ? between(8, 70) : between(8, 300);
        p.K = chance(80) ? between(1, 9) : between(1, 40);
    } else {
        p.C = one_of({1, 2, 3, between(1, 12), between(1, 40), between(100, 300)});
        p.O = chance(60) ? between(1, 8) : between(1, 90);
        p.K = chance(80) ? between(1, 9) : between(1, 60);
        if (chance(10)) p.C = between(1, 8), p.K = between(60, 900);
    }
    if (p.dilation == 0) p.dilation = chance(60) ? 1 : chance(90) ? between(1, 20) : between(1, 600);
    if (p.stride == 0) p.stride = chance(60) ? 1 : chance(90) ? between(1, 9) : between(1, 70);

    const int64_t reach = (p.K - 1) * p.dilation + 1;
    int64_t pad_right;
    switch (between(0, 6)) {
        case 0:
            p.pad_left = pad_right = reach / 2;
            break;
        case 1:
            p.pad_left = reach - 1, pad_right = 0;
            break;
        case 2:
            p.pad_left = 0, pad_right = reach - 1;
            break;
        case 3:
            p.pad_left = pad_right = between(0, 9);
            break;
        case 4:
            p.pad_left = between(0, 2 * reach), pad_right = between(0, 2 * reach);
            break;
        default:
            p.pad_left = pad_right = 0;
    }
    int64_t outputs = one_of({1, between(1, 8), between(1, 70), between(1, 300), between(1, 1500)});
    if (chance(5)) {
        p.N = p.G = 1;
        p.O = std::min<int64_t>(p.O, 8);
        outputs = between(1500, 30000);
    }
    if (is_project) outputs = between(300, 1500);
    if (is_wide) outputs = 16 * between(256, 270);
    p.L = std::max<int64_t>((outputs - 1) * p.stride + reach - p.pad_left - pad_right, 1);
    if (!is_wide) {  // whose rows of y are whole sectors
        p.L += between(0, 3);
        if (is_project || chance(30)) p.L = (p.L + 7) / 8 * 8;  // rows of whole vectors
    }
    p.P = (p.L + p.pad_left + pad_right - reach) / p.stride + 1;
    const int64_t products = p.N * p.G * p.O * p.P * p.C * p.K;
    const int64_t most_products = is_wide ? 6000000 : 2000000;
    if (p.L + p.pad_left + pad_right < reach || products > most_products ||
        p.N * p.G * p.C * p.L > 200000)
        return false;

    const int64_t channels = p.G * p.C;
    const auto set_strides = [&](int64_t n, int64_t c, int64_t l) {
        p.x_stride_n = n, p.x_stride_c = c, p.x_stride_l = l;
    };
    set_strides(channels * p.L, p.L, 1);
    if (chance(40)) {
        switch (between(0, 6)) {
            case 0:
                set_strides(channels * (p.L + 3), p.L + 3, 1);
                break;  // rows of something longer
            case 1:
                set_strides(channels * p.L, 1, channels);
                break;  // channels last
            case 2:
                set_strides(channels * 2 * p.L, 2 * p.L, 2);
                break;  // every other position
            case 3:
                set_strides(0, p.L, 1);
                break;  // expanded
            case 4:
                set_strides(p.L, 0, 1);
                break;
            case 5:
                set_strides(channels, 1, 0);
                break;
            default:
                set_strides(p.L, p.N * p.L, 1);  // channels first
        }
    }
    return true;
}

static int element_size() { return static_cast<int>(element_bytes(problem.dtype)); }

static double load(const void* data, int64_t i) {
    switch (problem.dtype) {
        case Dtype::float32:
            return static_cast<const float*>(data)[i];
        case Dtype::float64:
            return static_cast<const double*>(data)[i];
        case Dtype::float16:
            return __half2float(static_cast<const __half*>(data)[i]);
        default:
            return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
    }
}
static void store(void* data, int64_t i, double value) {
    const float narrow = static_cast<float>(value);
    switch (problem.dtype) {
        case Dtype::float32:
            static_cast<float*>(data)[i] = narrow;
            break;
        case Dtype::float64:
            static_cast<double*>(data)[i] = value;
            break;
        case Dtype::float16:
            static_cast<__half*>(data)[i] = __float2half_rn(narrow);
            break;
        default:
            static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(narrow);
    }
}

// A tensor of normal numbers, now and then one that is not finite; its first element at any place.
static void* draw_tensor(int64_t count, bool special) {
    std::normal_distribution<double> normal;
    void* const data = emulator::allocate(count * element_size(), chance(40) ? 0 : between(0, 9) * element_size(), false);
    for (int64_t i = 0; i < count; ++i) store(data, i, normal(random_number));
    if (special) {
        for (const double value : {INFINITY, -INFINITY, NAN}) {
            if (chance(60)) store(data, between(0, count - 1), value);
        }
    }
    return data;
}

static double activated(double value) {
    switch (problem.activation) {
        case Activation::none:
            return value;
        case Activation::relu:
            return value < 0 ? 0 : value;
        case Activation::gelu:
            return value * 0.5 * (1 + std::erf(value * std::sqrt(0.5)));
        default:
            return value / (1 + std::exp(-value));
    }
}

static double operand(double value, bool rounds) {
    return rounds ? __uint_as_float(ptx::cvt_rna_tf32(static_cast<float>(value))) : value;
}

// Whether output (n, channel, p) holds the sum as accurately as tests/cuda/problems.py asks of a GPU.
static bool accurate(const std::vector<double>& x, const std::vector<double>& w, int64_t n, int64_t channel,
                     int64_t position, bool rounds) {
    const Problem& p = problem;
    const double unit = std::ldexp(1, p.dtype == Dtype::float64 ? -52 : -23);
    const double result = std::ldexp(1, p.dtype == Dtype::float16    ? -11
                                        : p.dtype == Dtype::bfloat16 ? -8
                                        : p.dtype == Dtype::float32  ? -24
                                                                     : -53);
    double sum = p.bias == nullptr ? 0 : load(p.bias, channel), magnitude = std::fabs(sum);
    for (int64_t c = 0; c < p.C; ++c) {
        const double* const row = x.data() + n * p.x_stride_n + (channel / p.O * p.C + c) * p.x_stride_c;
        for (int64_t k = 0; k < p.K; ++k) {
            const int64_t l = position * p.stride + k * p.dilation - p.pad_left;
            const bool inside = l >= 0 && l < p.L;
            const double factor = w[(channel * p.C + c) * p.K + k];
            if (!inside && !std::isfinite(factor)) return true;  // inf * padding: either is right
            const double product =
                inside ? operand(factor, rounds) * operand(row[l * p.x_stride_l], rounds) : 0;
            sum += product;
            magnitude += std::fabs(product);
        }
    }
    const double expected = activated(sum);
    const double got = load(p.y, (n * p.G * p.O + channel) * p.P + position);
    if (std::isnan(expected)) return std::isnan(got);
    if (!std::isfinite(expected)) return got == expected;
    double bound = (p.C * p.K + 8) * unit * magnitude;
    if (element_size() == 2) bound += result * (std::fabs(sum) + bound);
    // No activation is steeper than 1.13; then it is computed and rounded itself.
    if (p.activation != Activation::none) bound = 1.13 * bound + 2 * result * std::fabs(expected) + 16 * unit;
    if (p.dtype == Dtype::float16) bound += std::ldexp(1, -24);
    return std::fabs(got - expected) <= bound;
}

// The last sample alone, its y elsewhere, has the same bits.
static void check_last_sample_alone(size_t y_offset) {
    const Problem whole = problem;
    Problem& p = problem;
    const int64_t elems = p.G * p.O * p.P, last = p.N - 1;
    p.x = static_cast<const unsigned char*>(p.x) + last * p.x_stride_n * element_size();
    p.N = 1;
    p.y = emulator::allocate(elems * element_size(), y_offset, true);
    if (route_fits(&p)) {
        const size_t workspace_bytes = route_workspace_bytes(&p);
        if (workspace_bytes > 0) p.workspace = emulator::allocate(workspace_bytes, 0, true);
        const Error error = route_launch(&p);
        if (error != nullptr) emulator::fail(error);
        const auto* const together =
            static_cast<const unsigned char*>(whole.y) + last * elems * element_size();
        const auto* const alone = static_cast<const unsigned char*>(p.y);
        for (int64_t i = 0; i < elems * element_size(); ++i) {
            if (together[i] == alone[i]) continue;
            emulator::fail("a sample depends on its batch: output %ld", i / element_size());
        }
    }
    problem = whole;
}

// False where the route does not take the problem of this seed.
static bool run_problem(const std::string& route, uint64_t seed) {
    problem_seed = seed;
    random_number.seed(seed);
    if (!draw_numbers(route)) return false;
    // gemm_sm80 reads whole pieces from the 16-byte boundary before a row, where memory is allocated too.
    emulator::reset(seed, route == "gemm_sm80" ? 14 : 0);
    Problem& p = problem;
    const int64_t channels = p.G * p.C, outputs = p.N * p.G * p.O * p.P, weights = p.G * p.O * p.C * p.K;
    const int64_t x_count =
        (p.N - 1) * p.x_stride_n + (channels - 1) * p.x_stride_c + (p.L - 1) * p.x_stride_l + 1;
    const bool special = chance(15);
    if (!route_fits(&p)) return false;
    p.x = draw_tensor(x_count, special);
    p.w = draw_tensor(weights, special && chance(20));
    p.bias = chance(50) ? draw_tensor(p.G * p.O, false) : nullptr;
    p.y = emulator::allocate(outputs * element_size(), chance(70) ? 0 : between(0, 9) * element_size(), true);
    if (!route_fits(&p)) return false;  // may depend on where y lies
    const size_t workspace_bytes = route_workspace_bytes(&p);
    if (workspace_bytes > 0) p.workspace = emulator::allocate(workspace_bytes, 0, true);
    const Error error = route_launch(&p);
    if (error != nullptr) emulator::fail(error);

    std::vector<double> x(x_count), w(weights);
    for (int64_t i = 0; i < x_count; ++i) x[i] = load(p.x, i);
    for (int64_t i = 0; i < weights; ++i) w[i] = load(p.w, i);
    const bool may_round = p.dtype == Dtype::float32 && p.precision == Precision::tf32;
    for (int64_t n = 0; n < p.N; ++n) {
        for (int64_t channel = 0; channel < p.G * p.O; ++channel) {
            for (int64_t position = 0; position < p.P; ++position) {
                if ((!may_round || !accurate(x, w, n, channel, position, true)) &&
                    !accurate(x, w, n, channel, position, false)) {
                    emulator::fail("wrong result: channel %ld, position %ld", channel, position);
                }
            }
        }
    }
    const bool is_ieee = p.dtype == Dtype::float32 && p.precision == Precision::ieee;
    const bool same_bits = !is_ieee || route == "small_sm80" || route == "depthwise" || route == "gather";
    if (p.N > 1 && chance(30) && same_bits) {
        check_last_sample_alone(between(0, 9) * element_size());
    }
    return true;
}

int main(int, char** arguments) {
    const std::string route = arguments[1];
    const uint64_t first = std::strtoull(arguments[2], nullptr, 10);
    const double seconds = std::atof(arguments[3]);
    // Misalignment traps; a wild access beyond all that is watched crashes.
    for (const int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP})
        std::signal(signal, [](int number) {
            emulator::fail(number == SIGILL ? "misaligned access" : "signal %ld", number);
        });
    const auto start = std::chrono::steady_clock::now();
    long ran = 0;
    uint64_t seed = first;
    do {
        ran += run_problem(route, seed++);
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
    printf("%s: %ld problems of seeds %lu to %lu\n", route.c_str(), ran, first, seed - 1);
}
