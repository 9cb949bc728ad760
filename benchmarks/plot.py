#!/usr/bin/env python3
"""Draws what gptq-bench measured.

    plot.py matmul RESULT.json... [--peers PEERS.csv] --out FILE.svg    time against M, a panel for each shape
    plot.py model RESULT.json... --out FILE.svg                         tokens a second against the context
    plot.py ablation ablation.json --out FILE.svg                       how much faster each rewrite makes each unit

RESULT is what `gptq-bench … --json` wrote, ablation.json what gpu_ablation.py did. Results of one kind of layer in several files become several
lines, called as the files are, or as NAME in NAME=RESULT.json. PEERS has the columns peer, M, N, K and us; its
rows of M = 0 are floors and left out, for each result brings the floor of its own run. The ending of FILE says
what is written: svg, png, pdf.
"""
import argparse
import csv
import json
import math
import os
import sys

import matplotlib

matplotlib.use("Agg")
# The same picture is the same file.
matplotlib.rcParams.update({"svg.hashsalt": "gptq", "svg.fonttype": "none", "font.size": 9})
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator


def fail(message):
    sys.exit(f"plot.py: error: {message}")


def read(arguments):
    """[(name, report)] of `NAME=FILE` or `FILE`."""
    reports = []
    for argument in arguments:
        name, _, path = argument.rpartition("=")
        try:
            with open(path, encoding="utf-8") as f:
                report = json.load(f)
        except (OSError, ValueError) as error:
            fail(f"cannot read '{path}': {error}")
        if not isinstance(report, dict) or not (report.get("results") or report.get("matmul")):
            fail(f"'{path}' has no results of gptq-bench or gpu_ablation.py")
        reports.append((name or os.path.splitext(os.path.basename(path))[0], report))
    return reports


def device_of(report):
    for key in ("device", "machine"):
        if isinstance(report.get(key), dict) and "name" in report[key]:
            return report[key]["name"]
    return report.get("cpu", "")


def kind_of(row):
    """What layers of one line have in common, but for their shape."""
    return f"{row['bits']} bits, group {row['group']}" + (", zero points" if row.get("asym") else "") + (
        ", act-order" if row.get("act_order") else "") + (f", {row['threads']} threads" if "threads" in row else "")


def lines_of_matmul(reports):
    """{shape: {line: [(M, µs)]}} and {shape: floor in µs}."""
    lines, floors = {}, {}
    kinds = {kind_of(row) for _, report in reports for row in report["results"]}
    for name, report in reports:
        for row in report["results"]:
            line = name if len(kinds) == 1 else f"{name}: {kind_of(row)}"
            lines.setdefault(row["shape"], {}).setdefault(line, []).append((row["m"], row["median_us"]))
            if "floor_us" in row:
                floors.setdefault(row["shape"], row["floor_us"])
    return lines, floors


def peers_of(path, shapes):
    """{shape: {peer: [(M, µs)]}}."""
    peers = {}
    try:
        with open(path, encoding="utf-8", newline="") as f:
            for row in csv.DictReader(f):
                shape = f"{row['N']}x{row['K']}"
                if int(row["M"]) > 0 and shape in shapes and row["us"]:
                    peers.setdefault(shape, {}).setdefault(row["peer"], []).append((int(row["M"]), float(row["us"])))
    except OSError as error:
        fail(f"cannot read '{path}': {error}")
    except (KeyError, TypeError, ValueError) as error:
        fail(f"'{path}' does not have the columns peer, M, N, K and us: {error}")
    return peers


def draw_matmul(reports, peers_path):
    lines, floors = lines_of_matmul(reports)
    peers = peers_of(peers_path, lines) if peers_path else {}
    columns = min(3, len(lines))
    rows = -(-len(lines) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 3.4 * rows + 0.9), squeeze=False)
    # A peer looks the same in every panel.
    names = sorted({peer for of_shape in peers.values() for peer in of_shape})
    looks = {name: {"color": plt.get_cmap("tab20")(i % 20), "marker": "ov^<>sPXD*"[i % 10]} for i, name in enumerate(names)}
    own = list(dict.fromkeys(line for of_shape in lines.values() for line in of_shape))
    widest = sorted({m for of_shape in lines.values() for points in of_shape.values() for m, _ in points})
    for axis, (shape, of_shape) in zip(axes.flat, lines.items()):
        for peer, points in peers.get(shape, {}).items():
            points = sorted(p for p in points if widest[0] <= p[0] <= widest[-1])
            if points:
                axis.plot(*zip(*points), linewidth=0.5, markersize=3.5, alpha=0.75, label=peer, **looks[peer])
        for line, points in of_shape.items():
            axis.plot(*zip(*sorted(points)), color=f"C{own.index(line)}" if len(own) > 1 else "black", linewidth=2, marker="o",
                      markersize=4, label=line, zorder=5)
        if shape in floors:
            axis.axhline(floors[shape], color="gray", linestyle="--", linewidth=1, label="floor: reading the weights")
        axis.set(xscale="log", yscale="log", title=f"{shape} (N x K)", ylabel="µs a call", xlabel="M, rows of activations")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.set_xticks(widest, [str(m) for m in widest])
        axis.grid(alpha=0.3, which="both")
    for axis in list(axes.flat)[len(lines):]:
        axis.set_visible(False)
    legend = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            legend.setdefault(label, handle)
    figure.suptitle(", ".join(dict.fromkeys(filter(None, (device_of(r) for _, r in reports)))))
    figure.tight_layout(rect=(0, 0.12 / rows, 1, 1))
    figure.legend(legend.values(), legend.keys(), loc="lower center", ncols=6, fontsize=8)
    return figure


def draw_model(reports):
    """A line for each file and number of threads; each file may hold one report or those of several contexts."""
    lines = {}
    for name, report in reports:
        # benchmarks/gpu_model.sh joins the reports of several contexts.
        for part in report["results"] if "contexts" in report else [report]:
            for row in part["results"]:
                line = name + (f", {row['threads']} threads" if "threads" in row else "")
                point = (part["prompt_tokens"] + part["new_tokens"] / 2, row["decode_tokens_per_s"], row.get("read_share"))
                lines.setdefault(line, []).append(point)
    figure, axis = plt.subplots(figsize=(7, 4.2))
    for line, points in lines.items():
        points.sort()
        axis.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=line)
        for x, y, share in points:
            if share is not None:
                axis.annotate(f"{share:.0%}", (x, y), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=7)
    axis.set(xlabel="tokens of context", ylabel="tokens a second", ylim=(0, None),
             title="Decoding; beside each point the share of what reading reaches")
    if max(p[0] for points in lines.values() for p in points) > 4 * min(p[0] for points in lines.values() for p in points):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    return figure


def draw_ablation(reports):
    """A panel for each unit: how many times as fast as its baseline every variant is, by M and for a whole model."""
    (_, report), *others = reports
    if others:
        fail("expected one ablation.json")
    times = {(r["unit"], r["variant"], r["shape"], r["m"]): r["median_us"] for r in report["matmul"]}
    rates = {(r["unit"], r["variant"]): r["decode_tokens_per_s"] for r in report["model"]}
    rows = sorted({m for *_, m in times})
    units = {}
    for unit, variant, *_ in times:
        units.setdefault(unit, {})[variant] = None
    units = {unit: list(variants) for unit, variants in units.items() if len(variants) > 1}
    figure, axes = plt.subplots(1, len(units), figsize=(5.2 * len(units), 3.8), squeeze=False, sharey=True)
    for axis, (unit, variants) in zip(axes.flat, units.items()):
        groups = [f"M = {m}" for m in rows] + (["whole model"] if rates else [])
        for i, variant in enumerate(variants):
            heights = []
            for m in rows:
                ratios = [times[unit, variants[0], shape, m] / times[unit, variant, shape, m] for shape in report["shapes"]]
                heights.append(math.prod(ratios) ** (1 / len(ratios)))
            if rates:
                heights.append(rates[unit, variant] / rates[unit, variants[0]])
            width = 0.8 / len(variants)
            bars = axis.bar([x + (i - (len(variants) - 1) / 2) * width for x in range(len(groups))], heights, width, label=variant)
            axis.bar_label(bars, fmt="%.2f", fontsize=5, rotation=90, padding=2)
        axis.axhline(1, color="gray", linewidth=1)
        axis.set_xticks(range(len(groups)), groups)
        axis.set(title=unit, ylabel="times as fast as the baseline")
        axis.grid(alpha=0.3, axis="y")
        axis.legend(fontsize=8, ncols=len(variants), loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle(f"{device_of(report['device'])}; geometric mean of {', '.join(report['shapes'])} (N x K)", fontsize=9)
    figure.tight_layout()
    return figure


DRAW = {"model": draw_model, "ablation": draw_ablation}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("kind", choices=("matmul", "model", "ablation"))
    p.add_argument("results", nargs="+", metavar="[NAME=]RESULT.json")
    p.add_argument("--peers", metavar="PEERS.csv")
    p.add_argument("--out", required=True, metavar="FILE")
    a = p.parse_args()
    reports = read(a.results)
    try:
        figure = draw_matmul(reports, a.peers) if a.kind == "matmul" else DRAW[a.kind](reports)
    except KeyError as error:
        fail(f"a result has no {error}: is it one of {'gpu_ablation.py' if a.kind == 'ablation' else f'gptq-bench {a.kind}'}?")
    os.makedirs(os.path.dirname(os.path.abspath(a.out)), exist_ok=True)
    # Without the date, for the same reason.
    figure.savefig(a.out, dpi=150, metadata={"Date": None} if a.out.endswith(".svg") else None)
    print(f"wrote {a.out}")


if __name__ == "__main__":
    main()
