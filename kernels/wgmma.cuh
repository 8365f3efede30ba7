// wgmma.mma_async (PTX ISA 9.0, section 9.7.15.5.2): D[64][N] (+)= A[64][k] * B[k][N]^T, both operands
// K-major in shared memory, D in registers: thread t of the warpgroup holds rows 16*(t/32) + t%32/4 (+ 8) and
// columns 8*j + 2*(t%4) (+ 1) as d[4*j + 2*(row half) + (column parity)].
#pragma once
#include <cstdint>

namespace conv1d {

enum class Operand { tf32, f16, bf16 };

// Issues one product of 32 bytes of K; `acc` false overwrites d.
template <Operand kOperand, int kN>
struct Wgmma;

// The same with A in registers: of its row of 32 bytes in four-byte words, thread t holds words t%4 of rows
// 16*(t/32) + t%32/4 and that + 8, then words t%4 + 4 of both.
template <Operand kOperand, int kN>
struct WgmmaFromRegisters;

// clang-format off
#define CONV1D_WGMMA_D32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define CONV1D_WGMMA_OUT32 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define CONV1D_WGMMA_D64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define CONV1D_WGMMA_OUT64 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define CONV1D_WGMMA_D128 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CONV1D_WGMMA_OUT128 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define CONV1D_WGMMA_D192 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define CONV1D_WGMMA_OUT192 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), \
    "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), \
    "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), \
    "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), \
    "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define CONV1D_WGMMA_D256 CONV1D_WGMMA_D192 \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define CONV1D_WGMMA_OUT256 CONV1D_WGMMA_OUT192, \
    "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), \
    "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), \
    "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), \
    "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), \
    "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
#define CONV1D_WGMMA_D72 CONV1D_WGMMA_D64 ", %32, %33, %34, %35"
#define CONV1D_WGMMA_OUT72 CONV1D_WGMMA_OUT64, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define CONV1D_WGMMA_D80 CONV1D_WGMMA_D72 ", %36, %37, %38, %39"
#define CONV1D_WGMMA_OUT80 CONV1D_WGMMA_OUT72, "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define CONV1D_WGMMA_D136 CONV1D_WGMMA_D128 ", %64, %65, %66, %67"
#define CONV1D_WGMMA_OUT136 CONV1D_WGMMA_OUT128, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define CONV1D_WGMMA_D144 CONV1D_WGMMA_D136 ", %68, %69, %70, %71"
#define CONV1D_WGMMA_OUT144 CONV1D_WGMMA_OUT136, "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define CONV1D_WGMMA_FROM_REGISTERS(OPERAND, N, SHAPE, TYPES, A0, A1, A2, A3, B, ACC, TRANSPOSE)        \
    template <>                                                                                         \
    struct WgmmaFromRegisters<Operand::OPERAND, N> {                                                    \
        static __device__ __forceinline__ void issue(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, \
                                                     bool acc) {                                        \
            asm volatile(                                                                               \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %" ACC ", 0;\n"                                       \
                "wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPES                                     \
                " {" CONV1D_WGMMA_D##N "}, {%" A0 ", %" A1 ", %" A2 ", %" A3 "}, %" B                   \
                ", p, 1, 1" TRANSPOSE ";\n}"                                                            \
                : CONV1D_WGMMA_OUT##N                                                                   \
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(acc)));      \
        }                                                                                               \
    };

#define CONV1D_WGMMA(OPERAND, N, SHAPE, TYPES, A, B, ACC, TRANSPOSE)                                     \
    template <>                                                                                         \
    struct Wgmma<Operand::OPERAND, N> {                                                                 \
        static __device__ __forceinline__ void issue(float (&d)[N / 2], uint64_t a, uint64_t b, bool acc) { \
            asm volatile(                                                                               \
                "{\n.reg .pred p;\nsetp.ne.b32 p, %" ACC ", 0;\n"                                       \
                "wgmma.mma_async.sync.aligned." SHAPE ".f32." TYPES                                     \
                " {" CONV1D_WGMMA_D##N "}, %" A ", %" B ", p, 1, 1" TRANSPOSE ";\n}"                    \
                : CONV1D_WGMMA_OUT##N                                                                   \
                : "l"(a), "l"(b), "r"(static_cast<int>(acc)));                                          \
        }                                                                                               \
    };

CONV1D_WGMMA(tf32, 64, "m64n64k8", "tf32.tf32", "32", "33", "34", "")
CONV1D_WGMMA(f16, 64, "m64n64k16", "f16.f16", "32", "33", "34", ", 0, 0")
CONV1D_WGMMA(bf16, 64, "m64n64k16", "bf16.bf16", "32", "33", "34", ", 0, 0")
CONV1D_WGMMA(tf32, 128, "m64n128k8", "tf32.tf32", "64", "65", "66", "")
CONV1D_WGMMA(f16, 128, "m64n128k16", "f16.f16", "64", "65", "66", ", 0, 0")
CONV1D_WGMMA(bf16, 128, "m64n128k16", "bf16.bf16", "64", "65", "66", ", 0, 0")
CONV1D_WGMMA(tf32, 192, "m64n192k8", "tf32.tf32", "96", "97", "98", "")
CONV1D_WGMMA(f16, 192, "m64n192k16", "f16.f16", "96", "97", "98", ", 0, 0")
CONV1D_WGMMA(bf16, 192, "m64n192k16", "bf16.bf16", "96", "97", "98", ", 0, 0")

CONV1D_WGMMA_FROM_REGISTERS(f16, 32, "m64n32k16", "f16.f16", "16", "17", "18", "19", "20", "21", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 64, "m64n64k8", "tf32.tf32", "32", "33", "34", "35", "36", "37", "")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 64, "m64n64k16", "bf16.bf16", "32", "33", "34", "35", "36", "37", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 128, "m64n128k8", "tf32.tf32", "64", "65", "66", "67", "68", "69", "")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 128, "m64n128k16", "bf16.bf16", "64", "65", "66", "67", "68", "69", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(f16, 64, "m64n64k16", "f16.f16", "32", "33", "34", "35", "36", "37", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(f16, 128, "m64n128k16", "f16.f16", "64", "65", "66", "67", "68", "69", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 72, "m64n72k8", "tf32.tf32", "36", "37", "38", "39", "40", "41", "")
CONV1D_WGMMA_FROM_REGISTERS(f16, 80, "m64n80k16", "f16.f16", "40", "41", "42", "43", "44", "45", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 80, "m64n80k16", "bf16.bf16", "40", "41", "42", "43", "44", "45", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(tf32, 136, "m64n136k8", "tf32.tf32", "68", "69", "70", "71", "72", "73", "")
CONV1D_WGMMA_FROM_REGISTERS(f16, 144, "m64n144k16", "f16.f16", "72", "73", "74", "75", "76", "77", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(bf16, 144, "m64n144k16", "bf16.bf16", "72", "73", "74", "75", "76", "77", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(
    f16, 256, "m64n256k16", "f16.f16", "128", "129", "130", "131", "132", "133", ", 0")
CONV1D_WGMMA_FROM_REGISTERS(
    bf16, 256, "m64n256k16", "bf16.bf16", "128", "129", "130", "131", "132", "133", ", 0")

#undef CONV1D_WGMMA
#undef CONV1D_WGMMA_FROM_REGISTERS
#undef CONV1D_WGMMA_D32
#undef CONV1D_WGMMA_OUT32
#undef CONV1D_WGMMA_D72
#undef CONV1D_WGMMA_OUT72
#undef CONV1D_WGMMA_D80
#undef CONV1D_WGMMA_OUT80
#undef CONV1D_WGMMA_D136
#undef CONV1D_WGMMA_OUT136
#undef CONV1D_WGMMA_D144
#undef CONV1D_WGMMA_OUT144
#undef CONV1D_WGMMA_D256
#undef CONV1D_WGMMA_OUT256
#undef CONV1D_WGMMA_D64
#undef CONV1D_WGMMA_OUT64
#undef CONV1D_WGMMA_D128
#undef CONV1D_WGMMA_OUT128
#undef CONV1D_WGMMA_D192
#undef CONV1D_WGMMA_OUT192
// clang-format on

}  // namespace conv1d
