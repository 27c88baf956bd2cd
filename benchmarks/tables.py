"""README's tables, generated from the JSON results between markers, so that no figure is typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .gpu import GEMM, PRECISIONS
from .measure import RESULTS, percent

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
WORK = ("forward", "step", "both")  # what is timed of a layer on a GPU, or of an optimizer


def update_readme() -> None:
    """Put the current tables into README.md."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{render()}{END}{after}", encoding="utf-8")


def render() -> str:
    """The tables of all results that exist, as Markdown. Raises ValueError for one of an emulated GPU."""
    tables = {
        "models": _models,
        "kernels": _kernels,
        "models_cuda": _models_cuda,
        "kernels_cuda": _kernels_cuda,
        "algorithms": _algorithms,
        "algorithms_cuda": _algorithms,
        "scaling": _scaling,
        "overhead": _overhead,
        "import": _import,
        "feeding": _feeding,
        "parity": _parity,
        "zoo": _zoo,
        "reading": _reading,
        "fuzz": _fuzz,
        "ranks": _ranks,
        "kills": _kills,
        "camvid": _camvid,
        "stages_camvid": _stages,
        "stages_shapes": _stages,
    }
    paths = {name: RESULTS / f"{name}.json" for name in tables}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    for name, result in results.items():
        if result["environment"].get("emulated"):
            raise ValueError(f"{paths[name]}: measured on an emulated GPU; results of a real one are needed")
    return "\n".join(tables[name](result) for name, result in results.items())


def _where(result: dict[str, Any]) -> str:
    e = result["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in e["versions"].items() if k in ("numpy", "torch", "torchvision"))
    return f"`{result['command']}` — {e['processor']}, {e['threads']} threads, {', '.join(e['blas'])}, {versions}\n"


def _peaks(result: dict[str, Any]) -> str:
    peak = result["peaks"]
    rates = f"{peak['sgemm_gflops']:.0f} GFLOP/s and a copy {peak['copy_gb_per_s']:.0f} GB/s"
    return f"In the same run SGEMM reached {rates}.\n"


def _models(result: dict[str, Any]) -> str:
    lines = [
        _where(result),
        _peaks(result),
        "| network | what | minifcn | PyTorch | time ratio (min–max) | of the direct form at SGEMM's rate "
        "| peak memory minifcn / PyTorch |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        ours, theirs, r = row["minifcn"], row["torch"], row["ratio"]
        direct = f"{row['of_direct_at_sgemm_peak']:.2f}" if "of_direct_at_sgemm_peak" in row else ""
        lines.append(
            f"| `{row['model']}` | {row['what']} | {ours['median_s']:.2f} s | {theirs['median_s']:.2f} s "
            f"| {r['of_medians']:.2f} ({r['min']:.2f}–{r['max']:.2f}) | {direct} "
            f"| {ours['peak_rss_gb']:.2f} / {theirs['peak_rss_gb']:.2f} GB |"
        )
    return "\n".join(lines) + "\n"


def _kernels(result: dict[str, Any]) -> str:
    """Every layer; the ratios are to PyTorch's time."""
    lines = [
        _where(result),
        _peaks(result),
        f"<details><summary>{len(result['rows'])} layers, and a picture of them</summary>\n",
        "| layer | input | forward | ratio | forward and backward | ratio | GFLOP/s | GB/s | of the roofline |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        forward, both = row["forward"], row["both"]
        seconds = forward["minifcn"]["median_s"]
        ratios = [f"{side['ratio']['of_medians']:.2f}" if "ratio" in side else "" for side in (forward, both)]
        rate = f"{row['gflop'] / seconds:.0f}" if row["gflop"] else ""
        lines.append(
            f"| {row['layer']} | {row['input']} | {seconds * 1e3:.2f} ms | {ratios[0]} "
            f"| {both['minifcn']['median_s'] * 1e3:.2f} ms | {ratios[1]} | {rate} | {row['gbyte'] / seconds:.1f} "
            f"| {row['percent_of_roofline']:.0f} % |"
        )
    picture = "![each layer's rate over its arithmetic intensity](benchmarks/results/roofline.png)\n"
    return (
        "\n".join(lines)
        + f"\n\nGFLOP/s and the roofline count the operations of the direct form.\n\n{picture}\n</details>\n"
    )


def _where_on_gpu(result: dict[str, Any]) -> str:
    """The command, the GPU and what drives it, and what the rates of the roofline are."""
    e, peak = result["environment"], result["peaks"]
    names = {"cupy": "CuPy", "cuda_runtime": "CUDA", "torch": "torch", "cudnn": "cuDNN"}
    versions = [f"{said} {e['versions'][name]}" for name, said in names.items() if name in e["versions"]]
    driver = e["nvidia_smi"].get("driver_version")
    machine = ", ".join([e["gpu"], *([f"driver {driver}"] if driver else []), *versions])
    rates = ", ".join(f"{peak[name] / 1e3:.1f} TFLOP/s in {PRECISIONS[p]}" for p, name in GEMM.items())
    more = (
        " PyTorch has `cudnn.benchmark` on, and `allow_tf32` as its products say." if "cudnn" in e["versions"] else ""
    )
    more += "" if result["complete"] else " The run was stopped before its end."
    return (
        f"`{result['command']}` — {machine}; the CPU beside it: {e['processor']}, {e['threads']} threads\n\n"
        f"In the same run cuBLAS reached {rates}, and a copy within the GPU {peak['copy_gb_per_s']:.0f} GB/s. A time "
        f"is the mean of a batch of calls between synchronisations.{more}\n"
    )


def _models_cuda(result: dict[str, Any]) -> str:
    lines = [
        _where_on_gpu(result),
        "| network | what | products in | minifcn | PyTorch | time ratio (min–max) | minifcn on the CPU | times faster "
        "| memory reserved by minifcn / PyTorch |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        height, width = row["size"]
        images = "1 image" if row["images"] == 1 else f"{row['images']} images"
        for precision, found in _measured(row):
            ours, theirs, r = found["minifcn"], found.get("torch"), found.get("ratio")
            held = [f"{side['peak_reserved_gb']:.2f}" for side in (ours, theirs) if side]
            cells = [
                f"`{row['model']}`",
                f"{row['what']}, {images} {height}x{width}",
                precision,
                f"{ours['median_s'] * 1e3:.2f} ms",
                f"{theirs['median_s'] * 1e3:.2f} ms" if theirs else "",
                f"{r['of_medians']:.2f} ({r['min']:.2f}–{r['max']:.2f})" if r else "",
                f"{row['cpu']['median_s']:.2f} s" if "cpu" in row else "",
                f"{found['speed_up']:.0f}" if "speed_up" in found else "",
                f"{' / '.join(held)} GB",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + _faults(result, "model")


def _kernels_cuda(result: dict[str, Any]) -> str:
    """What there are targets for, and then the networks' layers: the first of them where the run was stopped."""
    groups = {name: [row for row in result["rows"] if row["group"] == name] for name in ("targets", "networks")}
    first = "" if result["complete"] else "first "
    measured = [found for row in result["rows"] for _, found in _measured(row)]
    ratios = [found[what]["ratio"] for found in measured for what in WORK if "ratio" in found.get(what, {})]
    apart = sum(r["max"] > 1.3 * r["min"] for r in ratios)
    return (
        f"{_where_on_gpu(result)}\n"
        "Times are medians of the rounds. A ratio is our time over PyTorch's on the same GPU: above 1 we are slower. "
        "Times faster: our CPU kernels' time, in float32 on the CPU named above, over our time on the GPU; forward / "
        "forward and backward. TF32 is what products may be made in; Winograd's are in strict float32 there too. The "
        "roofline counts the operations of the direct form: what is above 100 % makes fewer (Winograd), or is faster "
        f"than the copy. {apart} of the {len(ratios)} ratios differ between the rounds by more than a factor of 1.3. "
        "An optimizer's step stands under forward.\n\n"
        f"{_layers_cuda(groups['targets'])}\n"
        f"<details><summary>the networks' {first}{len(groups['networks'])} layers on the GPU</summary>\n\n"
        f"{_layers_cuda(groups['networks'])}\n</details>\n{_faults(result, 'layer')}"
    )


def _layers_cuda(rows: list[dict[str, Any]]) -> str:
    """A line for each layer and precision; an optimizer's step stands where others have their forward pass."""
    lines = [
        "| layer | input | products in | forward | ratio | forward and backward | ratio | times faster than our CPU "
        "| of the roofline |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for precision, found in _measured(row):
            cells = [row["layer"], row["input"], precision if row["gflop"] else ""]
            for times in (found.get("forward", found.get("step")), found.get("both")):
                cells.append(f"{times['minifcn']['median_s'] * 1e3:.3f} ms" if times else "")
                cells.append(f"{times['ratio']['of_medians']:.2f}" if times and "ratio" in times else "")
            faster = [f"{found[w]['speed_up']:.0f}" for w in WORK if "speed_up" in found.get(w, {})]
            cells += [" / ".join(faster), f"{found['percent_of_roofline']:.0f} %"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measured(row: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What products were made in, and what was found so."""
    return ((said, row[precision]) for precision, said in PRECISIONS.items() if precision in row)


def _faults(result: dict[str, Any], name: str) -> str:
    faults = [f"{row[name]} ({row['fault']})" for row in result["rows"] if "fault" in row]
    return f"\nNot measured: {'; '.join(faults)}.\n" if faults else ""


def _algorithms(result: dict[str, Any]) -> str:
    """How often `auto` takes the fastest, and every time for the networks' layers."""
    said = {"networks": "The networks' convolutions and their gradients", "limits": "Sizes around auto's limits"}
    found = []
    for source, words in said.items():
        rows = [row for row in result["rows"] if row["from"] == source]
        best = sum(row["auto"] == row["fastest"] for row in rows)
        near = sum(row["auto_over_fastest"] <= 1.1 for row in rows)
        found.append(f"{words}: the fastest in {best} of {len(rows)} calls, within 10 % of it in {near}")
    on_gpu = result["environment"]["device"] == "cuda"
    column = " products in |" if on_gpu else ""
    lines = [
        _where_on_gpu(result) if on_gpu else _where(result),
        f"What `auto` takes, against every other algorithm. {'. '.join(found)}.\n",
        "<details><summary>every algorithm for every layer that has a choice</summary>\n",
        f"| kernel | image | filter | stride |{column} milliseconds, with `auto`'s in bold |",
        f"|---|---|---|---|{'---|' if on_gpu else ''}---|",
    ]
    for row in result["rows"]:
        if row["from"] != "networks":
            continue
        times = [f"{name} {t['median_s'] * 1e3:.{3 if on_gpu else 2}f}" for name, t in row["algorithms"].items()]
        times = [f"**{cell}**" if cell.split()[0] == row["auto"] else cell for cell in times]
        x, w = ("×".join(map(str, row[side][1:] if side == "x" else row[side])) for side in "xw")
        precision = f" {row['products_in']} |" if on_gpu else ""
        lines.append(f"| {row['op']} | {x} | {w} | {row['stride'][0]} |{precision} {', '.join(times)} |")
    return "\n".join(lines) + "\n\n</details>\n"


def _scaling(result: dict[str, Any]) -> str:
    lines = [_where(result), "| network | inference of | time | per pixel |", "|---|---|---|---|"]
    for row in result["rows"]:
        side = row["side"]
        lines.append(
            f"| `{row['model']}` | {row['batch']} of {side}×{side} | {row['minifcn']['median_s']:.3f} s "
            f"| {row['ns_per_pixel']:.0f} ns |"
        )
    return "\n".join(lines) + "\n\n![time per pixel](benchmarks/results/scaling.png)\n"


def _overhead(result: dict[str, Any]) -> str:
    lines = [
        _where(result),
        "| chain of operations on 2×2 tensors, forward and backward | minifcn | PyTorch | time ratio (min–max) |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        ours, theirs, r = row["minifcn"], row["torch"], row["ratio"]
        lines.append(
            f"| {row['operations']} times {row['what']} "
            f"| {ours['median_s'] * 1e3:.1f} ms | {theirs['median_s'] * 1e3:.1f} ms "
            f"| {r['of_medians']:.2f} ({r['min']:.2f}–{r['max']:.2f}) |"
        )
    return "\n".join(lines) + "\n"


def _camvid(result: dict[str, Any]) -> str:
    """The metrics.jsonl of one run of the command."""
    first, last = result["rows"][0], result["rows"][-1]
    best = max(result["rows"], key=lambda row: row["mean_iu"])
    minutes = sum(row["seconds"] for row in result["rows"]) / 60
    return (
        f"`{result['command']}` — {result['environment']['processor']}\n\n"
        f"From scratch on CamVid's 367 training images, {minutes:.0f} minutes beside other work: training loss "
        f"{first['train_loss']:.2f} → {last['train_loss']:.2f}; mean IU on the 101 validation images (11 classes, void "
        f"excluded, 360×480) {first['mean_iu']:.3f} after epoch 1 and {best['mean_iu']:.3f} at best, in epoch "
        f"{best['epoch']} of {last['epoch']}. They are easier than the test images that papers report on.\n"
    )


def _stages(result: dict[str, Any]) -> str:
    """Every stage's best weights, the IU of every class, and the curve over all epochs."""
    rows = result["rows"]
    config = rows[0]["config"]
    said = {
        "camvid": "CamVid's 367 training images, scored on its 101 validation images (11 classes, void excluded, "
        "360×480), not on the 233 test images that papers report on",
        "shapes": f"{rows[0]['images']:,} scenes that minifcn draws, scored on {config['val_scenes']} others",
    }
    minutes = sum(row["seconds"] for row in rows) / 60
    lines = [
        f"`{result['command']}` — {_trained_on(result['environment'])}\n",
        f"`train --staged`, {'from `' + config['init'] + '`, ' if config['init'] else ''}seed {config['seed']}, "
        f"{minutes:.0f} minutes, on {said[config['data'].partition(':')[0]]}.\n",
        "| network | epochs | pixel accuracy | mean accuracy | mean IU | seconds per step |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        step = "" if row["seconds_per_step"] is None else _seconds(row["seconds_per_step"])
        lines.append(
            f"| `{row['model']}` (width {row['config']['width']:g}) | {row['best_epoch']} of {len(row['records'])} "
            f"| {row['pixel_accuracy']:.3f} | {row['mean_accuracy']:.3f} | {row['mean_iu']:.3f} | {step} |"
        )
    lines += ["", f"| IU | {' | '.join(rows[0]['classes'])} |", "|---" * (1 + len(rows[0]["classes"])) + "|"]
    for row in rows:
        ious = ["–" if value is None else f"{value:.3f}" for value in row["per_class_iu"]]
        lines.append(f"| {row['stride']} | {' | '.join(ious)} |")
    name = f"benchmarks/results/stages_{config['data'].partition(':')[0]}"
    lines += ["", f"![loss and scores over all stages]({name}_curve.png)"]
    if config["data"] == "shapes":
        lines += ["", f"![image, truth, and what each stage makes of it]({name}.png)"]
    return "\n".join(lines) + "\n"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _trained_on(environment: dict[str, Any]) -> str:
    if environment["device"] == "cuda":
        return f"one {environment['gpu']}"
    return f"{environment['processor']}, {environment['threads']} threads"


def _ranks(result: dict[str, Any]) -> str:
    lines = [
        _where(result),
        "Steps of one batch, shared by processes that share this machine's processors; batch norm over all of them. "
        "Distances are those of the weights from one process's after three steps, as parts of how far they went.\n",
        "| network (width) | processes × threads | seconds per step | speed-up over 1 process (min–max) "
        "| over 1 process of 1 thread | gradients' sum | distance in float32 | in float64 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        more, most = row["speed_up"], row["speed_up_over_one_thread"]
        lines.append(
            f"| `{row['model']}` ({row['width']}) | {row['processes']} × {row['threads']} "
            f"| {row['step']['median_s']:.3f} | {more['of_medians']:.2f} ({more['min']:.2f}–{more['max']:.2f}) "
            f"| {most['of_medians']:.2f} | {row['sum_gradients']['median_s'] / row['step']['median_s']:.1%} of a step "
            f"| {row['difference_float32']:.0e} | {row['difference_float64']:.0e} |"
        )
    return "\n".join(lines) + "\n"


def _import(result: dict[str, Any]) -> str:
    row = result["rows"][0]
    return (
        f"{_where(result)}\n`import minifcn` takes {row['ratio']['of_medians']:.2f} times `import numpy` "
        f"({row['minifcn']['median_s'] * 1e3:.0f} against {row['numpy']['median_s'] * 1e3:.0f} ms).\n"
    )


def _feeding(result: dict[str, Any]) -> str:
    lines = [
        _where(result),
        "Images scaled by ½ to 2, cropped to 360×480 and mirrored or not, one at a time; a training step of "
        "`fcn8s_vgg16`.\n",
        "| files | workers | the loader alone | a training step | of training, waiting for images |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['kind'].replace('x', '×')}, {row['kilobytes']:.0f} kB | {row['workers']} "
            f"| {1 / row['image']['median_s']:.0f} images/s | {row['step']['median_s']:.2f} s | {row['waiting']:.2%} |"
        )
    return "\n".join(lines) + "\n"


def _parity(result: dict[str, Any]) -> str:
    """One line per group of functions; those that disagree somewhere are named."""
    groups = {
        "functions": [row for row in result["rows"] if "." not in row["function"] and row["function"] != "Tensor[]"],
        "layers": [row for row in result["rows"] if row["function"].startswith("nn.")],
        "`Tensor`'s operators and methods": [row for row in result["rows"] if row["function"].startswith("Tensor")],
    }
    e = result["environment"]["versions"]
    lines = [
        f"`{result['command']}` — numpy {e['numpy']}, torch {e['torch']}\n",
        "| random calls of | calls | values equal | errors on both sides | meant to differ | disagree | agree |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in groups.items():
        calls, values, errors, meant, wrong = (
            sum(row[k] for row in rows) for k in ("calls", "values", "errors", "on_purpose", "disagreement")
        )
        agree = percent(calls - meant, wrong)
        lines.append(f"| {len(rows)} {name} | {calls} | {values} | {errors} | {meant} | {wrong} | {agree} |")
    worst = [f"`{r['function']}` ({r['disagreement']})" for r in result["rows"] if r["disagreement"]]
    return "\n".join(lines) + "\n" + (f"\nNot all: {', '.join(worst)}.\n" if worst else "")


def _zoo(result: dict[str, Any]) -> str:
    lines = [
        _where(result),
        "The largest difference of the outputs, over the largest output; of probabilities for the trained network. "
        "Round trip: PyTorch's state into minifcn through a `.pth` of PyTorch's, and back through one of minifcn's. "
        "Table 1 of Long et al. gives AlexNet, VGG-16 and GoogLeNet 57, 134 and 6 million parameters.\n",
        "| model | parameters | fixed | weights | checked against | float32 | float64 | round trip |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        fixed = f"{row['fixed']:,}" if row["fixed"] else ""
        double = f"{row['float64']:.0e}" if "float64" in row else ""
        lines.append(
            f"| `{row['model']}` | {row['parameters']:,} | {fixed} | {row['weights']} | {row['against']} "
            f"| {row['float32']:.0e} | {double} | {'bit-exact' if row['round_trip'] else 'NOT exact'} |"
        )
    return "\n".join(lines) + "\n"


def _reading(result: dict[str, Any]) -> str:
    """The file's size over the time, and the most memory over the file's size."""
    row = result["rows"][0]
    said = {
        "read_and_sum": "`mf.weights.read`, and every value added up",
        "torch_and_sum": "`torch.load`, and every value added up",
        "plain_and_sum": "plain reading, and every value added up",
        "plain": "plain reading",
    }
    lines = [
        _where(result),
        f"A `.pth` of {row['megabytes']:.0f} MB by {row['writer']}; `mf.weights.read` alone, which maps it, takes "
        f"{row['read']['median_s'] * 1e3:.1f} ms.\n",
        "| | from the cache | from the disk | most memory over the file's size | of that not the mapped file |",
        "|---|---|---|---|---|",
    ]
    for name, words in said.items():
        rates = [
            f"{row['megabytes'] / 1e3 / row[key]['median_s']:.2f} GB/s" if key in row else ""
            for key in (name, f"cold_{name}")
        ]
        side = {"read_and_sum": "minifcn", "torch_and_sum": "torch"}.get(name)
        shares = [
            f"{row[f'{side}_{key}_over_file']:.2f}" if f"{side}_{key}_over_file" in row else ""
            for key in ("peak", "anonymous")
        ]
        if name in row:
            lines.append(f"| {' | '.join([words, *rates, *shares])} |")
    return "\n".join(lines) + "\n"


def _fuzz(result: dict[str, Any]) -> str:
    minutes = sum(row["seconds"] for row in result["rows"]) / 60
    files, findings = (sum(row[key] for row in result["rows"]) for key in ("files", "findings"))
    libraries = sorted({row["library"] for row in result["rows"] if "library" in row})
    lines = [
        f"`{result['command']}` — {minutes:.0f} minutes, {', '.join(libraries)}\n",
        f"{files:,} files, changed at random from well-formed ones: {findings:,} findings.\n",
        "| format | files | read | refused in a sentence | anything else | most memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['format']} | {row['files']:,} | {row['read']:,} | {row['refused']:,} | {row['findings']:,} "
            f"| {row['peak_mb']:.0f} MB |"
        )
    what = [f"{row['format']}: {kind} ({n})" for row in result["rows"] for kind, n in row["what"].items()]
    since = f" {result['since']}" if "since" in result else ""
    return "\n".join(lines) + "\n" + (f"\nFindings: {'; '.join(what)}.{since}\n" if what else "")


def _kills(result: dict[str, Any]) -> str:
    kills, runs, differ = (sum(row[key] for row in result["rows"]) for key in ("kills", "runs", "different"))
    lines = [
        f"`{result['command']}` — {result['environment']['processor']}\n",
        f"{kills} SIGKILLs at random moments of training, each followed by a resume: of {runs} runs, {runs - differ} "
        "ended bit-identical to the undisturbed one (checkpoint, metrics, best weights, picture).\n",
        "| recipe | kills | inside a save | newest checkpoint damaged as well | went on from the one before | runs "
        "| identical |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['recipe']} | {row['kills']} | {row['inside_a_save']} | {row['damaged']} | {row['fell_back']} "
            f"| {row['runs']} | {row['runs'] - row['different']} |"
        )
    return "\n".join(lines) + "\n"
