// What the binding's units share: names, at::conv1d with one more argument, and the op itself.
#pragma once
#include "problem.h"

#define AT_PER_OPERATOR_HEADERS  // torch's headers read no operator's that is not named: a tenth of the time
#include <optional>

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#define CONV1D_STRING(name) #name
#define CONV1D_QUALIFIED(name) CONV1D_STRING(name) "::conv1d"

// One macro level more than torch's, so that the extension's name is expanded first.
#define CONV1D_LIBRARY(name, m) TORCH_LIBRARY(name, m)
#define CONV1D_LIBRARY_IMPL(name, key, m) TORCH_LIBRARY_IMPL(name, key, m)

namespace conv1d {
namespace binding {

using at::IntArrayRef;
using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;
using OptionalTensor = std::optional<Tensor>;
using OptionalInt = std::optional<SymInt>;
using OptionalName = std::optional<c10::string_view>;

constexpr const char* kOpName = CONV1D_QUALIFIED(TORCH_EXTENSION_NAME);

// at::conv1d knows one padding for both sides: what one side has more is put into a copy of x first.
struct SymmetricPadding {
    Tensor x;
    SymInt padding;  // both sides of `x`
    SymInt left;     // positions put in front of the original x
    bool padded;     // whether `x` is such a copy

    SymmetricPadding(const Tensor& original, const SymInt& pad_left, const SymInt& pad_right);
};

// None for dtypes that the kernels do not know.
std::optional<Dtype> kernel_dtype(at::ScalarType type);

Tensor activate(Tensor y, const OptionalName& name);

// `pad_right` is `padding` where it is not given.
Tensor pytorch_conv1d(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, SymInt stride,
                      SymInt padding, SymInt dilation, SymInt groups, OptionalName activation,
                      OptionalInt pad_right);

// What the autograd, autocast, Meta and functorch kernels redispatch to.
inline const auto& conv1d_op() {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow(kOpName, "").typed<decltype(pytorch_conv1d)>();
    return op;
}

}  // namespace binding
}  // namespace conv1d
