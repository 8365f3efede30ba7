// The library as a Python module, with the op as one function. torch.ops matches each call with the schema
// and boxes its arguments, which takes 2 us; here they go to the dispatcher as they are.
#define AT_PER_OPERATOR_HEADERS  // torch's headers read no operator's that is not named: a sixth of the time
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/TracerMode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/python_variable.h>

#include <optional>

namespace {

using at::Tensor;
using c10::SymInt;
using OptionalTensor = std::optional<Tensor>;
using OptionalName = std::optional<c10::string_view>;
using Op = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, SymInt, SymInt, SymInt, SymInt,
                  OptionalName, std::optional<SymInt>);

#define CONV1D_STRING_OF(name) #name
#define CONV1D_STRING(name) CONV1D_STRING_OF(name)
#define CONV1D_INIT_OF(name) PyInit_##name
#define CONV1D_INIT(name) CONV1D_INIT_OF(name)

constexpr const char* kOpName = CONV1D_STRING(TORCH_EXTENSION_NAME) "::conv1d";

bool read_int(PyObject* object, int64_t& value) {
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

// An int, or the one int of a tuple or list.
bool read_number(PyObject* object, int64_t& value) {
    if (PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == 1) object = PyTuple_GET_ITEM(object, 0);
    if (PyList_CheckExact(object) && PyList_GET_SIZE(object) == 1) object = PyList_GET_ITEM(object, 0);
    return read_int(object, value);
}

bool read_name(PyObject* object, OptionalName& name) {
    if (object == Py_None) return true;
    Py_ssize_t length = 0;
    const char* text = PyUnicode_CheckExact(object) ? PyUnicode_AsUTF8AndSize(object, &length) : nullptr;
    if (text == nullptr) {
        PyErr_Clear();
        return false;
    }
    name.emplace(text, length);
    return true;
}

// conv1d(x, weight, bias, stride, padding, dilation, groups, activation), all by position. NotImplemented for
// what torch.ops alone does justice to: subclasses of Tensor, numbers that are not plain, padding by name or
// different on the two sides; and where a mode or a tracer watches the calls from Python.
PyObject* conv1d_direct(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(kOpName, "").typed<Op>();
    int64_t stride, padding, dilation, groups;
    OptionalName activation;
    if (count != 8 || !THPVariable_CheckExact(arguments[0]) || !THPVariable_CheckExact(arguments[1]) ||
        !(arguments[2] == Py_None || THPVariable_CheckExact(arguments[2])) ||
        !read_number(arguments[3], stride) || !read_number(arguments[4], padding) ||
        !read_number(arguments[5], dilation) || !read_int(arguments[6], groups) ||
        !read_name(arguments[7], activation) || at::impl::torch_function_mode_enabled() ||
        at::tracer::impl::is_dispatch_enabled())
        Py_RETURN_NOTIMPLEMENTED;
    OptionalTensor bias;
    if (arguments[2] != Py_None) bias = THPVariable_Unpack(arguments[2]);
    Tensor y;
    {
        const pybind11::gil_scoped_release without_gil;
        y = op.call(THPVariable_Unpack(arguments[0]), THPVariable_Unpack(arguments[1]), bias, stride, padding,
                    dilation, groups, activation, std::nullopt);
    }
    return THPVariable_Wrap(std::move(y));
    END_HANDLE_TH_ERRORS
}

PyMethodDef kMethods[] = {
    {"conv1d", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(conv1d_direct)), METH_FASTCALL,
     nullptr},
    {},
};

PyModuleDef kModule = {PyModuleDef_HEAD_INIT, CONV1D_STRING(TORCH_EXTENSION_NAME), nullptr, 0, kMethods};

}  // namespace

PyMODINIT_FUNC CONV1D_INIT(TORCH_EXTENSION_NAME)() { return PyModule_Create(&kModule); }
