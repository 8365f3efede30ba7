// Stands in for kernels/wgmma.cuh.
#pragma once
#include "emulator.h"

namespace conv1d {

enum class Operand { tf32, f16, bf16 };

template <Operand kOperand>
constexpr auto kNumberOf = kOperand == Operand::tf32  ? emulator::Number::tf32
                           : kOperand == Operand::f16 ? emulator::Number::f16
                                                      : emulator::Number::bf16;

template <Operand kOperand, int kN>
struct Wgmma {
    static void issue(float (&d)[kN / 2], uint64_t a, uint64_t b, bool acc) {
        emulator::wgmma_issue(kNumberOf<kOperand>, kN, d, a, b, acc);
    }
};

template <Operand kOperand, int kN>
struct WgmmaFromRegisters {
    static void issue(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool acc) {
        emulator::wgmma_issue(kNumberOf<kOperand>, kN, d, a, b, acc);
    }
};

}  // namespace conv1d
