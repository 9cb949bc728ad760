"""Writes one quantized layer as IR, for widths and shapes no checkpoint format has.

The folder is also a checkpoint of version 2 that `checkpoint.py` reads, whatever the width.
"""
import json
import os
import struct

from reference.make_checkpoint import make_layer

FLOATS = {"F16": "f16", "BF16": "bf16", "F32": "f32"}


def make_kernel(folder, rows, columns, bits, group_size=-1, sym=True, act_order=False, bias=False, **variant):
    """Returns the path of `layer.mlir` in `folder`, beside the weights it names; its function is @layer."""
    make_layer(folder, rows, columns, bits=bits, group_size=group_size, sym=sym, act_order=act_order, bias=bias,
               checkpoint_format="gptq_v2", **variant)
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(length))
    span = rows if group_size == -1 else min(group_size, rows)
    groups = -(-rows // span)

    def data(part, shape, element):
        offset = 8 + length + header[f"layer.{part}"]["data_offsets"][0]
        return f'#gptq.data<"model.safetensors", "layer.{part}", {offset}, tensor<{"x".join(map(str, shape))}x{element}>>'

    def codes(part, shape, packing):
        return f"#gptq.codes<{data(part, shape, 'i32')}, bits = {bits}, packing = {packing}>"

    scale = FLOATS[header["layer.scales"]["dtype"]]
    weights = {"codes": (f"{rows}x{columns}xi{bits}", codes("qweight", (-(-rows * bits // 32), columns), "rows")),
               "scales": (f"{groups}x{columns}x{scale}", data("scales", (groups, columns), scale))}
    if not sym:
        weights["zeros"] = (f"{groups}x{columns}xi{bits}", codes("qzeros", (groups, -(-columns * bits // 32)), "columns"))
    if act_order:
        weights["g_idx"] = (f"{rows}xi32", data("g_idx", (rows,), "i32"))
    if bias:
        weights["bias"] = (f"{columns}x{scale}", data("bias", (columns,), scale))
    symbols = "".join(f"  gptq.weight @{name} : tensor<{type_}> = {view}\n" for name, (type_, view) in weights.items())
    loads = "".join(f"    %{name} = gptq.load_weight @{name} : tensor<{type_}>\n" for name, (type_, _) in weights.items())
    named = [name for name in weights if name not in ("codes", "scales")]
    operands = " ".join(["%x, %codes, %scales"] + [f"{name} %{name}" for name in named])
    types = " ".join([f"tensor<?x{rows}xf32>, tensor<{weights['codes'][0]}>, tensor<{weights['scales'][0]}>"]
                     + [f"{name} tensor<{weights[name][0]}>" for name in named])
    zero = f", zero_point = {1 << (bits - 1)}" if sym else ""
    path = os.path.join(folder, "layer.mlir")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"""module attributes {{gptq.folder = {json.dumps(os.path.abspath(folder))}}} {{
{symbols}  func.func @layer(%x: tensor<?x{rows}xf32> {{gptq.name = "x"}}) -> (tensor<?x{columns}xf32> {{gptq.name = "y"}})
      attributes {{gptq.max_m = 512 : i64}} {{
    %zero = arith.constant 0 : index
    %m = tensor.dim %x, %zero : tensor<?x{rows}xf32>
{loads}    %room = tensor.empty(%m) : tensor<?x{columns}xf32>
    %y = gptq.dequant_matmul ins({operands} : {types}) outs(%room : tensor<?x{columns}xf32>)
        {{bits = {bits}, group_size = {span}{zero}}} -> tensor<?x{columns}xf32>
    return %y : tensor<?x{columns}xf32>
  }}
}}
""")
    return path
