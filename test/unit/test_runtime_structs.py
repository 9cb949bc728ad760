"""What the tests hand the runtime library is laid out as its header says."""
import ctypes
import os
import re
import sys

import pytest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "test", "e2e"))

import runtime

#: A field's type in the header, without what stands behind the name.
TYPES = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "size_t": ctypes.c_size_t, "bool": ctypes.c_bool, "float": ctypes.c_float,
         "gptq_dtype": ctypes.c_int}


def without_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)


def fields_of(header, struct):
    """[(name, ctypes type)] of a struct in the header's text."""
    body = re.search(rf"typedef struct {struct} \{{(.*?)\}} {struct};", without_comments(header), re.S).group(1)
    fields = []
    for line in filter(None, (line.strip() for line in body.split(";"))):
        kind, pointer, name, count = re.fullmatch(r"(?:const )?(\w+) (\**)(\w+)(?:\[(\w+)\])?", re.sub(r"\s+", " ", line)).groups()
        if count and not count.isdigit():
            count = re.search(rf"#define {count} (\d+)|{count} = (\d+)", header).group(1)
        t = ctypes.c_void_p if pointer else TYPES[kind]
        fields.append((name, t * int(count) if count else t))
    return fields


def layout_of(fields):
    """Names, offsets and sizes of what a C compiler makes of `fields`."""
    made = type("Made", (ctypes.Structure,), {"_fields_": fields})
    return [(name, getattr(made, name).offset, getattr(made, name).size) for name, _ in fields], ctypes.sizeof(made)


@pytest.fixture(scope="module")
def header():
    with open(os.path.join(ROOT, "include", "gptq", "runtime.h"), encoding="utf-8") as f:
        return f.read()


@pytest.mark.parametrize("struct, mirror", [("gptq_model_options", runtime.Options), ("gptq_tensor", runtime.Tensor)])
def test_the_mirror_of_a_struct_is_the_header_s(header, struct, mirror):
    assert layout_of(mirror._fields_) == layout_of(fields_of(header, struct))


@pytest.mark.parametrize("struct, mirror", [("gptq_model_options", runtime.Options), ("gptq_tensor", runtime.Tensor)])
def test_a_field_more_is_noticed(header, struct, mirror):
    more = header.replace(f"}} {struct};", f"  int32_t another;\n}} {struct};")
    assert more != header
    assert layout_of(mirror._fields_) != layout_of(fields_of(more, struct))


def test_errors_have_room(header):
    [(_, message)] = fields_of(header.replace("char message", "bool message"), "gptq_error")
    assert ctypes.sizeof(message) <= runtime.ERROR_BYTES
