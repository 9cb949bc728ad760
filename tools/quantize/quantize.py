#!/usr/bin/env python3
"""Quantizes a Hugging Face checkpoint folder to a GPTQ checkpoint folder."""
import argparse
import os
import shutil
import sys
import time

if __package__ in (None, ""):
    # Run as a script: the package is this file's folder.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np

from quantize import checkpoint, gptq, model, packing
from quantize.checkpoint import Tensor, from_float, to_float
from quantize.tokenizer import Tokenizer

CARRIED = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
           "generation_config.json", "vocab.json", "merges.txt", "chat_template.jinja")


def parse_arguments(argv):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", required=True, metavar="DIR", help="checkpoint folder to quantize")
    p.add_argument("--out", required=True, metavar="DIR", help="checkpoint folder to write")
    p.add_argument("--method", choices=("gptq", "rtn"), default="gptq",
                   help="rtn rounds each weight to the nearest code, without calibration")
    p.add_argument("--bits", type=int, choices=(2, 3, 4, 8), default=4)
    p.add_argument("--group-size", type=int, default=128, help="input features per scale; -1: all")
    kind = p.add_mutually_exclusive_group()
    kind.add_argument("--sym", dest="sym", action="store_true", default=True,
                      help="zero point in the middle of the codes (default)")
    kind.add_argument("--asym", dest="sym", action="store_false", help="a zero point per group")
    p.add_argument("--act-order", action="store_true", help="quantize features with large activations first")
    p.add_argument("--static-groups", action="store_true", help="with --act-order: groups of neighbours")
    p.add_argument("--percdamp", type=float, default=0.01, help="damping, as a part of the mean diagonal")
    p.add_argument("--mse", action=argparse.BooleanOptionalAction, default=None,
                   help="search for the range with the least error (default with gptq)")
    p.add_argument("--format", choices=("gptq", "gptq_v2"), default="gptq", help="how zero points are stored")
    p.add_argument("--pad-intermediate", type=int, default=0, metavar="N",
                   help="widen the MLP with zeros to N features; the function stays the same")
    p.add_argument("--calibration", action="append", default=[], metavar="FILE",
                   help="text, or token ids in a .npy file (two dimensions: one window a row); "
                        "may be given several times")
    p.add_argument("--samples", type=int, default=64, help="calibration windows, over all files")
    p.add_argument("--length", type=int, default=512, help="tokens per window")
    p.add_argument("--seed", type=int, default=0, help="chooses the windows")
    p.add_argument("--shard-size", type=int, default=4096, metavar="MIB")
    args = p.parse_args(argv)
    if args.group_size != -1 and args.group_size < 1:
        p.error(f"--group-size {args.group_size}: expected a positive number or -1")
    if args.method == "gptq" and not args.calibration:
        p.error("--method gptq needs --calibration FILE")
    if args.static_groups and not args.act_order:
        p.error("--static-groups only has a meaning with --act-order")
    if args.method == "rtn" and args.act_order:
        p.error("--act-order needs --method gptq")
    if args.mse is None:
        args.mse = args.method == "gptq"
    return args


def calibration_windows(args, vocabulary):
    """Token ids [samples, length]: windows at random places, as many from each file."""
    tokenizer, rng, windows = None, np.random.default_rng(args.seed), []
    shares = np.diff(np.linspace(0, args.samples, len(args.calibration) + 1).astype(int))
    for path, share in zip(args.calibration, shares):
        if path.endswith(".npy"):
            ids, bos = np.load(path).astype(np.int64), None
        else:
            tokenizer = tokenizer or Tokenizer(args.model)
            with open(path, encoding="utf-8") as f:
                ids, bos = np.array(tokenizer.encode(f.read()), np.int64), tokenizer.bos
        body = args.length - (bos is not None)
        if ids.size < body:
            raise ValueError(f"{path}: {ids.size} tokens, a window needs {body}")
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise ValueError(f"{path}: tokens {ids.min()} to {ids.max()} in a vocabulary of {vocabulary}")
        if ids.ndim == 2:
            if ids.shape[0] < share or ids.shape[1] < body:
                raise ValueError(f"{path}: windows {ids.shape}, expected at least {(share, body)}")
            windows += list(ids[:share, :body])
            continue
        for start in rng.integers(0, ids.size - body + 1, share):
            window = ids[start:start + body]
            windows.append(np.concatenate([[bos], window]) if bos is not None else window)
    return np.stack(windows)


def pad_intermediate(tensors, config, width):
    """Adds zero rows to gate and up, and the zero columns of down that read them.

    silu(0) * 0 = 0, so the added features are zero whatever the input.
    """
    extra = width - config["intermediate_size"]
    if extra < 0:
        raise ValueError(f"--pad-intermediate {width} is less than the {config['intermediate_size']} there are")
    for name, tensor in list(tensors.items()):
        if ".mlp." not in name:
            continue
        if "down_proj.weight" in name:
            pads = ((0, 0), (0, extra))
        elif "gate_proj" in name or "up_proj" in name:
            pads = ((0, extra),) + ((0, 0),) * (tensor.array.ndim - 1)
        else:
            continue
        tensors[name] = Tensor(tensor.dtype, np.pad(tensor.array, pads))
    config["intermediate_size"] = width


def packed_tensors(result, bits, checkpoint_format):
    return {
        "qweight": packing.pack_rows(result.codes.astype(np.uint32), bits),
        "qzeros": packing.pack_zeros(result.zeros.astype(np.uint32), bits, checkpoint_format),
        "scales": from_float(result.scales, "F16"),
        "g_idx": result.g_idx.astype(np.int32),
    }


class Quantizer:
    """Quantizes the linear layers of one decoder layer as their inputs arrive."""

    def __init__(self, args):
        self.args, self.layer, self.results, self.report = args, None, {}, {}
        # A zero point of 0 is the one that readers of format "gptq" disagree about.
        first_zero = 1 if args.format == "gptq" else 0
        self.grid = gptq.Grid(args.bits, args.sym, args.mse, first_zero)

    def visit(self, names, inputs):
        widths = [self.layer.weight[n].shape[1] for n in names]
        w = np.concatenate([self.layer.weight[n] for n in names], 1)
        hessian = None
        if inputs is not None:
            hessian = np.zeros((w.shape[0],) * 2, np.float64)
            for x in inputs:
                hessian += x.T @ x
        if self.args.method == "gptq":
            result = gptq.gptq(w, hessian, self.grid, self.args.group_size, self.args.percdamp,
                               self.args.act_order, self.args.static_groups)
        else:
            result = gptq.round_to_nearest(w, self.grid, self.args.group_size)
        rounded = result.weight()
        if hessian is not None:
            d = rounded - w
            changed, total = (d * (hessian @ d)).sum(), (w * (hessian @ w)).sum()
            self.report["+".join(n.split(".")[1] for n in names)] = float(np.sqrt(changed / max(total, 1e-30)))
        first = 0
        for name, width in zip(names, widths):
            part = slice(first, first + width)
            self.results[name] = gptq.Result(result.codes[:, part], result.scales[:, part],
                                             result.zeros[:, part], result.g_idx)
            self.layer.weight[name] = np.ascontiguousarray(rounded[:, part])
            first += width


def quantize(args, log=print):
    begin = time.monotonic()
    config = checkpoint.read_json(args.model, "config.json")
    if "quantization_config" in config:
        raise ValueError(f"{args.model} is quantized already")
    shape = model.Shape(config)
    tensors = checkpoint.read_checkpoint(args.model)
    if args.pad_intermediate:
        pad_intermediate(tensors, config, args.pad_intermediate)

    activations = None
    if args.method == "gptq":
        windows = calibration_windows(args, tensors["model.embed_tokens.weight"].array.shape[0])
        log(f"calibration: {windows.shape[0]} windows of {windows.shape[1]} tokens")
        embedding = to_float(tensors["model.embed_tokens.weight"])
        activations = [embedding[w] for w in windows]

    writer = checkpoint.CheckpointWriter(args.out, args.shard_size << 20)
    quantized = {f"model.layers.{i}.{n}.weight" for i in range(shape.layers) for n in model.LINEAR}
    for name, tensor in tensors.items():
        if name not in quantized:
            writer.add(name, tensor)
    quantizer = Quantizer(args)
    for i in range(shape.layers):
        layer = quantizer.layer = model.Layer(tensors, i)
        if activations is not None:
            model.run_layer(shape, layer, activations, quantizer.visit)
        else:
            for name in model.LINEAR:
                quantizer.visit((name,), None)
        for name, result in quantizer.results.items():
            for part, tensor in packed_tensors(result, args.bits, args.format).items():
                writer.add(f"{layer.prefix}{name}.{part}", tensor)
        errors = " ".join(f"{k} {v:.4f}" for k, v in quantizer.report.items())
        log(f"layer {i + 1}/{shape.layers}: {time.monotonic() - begin:.0f} s" +
            (f", relative output error: {errors}" if errors else ""))
    writer.close()

    settings = {
        "bits": args.bits, "group_size": args.group_size, "sym": args.sym, "desc_act": args.act_order,
        "static_groups": args.static_groups, "damp_percent": args.percdamp, "true_sequential": True,
        "lm_head": False, "quant_method": "gptq", "checkpoint_format": args.format, "pack_dtype": "int32",
    }
    config["quantization_config"] = settings
    checkpoint.write_json(args.out, "config.json", config)
    checkpoint.write_json(args.out, "quantize_config.json", settings)
    for name in CARRIED:
        if os.path.exists(os.path.join(args.model, name)):
            shutil.copyfile(os.path.join(args.model, name), os.path.join(args.out, name))
    log(f"wrote {args.out} in {time.monotonic() - begin:.0f} s")


def main(argv=None):
    args = parse_arguments(argv)
    try:
        quantize(args, log=lambda line: print(line, flush=True))
    except (OSError, ValueError, KeyError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        print(f"quantize: error: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
