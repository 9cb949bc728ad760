"""Writes one quantized layer as IR, or one of several experts, for widths and shapes no checkpoint format has.

The folder is also a checkpoint of version 2 that `checkpoint.py` reads, whatever the width.
"""
import json
import os
import struct

import numpy as np

from reference import formats
from reference.make_checkpoint import make_layer, random_layer, round_to, write_json, write_safetensors

FLOATS = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
PARTS = ("zeros", "g_idx", "bias")


class Weights:
    """The weights of a function: their symbols, as text, by name."""

    def __init__(self, folder, rows, columns, bits, group_size, sym, act_order, bias):
        with open(os.path.join(folder, "model.safetensors"), "rb") as f:
            self.length = struct.unpack("<Q", f.read(8))[0]
            self.header = json.loads(f.read(self.length))
        self.rows, self.columns, self.bits = rows, columns, bits
        self.span = rows if group_size == -1 else min(group_size, rows)
        self.sym, self.act_order, self.bias = sym, act_order, bias
        self.types, self.symbols = {}, ""

    def declare(self, name, type_, view):
        self.types[name] = f"tensor<{type_}>"
        self.symbols += f"  gptq.weight @{name} : tensor<{type_}> = {view}\n"

    def data(self, tensor, shape, element):
        offset = 8 + self.length + self.header[tensor]["data_offsets"][0]
        return f'#gptq.data<"model.safetensors", "{tensor}", {offset}, tensor<{"x".join(map(str, shape))}x{element}>>'

    def add_layer(self, module, suffix=""):
        """Declares the parts of `module` under their names and `suffix`."""
        rows, columns, bits = self.rows, self.columns, self.bits
        groups = -(-rows // self.span)

        def codes(part, shape, packing):
            return f"#gptq.codes<{self.data(f'{module}.{part}', shape, 'i32')}, bits = {bits}, packing = {packing}>"

        scale = FLOATS[self.header[f"{module}.scales"]["dtype"]]
        self.declare(f"codes{suffix}", f"{rows}x{columns}xi{bits}", codes("qweight", (-(-rows * bits // 32), columns), "rows"))
        self.declare(f"scales{suffix}", f"{groups}x{columns}x{scale}", self.data(f"{module}.scales", (groups, columns), scale))
        if not self.sym:
            self.declare(f"zeros{suffix}", f"{groups}x{columns}xi{bits}",
                         codes("qzeros", (groups, -(-columns * bits // 32)), "columns"))
        if self.act_order:
            self.declare(f"g_idx{suffix}", f"{rows}xi32", self.data(f"{module}.g_idx", (rows,), "i32"))
        if self.bias:
            self.declare(f"bias{suffix}", f"{columns}x{scale}", self.data(f"{module}.bias", (columns,), scale))

    def stack(self, name, count):
        """One weight of the `count` that are called `name` and a number."""
        self.declare(name, f"{count}x{self.types[name + '0'][len('tensor<'):-1]}",
                     "#gptq.stack<[" + ", ".join(f"@{name}{i}" for i in range(count)) + "]>")

    def loads(self, names):
        return "".join(f"    %{name} = gptq.load_weight @{name} : {self.types[name]}\n" for name in names)

    def matmul(self, result, x, x_type, out_type, more=""):
        """The loads and the product of `x`, written to `%room`; `more` is a last operand."""
        named = [name for name in PARTS if name in self.types]
        operands = " ".join([f"{x}, %codes, %scales"] + [f"{name} %{name}" for name in named] + ([f"{more} %{more}"] if more else []))
        types = " ".join([f"{x_type}, {self.types['codes']}, {self.types['scales']}"]
                         + [f"{name} {self.types[name]}" for name in named] + ([f"{more} {self.types[more]}"] if more else []))
        zero = f", zero_point = {1 << (self.bits - 1)}" if self.sym else ""
        return self.loads(["codes", "scales"] + named) + f"""\
    {result} = gptq.dequant_matmul ins({operands} : {types}) outs(%room : {out_type})
        {{bits = {self.bits}, group_size = {self.span}{zero}}} -> {out_type}
"""


def write_function(folder, weights, body):
    """Writes @layer, rows [M, K] to rows [M, N], and returns the path."""
    x, y = f"tensor<?x{weights.rows}xf32>", f"tensor<?x{weights.columns}xf32>"
    path = os.path.join(folder, "layer.mlir")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"""module attributes {{gptq.folder = {json.dumps(os.path.abspath(folder))}}} {{
{weights.symbols}  func.func @layer(%x: {x} {{gptq.name = "x"}}) -> ({y} {{gptq.name = "y"}})
      attributes {{gptq.max_m = 512 : i64}} {{
    %zero = arith.constant 0 : index
    %m = tensor.dim %x, %zero : {x}
{body}    return %y : {y}
  }}
}}
""")
    return path


def make_kernel(folder, rows, columns, bits, group_size=-1, sym=True, act_order=False, bias=False, **variant):
    """Returns the path of `layer.mlir` in `folder`, beside the weights it names; its function is @layer."""
    make_layer(folder, rows, columns, bits=bits, group_size=group_size, sym=sym, act_order=act_order, bias=bias,
               checkpoint_format="gptq_v2", **variant)
    weights = Weights(folder, rows, columns, bits, group_size, sym, act_order, bias)
    weights.add_layer("layer")
    x, y = f"tensor<?x{rows}xf32>", f"tensor<?x{columns}xf32>"
    return write_function(folder, weights, f"    %room = tensor.empty(%m) : {y}\n" + weights.matmul("%y", "%x", x, y))


def make_experts(folder, experts, slots, rows, columns, bits, group_size=-1, sym=True, act_order=False, bias=False,
                 seed=0, normalizes=True):
    """The same for a layer of which there are `experts`, `slots` of them for a row. Expert e is module "layer.<e>",
    the router "router.weight" [experts, rows]."""
    rng = np.random.default_rng(seed)
    os.makedirs(folder, exist_ok=True)
    tensors = {"router.weight": round_to(rng.normal(size=(experts, rows)) / np.sqrt(rows), "F16")}
    for e in range(experts):
        layer = random_layer(rng, rows, columns, bits, group_size, sym, act_order, bias)
        tensors.update({f"layer.{e}.{part}": value for part, value in formats.pack(layer, "gptq_v2").items()})
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    write_json(folder, "config.json", {"quantization_config": formats.settings(layer, "gptq_v2")})

    weights = Weights(folder, rows, columns, bits, group_size, sym, act_order, bias)
    for e in range(experts):
        weights.add_layer(f"layer.{e}", str(e))
    for name in ("codes", "scales", *PARTS):
        if f"{name}0" in weights.types:
            weights.stack(name, experts)
    weights.declare("router", f"{experts}x{rows}xf16", weights.data("router.weight", (experts, rows), "f16"))
    x, y = f"tensor<?x{rows}xf32>", f"tensor<?x{columns}xf32>"
    logits, chosen, runs = f"tensor<?x{experts}xf32>", f"tensor<?x{slots}xi32>", f"tensor<{experts + 1}x2xi32>"
    shares, gathered = f"tensor<?x{slots}xf32>", f"tensor<?x{slots}x{rows}xf32>"
    made = f"tensor<?x{slots}x{columns}xf32>"
    weights.types["runs"] = runs
    return write_function(folder, weights, weights.loads(["router"]) + f"""\
    %no_logits = tensor.empty(%m) : {logits}
    %logits = gptq.matmul ins(%x, %router : {x}, {weights.types['router']}) outs(%no_logits : {logits}) -> {logits}
    %no_experts = tensor.empty(%m) : {chosen}
    %no_shares = tensor.empty(%m) : {shares}
    %experts, %shares = gptq.route ins(%logits : {logits}) outs(%no_experts, %no_shares : {chosen}, {shares})
        {{{"normalize" if normalizes else ""}}} -> {chosen}, {shares}
    %no_positions = tensor.empty(%m) : {chosen}
    %no_order = tensor.empty(%m) : {chosen}
    %no_runs = tensor.empty() : {runs}
    %positions, %order, %runs = gptq.group_rows ins(%experts : {chosen}) outs(%no_positions, %no_order, %no_runs : {chosen}, {chosen}, {runs})
        -> {chosen}, {chosen}, {runs}
    %no_rows = tensor.empty(%m) : {gathered}
    %rows = gptq.gather_rows ins(%x, %order : {x}, {chosen}) outs(%no_rows : {gathered}) -> {gathered}
    %room = tensor.empty(%m) : {made}
""" + weights.matmul("%made", "%rows", gathered, made, "runs") + f"""\
    %no_y = tensor.empty(%m) : {y}
    %y = gptq.combine_rows ins(%made, %positions, %shares : {made}, {chosen}, {shares}) outs(%no_y : {y}) -> {y}
""")
