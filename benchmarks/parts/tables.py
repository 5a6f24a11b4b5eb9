"""Parts about lookup tables and the search with them."""

from __future__ import annotations

from ..part import (
    COUNTED,
    LITERT,
    MEASURING,
    ORT,
    RUNTIME,
    TABLES,
    Command,
    Part,
    hwbench,
    script,
    selftest,
)
from ..picks import (
    at,
    over,
    row_named,
)
from ..rows import Figure, at_least, at_most

LOOKUP = Part(
    "lookup", 3,
    times=2,
    commands=selftest("lookup"),
    quick=selftest("lookup"),
    paths=("hwbench/lut/table.py", "hwbench/lut/query.py", "hwbench/lut/bench.py", "hwbench/search/*",
           "hwbench/catalog/spaces/*", "hwbench/cli/search.py", *COUNTED),
    figures=(
        Figure("rate", "vectorised query, one core: architectures", "1/s", row_named("vectorised", "value"),
               at_least(2e6)),
        Figure("over_walk", "… over a walk of a dict of strings", "x", row_named("over a walk", "value"),
               at_least(100.0)),
        Figure("search_s", "`hwbench search`, 20,000 evaluations", "s", row_named("search", "value"), at_most(10.0)),
    ),
)  # fmt: skip

_OFA = (
    Figure("within_5", "… within ±5 %", "share", at("within_5", "networks"), at_least(0.95)),
    Figure("within_10", "… within ±10 %", "share", at("within_10", "networks"), at_least(1.0)),
    Figure("spearman", "… Spearman's correlation", "x", at("spearman", "networks"), at_least(0.98)),
    Figure("spearman_within", "… the same within a resolution, median", "x",
           at("spearman_within_resolution", "networks"), at_least(0.97)),
    Figure("over_macs", "… error over that of a line through MACs", "x",
           over("mape", "baselines.macs.mape", "networks", "repeat_error"), at_most(0.5)),
    Figure("build_s", "… device time for the table", "s", at("build_device_time_s"), at_most(600.0)),
)  # fmt: skip
_OTHERS = (
    Figure("max_error", "… largest error", "share", at("max_error", "networks")),
    Figure("spearman", "… Spearman's correlation", "x", at("spearman", "networks")),
    Figure("over_macs", "… error over that of a line through MACs", "x",
           over("mape", "baselines.macs.mape", "networks", "repeat_error")),
    Figure("build_s", "… device time for the table", "s", at("build_device_time_s")),
)  # fmt: skip


def _table(name: str, space: str, target: str, mape: float, figures: tuple[Figure, ...], quick: str = "") -> Part:
    """A table that is built and validated. ``quick`` is a budget for the build, with fewer networks."""
    file = f"{{out}}/{name}.parquet"

    def commands(networks: str, *build: str) -> tuple[Command, ...]:
        return (
            hwbench("lut", "build", "--space", space, "--on", target, "-o", file, *build, tells=False),
            hwbench("lut", "validate", file, "--networks", networks, "--seed", "7", "--resume"),
        )

    what = f"`{space}` on {target.partition('/')[2]}: mean error on networks that the table never saw"
    error = Figure("mape", what, "share", at("mape", "networks", "repeat_error"), at_most(mape))
    return Part(
        name, 3,
        commands=commands("50"),
        quick=commands("5", "--budget", quick, "--partial") if quick else (),
        paths=(*MEASURING, *RUNTIME[target], *TABLES),
        figures=(error, *figures),
    )  # fmt: skip


SPACES = (
    _table("lut-ofa-mbv3", "ofa-mbv3", ORT, 0.02, _OFA),
    _table("lut-ofa-mbv3-litert", "ofa-mbv3", LITERT, 0.025, _OTHERS),
    _table("lut-fbnet", "fbnet", ORT, 0.04, _OTHERS),
    _table("lut-nasbench201", "nasbench201", ORT, 0.04, _OTHERS, quick="1m"),
    _table("lut-ofa-proxyless", "ofa-proxyless", ORT, 0.04, _OTHERS),
    _table("lut-ofa-resnet50", "ofa-resnet50", ORT, 0.04, _OTHERS),
    _table("lut-vit", "vit", ORT, 0.04, _OTHERS),
)

VERIFY = Part(
    "search-verify", 3,
    commands=(script("search_verify", "{out}/lut-ofa-mbv3.parquet", "40"),),
    quick=(),
    paths=(*MEASURING, *RUNTIME[ORT], *TABLES, "hwbench/search/*", "benchmarks/search_verify.py"),
    needs=(("lut-ofa-mbv3.parquet", "lut-ofa-mbv3"),),
    figures=(
        Figure("over_limit", "networks found under a limit that exceed it by over 2 % when measured", "share",
               at("verification.over_share", "verification.measured"), at_most(0.05)),
        Figure("mape", "… mean error of what was promised", "share",
               at("verification.mape", "verification.measured")),
    ),
)  # fmt: skip
