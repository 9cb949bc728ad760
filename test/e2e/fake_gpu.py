"""Runs models of the processor on a GPU that is not there.

A model compiled for x86-64 becomes one for a GPU whose "PTX" names the kernels
and the file with their code; the driver of the runtime's tests runs them. So
the way of a whole model over the GPU's back end is tested without a GPU.
"""
import json
import os

import damage
import harness


def environment():
    """What makes the runtime open the tests' driver."""
    library = os.path.join(os.path.dirname(harness.binary("gptq-run")), "..", "lib", "libgptq-fake-cuda.so")
    assert os.path.exists(library), f"no {library}; build it"
    return {"GPTQ_CUDA_DRIVER": os.path.realpath(library)}


#: The header of an ELF file of machine code for NVIDIA GPUs that has neither segments nor sections.
CUBIN_HEADER = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\0\xbe\0".ljust(48, b"\0")


def move_to_gpu(path, cubin=False):
    """Turns the compiled model `path` for x86-64 into one for the fake GPU, with a cubin if asked for."""
    container = damage.Container(path)
    contents = damage.contents_of(container)
    manifest = json.loads(contents["manifest.json"])
    elf = path + ".so"
    with open(elf, "wb") as f:
        f.write(contents.pop("code.elf"))
    text, seen = f".version 8.0\n// elf {elf}\n", set()
    for entry in manifest["entries"]:
        for dispatch in entry["dispatches"]:
            for variant in dispatch["variants"]:
                variant.update(threads=1, scratch_bytes=0)
                if variant["symbol"] not in seen:
                    seen.add(variant["symbol"])
                    parameters = ", ".join([".param .u64 p"] * (len(dispatch["args"]) + 1))
                    text += f".visible .entry {variant['symbol']}({parameters})\n"
    manifest["target"] = {"kind": "nvvm", "name": "sm_90a", "features": []}
    contents["code.ptx"] = text.encode()
    if cubin:
        contents["code.cubin"] = CUBIN_HEADER + text.encode()
    manifest["sections"] = [{"tensor": name, "bytes": len(content), "checksum": damage.xxh3_64(content)}
                            for name, content in contents.items() if name != "manifest.json"]
    contents["manifest.json"] = json.dumps(manifest).encode()
    container.header["__metadata__"]["manifest_checksum"] = damage.xxh3_64(contents["manifest.json"])
    damage.lay_out(container, contents)
