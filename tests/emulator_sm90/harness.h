// What the drivers of the Hopper kernels share: tensors between guard pages, the comparison with float64,
// random schedules.
#pragma once
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "emulator.h"
#include "gemm_sm90_plan.cuh"
#include "problem.h"

namespace conv1d {
namespace {

using emulator::fail;
using emulator::Random;
using sm90::Mode;

// Tensors end at a page that nobody may touch, or begin behind one; what is left of their pages is watched.
class Memory {
  public:
    uint8_t* take(int64_t bytes, int64_t alignment, bool at_end) {
        constexpr int64_t kPage = 4096;
        const int64_t room = round_up(bytes + alignment, kPage);
        auto* const pages = static_cast<uint8_t*>(
            mmap(nullptr, room + 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(pages, kPage, PROT_NONE);
        mprotect(pages + kPage + room, kPage, PROT_NONE);
        uint8_t* const first = pages + kPage;
        std::memset(first, kUntouched, static_cast<size_t>(room));
        const int64_t offset = at_end ? (room - bytes) / alignment * alignment : 0;
        pieces_.push_back({first, room, first + offset, bytes});
        return first + offset;
    }
    void give_back() {
        for (const Piece& piece : pieces_) {
            for (int64_t i = 0; i < piece.room; ++i) {
                const bool inside =
                    piece.first + i >= piece.begin && piece.first + i < piece.begin + piece.bytes;
                if (!inside && piece.first[i] != kUntouched) fail("a write beside a tensor");
            }
            munmap(piece.first - 4096, static_cast<size_t>(piece.room + 8192));
        }
        pieces_.clear();
    }

  private:
    static constexpr uint8_t kUntouched = 0xFF;  // NaN
    struct Piece {
        uint8_t* first;
        int64_t room;
        uint8_t* begin;
        int64_t bytes;
    };
    std::vector<Piece> pieces_;
};

struct Tensor {  // as read by the reference
    const void* data;
    Mode mode;
    double at(int64_t i) const {
        if (mode == Mode::f16) return __half2float(static_cast<const __half*>(data)[i]);
        if (mode == Mode::bf16) return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
        const float value = static_cast<const float*>(data)[i];
        return mode == Mode::tf32 ? __uint_as_float(round_tf32(__float_as_uint(value)) & 0xFFFFE000u)
                                  : value;
    }
    void set(int64_t i, float value) {
        void* const target = const_cast<void*>(data);
        if (mode == Mode::f16) static_cast<__half*>(target)[i] = __float2half_rn(value);
        else if (mode == Mode::bf16) static_cast<__nv_bfloat16*>(target)[i] = __float2bfloat16_rn(value);
        else static_cast<float*>(target)[i] = value;
    }
};

double activated(Activation activation, double value) {
    if (activation == Activation::relu) return value < 0 ? 0 : value;
    if (activation == Activation::gelu) return value / 2 * (1 + std::erf(value / std::sqrt(2.0)));
    if (activation == Activation::silu) return value / (1 + std::exp(-value));
    return value;
}

// `exact`: some sums may be of operands that are not rounded to TF32.
void compare(const Problem& problem, Mode mode, bool exact) {
    const Tensor x{problem.x, mode}, w{problem.w, mode};
    // bias and y are not rounded to TF32
    const Mode plain = mode == Mode::tf32 ? Mode::tf32x3 : mode;
    const Tensor bias{problem.bias, plain}, y{problem.y, plain};
    // A step of the result, relative; sums of fp32 and tf32 differ by their rounding only.
    const double step = mode == Mode::f16 ? 0x1p-10 : mode == Mode::bf16 ? 0x1p-7 : 0x1p-22;
    const double of_sum = mode == Mode::tf32x3 || mode == Mode::f16x3 ? 1e-6
                          : mode == Mode::tf32 && exact               ? 1e-3
                                                                      : 2e-5;
    const int64_t span = (problem.P - 1) * problem.stride + (problem.K - 1) * problem.dilation + 1;
    std::vector<double> rows(problem.C * span), sum(problem.P), magnitude(problem.P);
    for (int64_t n = 0; n < problem.N; ++n)
        for (int64_t g = 0; g < problem.G; ++g) {
            for (int64_t c = 0; c < problem.C; ++c)
                for (int64_t i = 0; i < span; ++i) {
                    const int64_t l = i - problem.pad_left;
                    rows[c * span + i] =
                        l < 0 || l >= problem.L
                            ? 0.0
                            : x.at(n * problem.x_stride_n + (g * problem.C + c) * problem.x_stride_c +
                                   l * problem.x_stride_l);
                }
            for (int64_t o = g * problem.O; o < (g + 1) * problem.O; ++o) {
                const double first = problem.bias != nullptr ? bias.at(o) : 0.0;
                std::fill(sum.begin(), sum.end(), first);
                std::fill(magnitude.begin(), magnitude.end(), std::fabs(first));
                for (int64_t c = 0; c < problem.C; ++c)
                    for (int64_t k = 0; k < problem.K; ++k) {
                        const double weight = w.at((o * problem.C + c) * problem.K + k);
                        const double* const row = rows.data() + c * span + k * problem.dilation;
                        for (int64_t p = 0; p < problem.P; ++p) {
                            const double product = weight * row[p * problem.stride];
                            sum[p] += product;
                            magnitude[p] += std::fabs(product);
                        }
                    }
                for (int64_t p = 0; p < problem.P; ++p) {
                    const double right = activated(problem.activation, sum[p]);
                    const double is = y.at((n * problem.G * problem.O + o) * problem.P + p);
                    const bool close =
                        std::isfinite(sum[p])
                            ? std::fabs(is - right) <= of_sum * magnitude[p] + 2 * step * std::fabs(sum[p]) +
                                                           (mode == Mode::f16 ? 0x1p-24 : 1e-37)
                        : std::isnan(right) ? std::isnan(is)
                                            : is == right;
                    if (!close)
                        fail("y[%d, %d, %d] is %.9g, should be %.9g, magnitude %.3g", static_cast<int>(n),
                             static_cast<int>(o), static_cast<int>(p), is, right, magnitude[p]);
                }
            }
        }
}

emulator::Schedule random_schedule(Random& random) {
    emulator::Schedule schedule;
    schedule.seed = random.next();
    const double rests[] = {0, 0, 0.5, 0.98};
    const double of_products[] = {rests[random.range(0, 3)], rests[random.range(0, 3)]};
    const double of_converters = rests[random.range(0, 3)], of_supplier = rests[random.range(0, 3)];
    for (int warp = 0; warp < 16; ++warp)
        schedule.warp_rests[warp] = warp < 8    ? of_products[warp / 4]
                                    : warp < 15 ? of_converters
                                                : of_supplier;
    if (random.chance(0.3)) schedule.warp_rests[random.range(0, 15)] = 0.99;
    schedule.lane_rests = random.chance(0.3) ? 0.7 : 0;
    schedule.yields = random.chance(0.5) ? 0.1 : 0;
    schedule.copy_lands = random.chance(0.5) ? 0.5 : 0.02;
    schedule.late = random.chance(0.5) ? 0.9 : 0.5;
    return schedule;
}

void on_bad_address(int, siginfo_t* info, void*) {
    fail("an access outside of all tensors, at %p", info->si_addr);
}

void watch_addresses() {
    struct sigaction action{};
    action.sa_sigaction = on_bad_address;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

}  // namespace
}  // namespace conv1d
