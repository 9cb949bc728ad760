"""The runtime library, through its C API."""
import ctypes
import os
import time

import numpy as np

import harness


#: Of gptq_error.
ERROR_BYTES = 1024


class Tensor(ctypes.Structure):
    """gptq_tensor of include/gptq/runtime.h."""
    _fields_ = [("dtype", ctypes.c_int), ("rank", ctypes.c_size_t), ("shape", ctypes.c_int64 * 8), ("data", ctypes.c_void_p)]

    @classmethod
    def of(cls, array):
        assert array.dtype in (np.float32, np.int32) and array.flags.c_contiguous
        tensor = cls(dtype=int(array.dtype == np.int32), rank=array.ndim, data=array.ctypes.data)
        tensor.shape[:array.ndim] = array.shape
        return tensor


class Options(ctypes.Structure):
    """gptq_model_options of include/gptq/runtime.h."""
    _fields_ = [("threads", ctypes.c_int32), ("device", ctypes.c_int32), ("verify", ctypes.c_bool), ("inspect_only", ctypes.c_bool)]


class Model:
    """A compiled model and one session, through the C API."""

    def __init__(self, library, path, threads=0, device=0):
        self.library = library
        self.model, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        self.error = ctypes.create_string_buffer(ERROR_BYTES)
        options = Options(threads, device, False, False)
        self.check(library.gptq_model_open(os.fsencode(path), ctypes.byref(options), ctypes.byref(self.model), self.error))
        self.check(library.gptq_session_create(self.model, ctypes.byref(self.session), self.error))

    def check(self, status):
        if status:
            raise RuntimeError(self.error.value.decode())

    def run(self, name, x, y):
        """Runs the lone function `name`; seconds."""
        inputs, outputs = Tensor.of(x), Tensor.of(y)
        begin = time.perf_counter()
        self.check(self.library.gptq_session_run(self.session, name.encode(), ctypes.byref(inputs), ctypes.c_size_t(1),
                                                 ctypes.byref(outputs), ctypes.c_size_t(1), self.error))
        return time.perf_counter() - begin

    def score(self, tokens, logits):
        """Evaluates `tokens` from an empty context, with all logits; seconds."""
        self.check(self.library.gptq_session_rewind(self.session, ctypes.c_int64(0), self.error))
        begin = time.perf_counter()
        self.check(self.library.gptq_session_score(self.session, ctypes.c_void_p(tokens.ctypes.data), ctypes.c_int64(len(tokens)),
                                                   ctypes.c_void_p(logits.ctypes.data), self.error))
        return time.perf_counter() - begin


def runtime():
    path = os.environ.get("GPTQ_RUNTIME_LIBRARY") or os.path.join(os.path.dirname(harness.binary("gptq-run")), "..", "lib", "libgptq_runtime.so")
    library = ctypes.CDLL(path)
    for name in ("gptq_model_open", "gptq_session_create", "gptq_session_run", "gptq_session_rewind", "gptq_session_score"):
        getattr(library, name).restype = ctypes.c_int
    library.gptq_session_rewind.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p]
    library.gptq_session_score.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p]
    return library
