"""The calls of the CUDA runtime that engines need, by ctypes, without further packages."""

import ctypes
import ctypes.util
import sys
from pathlib import Path

import numpy

NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
TO_DEVICE, FROM_DEVICE = 1, 2  # cudaMemcpyKind
MAJOR, MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, ...Minor
NAME_BYTES = 256  # cudaDeviceProp starts with the name
PROPERTIES_BYTES = 8192  # larger than cudaDeviceProp of any version


class Cuda:
    """One GPU and one stream on it."""

    def __init__(self, index):
        self._library = open_library()
        count = ctypes.c_int(0)
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        if index >= count.value:
            raise RuntimeError(f"there is no GPU {index}; there are {count.value}")
        self._call("cudaSetDevice", index)
        self.stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(self.stream))
        self._begin, self._end = ctypes.c_void_p(), ctypes.c_void_p()
        for event in (self._begin, self._end):
            self._call("cudaEventCreate", ctypes.byref(event))
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, index)
        self.name = properties.raw[:NAME_BYTES].split(b"\0")[0].decode()
        self.capability = f"{self._attribute(MAJOR, index)}.{self._attribute(MINOR, index)}"

    def allocate(self, array):
        """Copies a numpy array to the GPU; returns its address, valid until the process ends."""
        address = ctypes.c_void_p()
        size = ctypes.c_size_t(max(array.nbytes, 1))
        self._call("cudaMalloc", ctypes.byref(address), size)
        self.write(address.value, array)
        return address.value

    def write(self, address, array):
        """Copies a numpy array to an address on the GPU."""
        array = numpy.ascontiguousarray(array)
        source, size = array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
        self._call("cudaMemcpy", ctypes.c_void_p(address), source, size, TO_DEVICE)

    def read(self, address, shape, kind):
        """A numpy array with the content at an address, after the stream has finished."""
        array = numpy.empty(shape, kind)
        target, size = array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
        self._call("cudaStreamSynchronize", self.stream)
        self._call("cudaMemcpy", target, ctypes.c_void_p(address), size, FROM_DEVICE)
        return array

    def timed(self, enqueue):
        """Nanoseconds between two events around the work that `enqueue()` adds to the stream."""
        self._call("cudaEventRecord", self._begin, self.stream)
        enqueue()
        self._call("cudaEventRecord", self._end, self.stream)
        self._call("cudaEventSynchronize", self._end)
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(milliseconds), self._begin, self._end)
        return round(milliseconds.value * 1e6)

    def _attribute(self, number, index):
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), number, index)
        return value.value

    def _call(self, function, *arguments):
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            explain = self._library.cudaGetErrorString
            explain.restype = ctypes.c_char_p
            raise RuntimeError(f"no usable CUDA GPU: {function}: {explain(status).decode()}")


def open_library():
    """Loads the CUDA runtime of the system, or of the wheels of a runtime."""
    found = ctypes.util.find_library("cudart")
    candidates = [*NAMES, *([found] if found else [])]
    for folder in sys.path:
        for pattern in ("nvidia/cu*/lib/libcudart.so*", "nvidia/cuda_runtime/lib/libcudart.so*"):
            candidates += sorted(str(path) for path in Path(folder).glob(pattern))
    for name in candidates:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError(
        "no usable CUDA GPU: the CUDA runtime (libcudart) is not installed here; "
        "fix: install NVIDIA's driver, and python -m pip install nvidia-cuda-runtime"
    )
