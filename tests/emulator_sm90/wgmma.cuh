// Stands in for kernels/wgmma.cuh.
#pragma once
#include "emulator.h"

namespace conv1d {

enum class Operand { tf32, f16, bf16 };

template <Operand kOperand, int kN>
struct Wgmma {
    static void issue(float (&d)[kN / 2], uint64_t a, uint64_t b, bool acc) {
        constexpr auto kNumber = kOperand == Operand::tf32  ? emulator::Number::tf32
                                 : kOperand == Operand::f16 ? emulator::Number::f16
                                                            : emulator::Number::bf16;
        emulator::wgmma_issue(kNumber, kN, d, a, b, acc);
    }
};

}  // namespace conv1d
