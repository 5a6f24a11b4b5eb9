"""litert-native from end to end: a stand-in binary that really runs the model, over every road, and what goes wrong."""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import benchmark_model as tool
import numpy as np
import pytest
from adbd import Phone, phone
from benchmark_model import Build

from hwbench import bench as benches
from hwbench import campaign, device
from hwbench.android import energy as android_energy
from hwbench.cache import Cache, file_sha256
from hwbench.campaign import Failure, Request, run
from hwbench.catalog.model import Model
from hwbench.channels import Finished
from hwbench.channels.local import LocalChannel
from hwbench.device import Cluster, Device
from hwbench.errors import DeviceError, HwbenchError, MissingDependency, UsageError, WorkerError
from hwbench.estimate import Preset
from hwbench.measurement import Measurement
from hwbench.runtimes import benchmark_model_settings as settings
from hwbench.runtimes import benchmark_model_tool as tools
from hwbench.runtimes import benchmark_model_worker as worker
from hwbench.runtimes import tflite_made
from hwbench.runtimes.litert_native import RUNTIME
from hwbench.runtimes.tflite_made import Builder
from hwbench.selftest.loopback import Loopback
from hwbench.store import Store
from hwbench.target import Target

SHORT = Preset("quick", (1,), 0.95, 8, 0.002, 0.02, 2.0)
KERNELS = ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "CONV_2D"]
pytest_plugins = ["sshd"]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="benchmark_model is built for Linux")
pytestmark = LINUX


def toy() -> bytes:
    """Four convolutions in a row."""
    builder = Builder()
    shape: tuple[int, ...] = (1, 16, 16, 3)
    x = y = builder.tensor("x", shape)
    for cout, kernel, depthwise in ((8, 3, False), (0, 3, True), (16, 1, False), (8, 1, False)):
        y, shape = builder.conv(y, shape, cout, kernel, 1, depthwise)
    return builder.finish([x], [y])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "toy.tflite"
    path.write_bytes(toy())
    return Model(str(path), "tflite", (("x", (1, 16, 16, 3), "float32"),), path=path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of some runs, a small anchor, one session: enough to see every number arrive."""
    monkeypatch.setattr(tflite_made, "anchor", toy)
    monkeypatch.setattr(worker, "MIN_BLOCKS", 2)
    monkeypatch.setattr(worker, "ANCHOR_RUNS", 3)
    for name in ("WARM_S", "ANCHOR_WARM_S", "BLOCK_S"):
        monkeypatch.setattr(worker, name, 0.002)
    monkeypatch.setattr(RUNTIME, "arities", (), raising=False)  # its chains are a test of their own
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)
    monkeypatch.setitem(campaign.LAYER_SESSIONS, "quick", 1)


def profile(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> Device:
    """A device of the user's."""
    home = folder / "devices"
    home.mkdir(exist_ok=True)
    described = text if "description" in text else f'description = "for a test"\n{text}'
    (home / f"{name}.toml").write_text(described)
    monkeypatch.setenv("HWBENCH_DEVICES", str(home))
    return device.find(name)


def here(binary: Path | str, **fields: Any) -> Device:
    return Device("here", "local", "for a test", runtimes={"litert-native": {"binary": str(binary)}}, **fields)


@contextmanager
def opened(binary: Path, cache: Cache, target: str = "here/litert-native", **fields: Any) -> Iterator[Any]:
    """A worker of a local device that runs a binary."""
    with LocalChannel() as channel:
        yield RUNTIME.worker(channel, here(binary, **fields), RUNTIME, Target.parse(target), cache, seed=0)


def measured(store: Store, cache: Cache, model: Model, target: str, *passes: str) -> Measurement | Failure:
    request = Request((model,), (Target.parse(target),), SHORT, passes)
    (found,) = run(request, store, cache=cache)
    return found


def check_latency(found: Measurement | Failure, binary: Path) -> dict[str, Any]:
    """What the latency pass over the toy must hold, whatever the road was."""
    assert isinstance(found, Measurement), found
    result = found.as_dict()
    latency = result["latency_s"]
    assert 0 < latency["median"] < 0.1
    assert set(latency["percentiles"].values()) == {None}  # a summary has no tail
    assert latency["samples"] == 2
    codes = {each["code"] for each in result["caveats"]}
    assert "summary_only" in codes
    assert not {"budget_cut", "fallback_provider", "no_layers", "pass_failed"} & codes
    assert result["environment"]["binary"]["sha256"] == file_sha256(binary)
    data = found.of("latency")[0].data
    assert sum(row["count"] for row in data["summaries"]) == 2 * data["inner_loop"]
    assert data["first_s"] > 0
    assert data["load_s"] > 0
    return result


def test_the_whole_road_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store, shared: Cache, model: Model
) -> None:
    binary = tool.install(tmp_path / "benchmark_model")
    profile(monkeypatch, tmp_path, "box", f'kind = "local"\n[runtimes.litert-native]\nbinary = "{binary}"\n')
    found = measured(store, shared, model, "box/litert-native", "latency", "memory", "energy")
    result = check_latency(found, binary)
    assert result["environment"]["device"]["cpu_model"]
    assert result["memory"]["peak_bytes"] > 1 << 20
    assert "unavailable" in result["energy"]


GETPROP = "#!/bin/sh\necho '[ro.product.model]: [Pixel 6]'; echo '[ro.build.version.sdk]: [34]'\n"
DUMPSYS = """#!/bin/sh
case $1 in
battery) printf '  USB powered: true\\n  Charge counter: 2310000\\n  status: 2\\n  level: 73\\n  voltage: 4123\\n' ;;
thermalservice) printf 'Thermal Status: 0\\nCurrent temperatures from HAL:\\n'
  printf '\\tTemperature{mValue=42.5, mType=0, mName=soc0, mStatus=1}\\n' ;;
esac
"""
TASKSET = '#!/bin/sh\necho "$1" >>"$ANDROID_ROOT/masks"\nshift\nexec "$@"\n'  # toybox reads a mask and no list
CLUSTERED = {
    "/sys/devices/system/cpu/possible": "0-7",
    "/sys/devices/system/cpu/cpufreq/policy0/related_cpus": "0 1 2 3",
    "/sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1803000",
    "/sys/devices/system/cpu/cpufreq/policy4/related_cpus": "4 5 6 7",
    "/sys/devices/system/cpu/cpufreq/policy4/cpuinfo_max_freq": "2802000",
}


@pytest.fixture
def pixel(tmp_path: Path) -> Iterator[Phone]:
    """A phone with two clusters, warm, on a cable."""
    made = {"getprop": GETPROP, "dumpsys": DUMPSYS, "taskset": TASKSET}
    with phone(tmp_path, made, CLUSTERED) as running:
        yield running


def test_the_whole_road_over_adb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store, shared: Cache, model: Model, pixel: Phone
) -> None:
    binary = tool.install(tmp_path / "benchmark_model")
    text = f'kind = "adb"\naddress = "{pixel.serial}"\n[runtimes.litert-native]\nbinary = "{binary}"\n'
    profile(monkeypatch, tmp_path, "pixel", text)
    found = measured(store, shared, model, "pixel/litert-native+big", "latency", "layers", "energy")
    result = check_latency(found, binary)
    assert [row["op"] for row in result["layers"]] == KERNELS
    assert sum(row["macs"] for row in result["layers"]) == result["macs"] > 0
    assert sum(row["raw_s"] for row in result["layers"]) > 0
    assert result["environment"]["device"]["product"] == "Pixel 6"
    assert "powered by USB" in result["energy"]["unavailable"]
    assert "throttled" in {each["code"] for each in result["caveats"]}
    assert set((pixel.root / "masks").read_text().split()) == {"f0"}
    sent = pixel.received_bytes
    assert sent >= binary.stat().st_size
    measured(store, shared, model, "pixel/litert-native+big", "memory")
    assert pixel.received_bytes == sent
    assert not list(pixel.path(pixel.workdir).glob("profile-*"))


def test_a_phone_that_lowers_its_clocks_says_so_over_adb(
    tmp_path: Path, shared: Cache, model: Model, pixel: Phone
) -> None:
    """Its thermal status may stay at 0 meanwhile, which is no proof."""
    limit = pixel.path("/sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq")
    limit.parent.mkdir(parents=True)
    limit.write_text("2802000\n")
    hot = f'#!/bin/sh\n[ ! -e "$ANDROID_ROOT/hot" ] || echo 1401000 >{limit}\nshift\nexec "$@"\n'
    (pixel.root / "system/bin/taskset").write_text(hot)
    target = Target.parse("pixel/litert-native+big")
    binary = tool.install(tmp_path / "benchmark_model")
    of = Device("pixel", "adb", "for a test", pixel.serial, runtimes={"litert-native": {"binary": str(binary)}})
    said = []
    with of.connect() as channel, RUNTIME.worker(channel, of, RUNTIME, target, shared, seed=0) as live:
        live.open("model", RUNTIME.prepare(model, target, shared), 20.0)
        live.open("anchor", RUNTIME.anchor(target, shared), 20.0, role="anchor")
        limits = {"typical_s": 1e-3, "min_samples": 5, "min_s": 0.01, "budget_s": 0.1, "max_block": 5}
        for _ in range(2):
            answer = live.ask("measure", 120.0, handles={"plain": "model"}, anchor="anchor", **limits)
            said.append([text for text in answer["throttled"] if "GHz" in text])
            (pixel.root / "hot").touch()
    assert said == [[], ["CPU 7 limited to 1.40 of 2.80 GHz"]]


def test_energy_over_adb_counts_the_inferences_of_each_window(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Cache, model: Model, pixel: Phone
) -> None:
    counts = []

    def measure(channel: Any, work: Any, *, windows: int, sensors: Any) -> dict[str, Any]:
        counts.append(work(0.2))
        return {"unavailable": "a test", "remedy": "none"}

    monkeypatch.setattr(android_energy, "measure_energy", measure)
    target = Target.parse("pixel/litert-native")
    binary = tool.install(tmp_path / "benchmark_model")
    of = Device("pixel", "adb", "for a test", pixel.serial, runtimes={"litert-native": {"binary": str(binary)}})
    with of.connect() as channel, RUNTIME.worker(channel, of, RUNTIME, target, shared, seed=0) as live:
        live.open("model", RUNTIME.prepare(model, target, shared), 20.0)
        live.ask("energy", 60.0, handle="model", windows=5)
    assert counts[0] > 50


def test_a_phone_that_leaves_is_a_device_error_and_not_the_model_s_fault_over_adb(
    tmp_path: Path, shared: Cache, model: Model, pixel: Phone
) -> None:
    target = Target.parse("pixel/litert-native")
    binary = tool.install(tmp_path / "benchmark_model", Build(fault="hang"))
    of = Device("pixel", "adb", "for a test", pixel.serial, runtimes={"litert-native": {"binary": str(binary)}})
    artifact = RUNTIME.prepare(model, target, shared)
    with of.connect() as channel, RUNTIME.worker(channel, of, RUNTIME, target, shared, seed=0) as live:
        with pytest.raises(WorkerError, match="did not end within"):
            live.open("model", artifact, 1.0)
        assert pixel.running() == []
        pixel.leave()
        with pytest.raises(DeviceError):
            live.open("model", artifact, 10.0)


def test_a_board_over_ssh_gives_memory_and_operators(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store, shared: Cache, model: Model, sshd: Loopback
) -> None:
    binary = tool.install(tmp_path / "benchmark_model")
    sshd.profile(tmp_path / "board.toml")
    text = f'{(tmp_path / "board.toml").read_text()}[runtimes.litert-native]\nbinary = "{binary}"\n'
    board = profile(monkeypatch, tmp_path, "board", text)
    found = measured(store, shared, model, "board/litert-native", "memory")
    assert isinstance(found, Measurement), found
    assert found.sessions[0].data["peak_bytes"] > 1 << 20
    assert found.sessions[0].environment["device"]["cpu_model"]
    with board.connect() as channel:
        ready = tools.Tool.bring(channel, board, platform.machine())
        artifact = RUNTIME.prepare(model, Target("board", "litert-native"), shared)
        there = channel.push(artifact.path, artifact.sha256)
        _, rows = ready.profiled({"graph": there, "num_runs": 3, "min_secs": 0, "warmup_min_secs": 0}, 20.0)
    assert [
        layer.kernel.op for layer in RUNTIME.layers(artifact, {"nodes": [worker._node(row) for row in rows]})
    ] == KERNELS
    assert not list(Path(sshd.workdir).glob("profile-*"))


# --- what a device lacks -------------------------------------------------------------------------------------------


def test_without_a_binary_the_error_says_where_builds_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text, build in (
        ("box", 'kind = "local"\n', f"linux_{tools.architecture(platform.machine())}_benchmark_model"),
        ("board", 'kind = "ssh"\naddress = "pi@board"\n', "linux_aarch64_benchmark_model or https:"),
        (
            "pc",
            'kind = "ssh"\naddress = "pc"\n[facts]\nmachine = "x86_64"\n[sources]\nfacts = "it"\n',
            "linux_x86-64_benchmark_model and",
        ),
        ("phone", 'kind = "adb"\naddress = "0123"\n', "android_aarch64_benchmark_model"),
    ):
        profile(monkeypatch, tmp_path, name, text)
        with pytest.raises(MissingDependency) as caught, benches.bench(Target(name, "litert-native"), Cache(tmp_path)):
            pass
        assert f"tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/{build}" in str(
            caught.value.remedy
        )


@pytest.mark.parametrize(
    ("binary", "error", "match"),
    [
        ("/nowhere/benchmark_model", UsageError, "no file"),
        ("device:/nowhere/benchmark_model", DeviceError, "no file"),
        ("device:../benchmark_model", UsageError, "binary"),
        ("device:/bin/$(reboot)", UsageError, "binary"),
    ],
)
def test_a_binary_that_is_not_there(shared: Cache, binary: str, error: type[HwbenchError], match: str) -> None:
    with pytest.raises(error, match=match), opened(binary, shared):
        pass


def test_a_binary_of_another_machine_is_not_sent(tmp_path: Path, shared: Cache) -> None:
    other = 183 if tools.architecture(platform.machine()) != "aarch64" else 62
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, other) + bytes(100))
    binary.chmod(0o755)
    with pytest.raises(UsageError, match="is built for") as caught, opened(binary, shared):
        pass
    assert tools.build_name("local", platform.machine()) in str(caught.value.remedy)


class ThirtyTwoBit(LocalChannel):
    """A 32-bit system on an aarch64 kernel; no aarch64 program starts there."""

    def run(self, command: Sequence[str], **how: Any) -> Finished:
        if list(command) == ["getconf", "LONG_BIT"]:
            return Finished(0, b"32\n", "")
        return Finished(127, b"", "not found")


def test_a_32_bit_system_is_told_the_build_for_it_whatever_its_kernel_is(tmp_path: Path) -> None:
    binary = tmp_path / "benchmark_model"
    for machine, match in ((183, "built for aarch64.* is arm"), (40, "cannot run")):
        binary.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(100))
        binary.chmod(0o755)
        with ThirtyTwoBit() as channel, pytest.raises(HwbenchError, match=match) as caught:
            tools.Tool.bring(channel, here(binary), "aarch64")
        assert "linux_arm_benchmark_model" in str(caught.value.remedy)


def test_a_binary_that_cannot_start_or_run(tmp_path: Path, shared: Cache) -> None:
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(b"\x00not a program")
    binary.chmod(0o644)
    with pytest.raises(UsageError, match="not executable") as caught, opened(binary, shared):
        pass
    assert "chmod +x" in str(caught.value.remedy)
    binary.chmod(0o755)
    with pytest.raises(DeviceError, match="cannot run"), opened(binary, shared):
        pass


def test_a_binary_on_the_device_runs_where_it_is(tmp_path: Path, shared: Cache) -> None:
    binary = tool.install(tmp_path / "benchmark_model")
    with opened(f"device:{binary}", shared) as live:
        assert live.hello["environment"]["binary"]["sha256"] == file_sha256(binary)
        assert live.hello["probe"]["versions"] == {"benchmark_model": f"sha256 {file_sha256(binary)[:12]}"}


# --- what a binary does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("exit", "exit status 1: ERROR: Failed to initialize|exit status 1: Failed to initialize"),
        ("crash", "crashed"),
        ("garbage", "no result"),
        ("flood", "more than"),
        ("hang", "did not end within"),
    ],
)
def test_a_binary_that_fails_is_a_worker_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Cache, model: Model, fault: str, match: str
) -> None:
    monkeypatch.setattr(tools, "MAX_LOG_CHARS", 1 << 16)
    binary = tool.install(tmp_path / "benchmark_model", Build(fault=fault))
    target = Target.parse("here/litert-native")
    with opened(binary, shared) as live, pytest.raises(WorkerError, match=match):
        live.open("model", RUNTIME.prepare(model, target, shared), 1.0 if fault == "hang" else 20.0)


def test_another_program_is_told_from_the_tool(tmp_path: Path, shared: Cache) -> None:
    binary = tool.install(tmp_path / "benchmark_model", Build(fault="other"))
    with pytest.raises(WorkerError, match="no list of flags"), opened(binary, shared):
        pass


def test_a_failure_of_one_model_leaves_the_campaign_its_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store, shared: Cache, model: Model
) -> None:
    binary = tool.install(tmp_path / "benchmark_model", Build(fault="exit"))
    profile(monkeypatch, tmp_path, "box", f'kind = "local"\n[runtimes.litert-native]\nbinary = "{binary}"\n')
    found = measured(store, shared, model, "box/litert-native", "latency")
    assert isinstance(found, Failure)
    assert "benchmark_model ended with exit status 1" in found.error.message


@pytest.mark.parametrize(
    "build",
    [Build("2025"), Build("2025", named_modes=("stdout",)), Build("2022"), Build("2019")],
    ids=["proto", "mode not known", "csv", "text"],
)
def test_layers_come_from_whatever_the_build_can_write(
    tmp_path: Path, shared: Cache, model: Model, build: Build
) -> None:
    target = Target.parse("here/litert-native")
    binary = tool.install(tmp_path / "benchmark_model", build)
    artifact = RUNTIME.prepare(model, target, shared)
    with LocalChannel() as channel:
        ready = tools.Tool.bring(channel, here(binary), platform.machine())
        options = {"graph": str(artifact.path), "num_runs": 5, "min_secs": 0, "warmup_min_secs": 0}
        log, rows = ready.profiled(options, 20.0)
    assert log.inference.count == 5
    assert (log.inference.median_s is not None) == (build.era == "2025")
    assert len(rows) == 4
    assert sum(row.total_s for row in rows) > 0
    nodes = [worker._node(row) for row in rows]
    assert [layer.kernel.op for layer in RUNTIME.layers(artifact, {"nodes": nodes})][1] == "DEPTHWISE_CONV_2D"


def test_built_in_kernels_are_rows_of_the_graph_itself(tmp_path: Path, shared: Cache, model: Model) -> None:
    binary = tool.install(tmp_path / "benchmark_model")
    target = Target.parse("here/litert-native+builtin")
    artifact = RUNTIME.prepare(model, target, shared)
    with opened(binary, shared, str(target)) as live:
        info = live.open("plain", artifact, 20.0)["info"]
        live.open("profiled", artifact, 20.0, profile=True)
        live.open("anchor", artifact, 20.0, role="anchor")
        asked = {"plain": "plain", "profiled": "profiled"}
        taken = live.ask("measure", 60.0, handles=asked, anchor="anchor", typical_s=1e-3, min_samples=2, min_s=0.0,
                         budget_s=1.0, max_block=60)  # fmt: skip
        profile_ = live.ask("finish", 5.0, handle="profiled", kept=taken["kept"]["profiled"])
    assert info["provider"] == "builtin ops"
    assert {node["type"] for node in profile_["nodes"]} == {2}
    assert np.asarray(profile_["durations_ns"]).shape == (2, 4)
    names = [layer.name for layer in RUNTIME.layers(artifact, profile_)]
    assert names == ["CONV_2D:0", "DEPTHWISE_CONV_2D:1", "CONV_2D:2", "CONV_2D:3"]


@pytest.mark.parametrize(("options", "told"), [("", True), ("+gpu", False)])
def test_the_profiler_s_cost_comes_from_chains_unless_a_delegate_runs_them_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared: Cache, options: str, told: bool
) -> None:
    monkeypatch.setattr(RUNTIME, "arities", (2,))
    monkeypatch.setattr(benches, "CHAIN_LENGTHS", (5, 25))
    monkeypatch.setattr(worker, "MIN_BLOCKS", 1)
    target = Target.parse(f"here/litert-native{options}")
    binary = tool.install(tmp_path / "benchmark_model")
    with LocalChannel() as channel:
        bench = benches.Bench(target, here(binary), RUNTIME, channel, shared)
        with bench.worker(seed=0) as live:
            beta = bench.calibrate(live)
    assert (beta.b0_s != 0.0) is told
    assert abs(beta.b0_s) < 1e-3
    assert beta.b1_s == 0.0


# --- delegates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "provider", "rows"), [(-1, "gpu", 1), (2, "gpu + xnnpack", 3)])
def test_a_delegate_is_a_layer_per_partition_and_says_what_it_left(
    tmp_path: Path, shared: Cache, model: Model, nodes: int, provider: str, rows: int
) -> None:
    binary = tool.install(tmp_path / "benchmark_model", Build(gpu_nodes=nodes))
    target = Target.parse("here/litert-native+gpu")
    artifact = RUNTIME.prepare(model, target, shared)
    with opened(binary, shared, str(target)) as live:
        assert live.open("model", artifact, 20.0)["info"]["provider"] == provider
        ready, flags = live._tool, live._flags
        found = ready.profiled({"graph": str(artifact.path), "num_runs": 2, "min_secs": 0, **flags}, 20.0)[1]
    assert flags["gpu_precision_loss_allowed"] == "false"
    layers = RUNTIME.layers(artifact, {"nodes": [worker._node(row) for row in found]})
    assert len(layers) == rows
    whole = layers[0].kernel
    assert (whole.op, whole.kind) == ("TfLiteGpuDelegateV2", "other")
    assert whole.cost().param_bytes > 0
    assert sum(layer.kernel.cost().macs for layer in layers) == artifact.facts["macs"]
    assert layers[0].outputs == (layers[1].inputs if rows > 1 else layers[0].outputs)
    assert [layer.name for layer in layers[1:]] == (["CONV_2D:2", "CONV_2D:3"] if rows > 1 else [])


def test_a_delegate_that_takes_nothing_is_no_measurement(tmp_path: Path, shared: Cache, model: Model) -> None:
    binary = tool.install(tmp_path / "benchmark_model", Build(gpu_nodes=0))
    target = Target.parse("here/litert-native+gpu")
    with opened(binary, shared, str(target)) as live, pytest.raises(WorkerError, match="took no part"):
        live.open("model", RUNTIME.prepare(model, target, shared), 20.0)


def test_a_build_without_the_delegate_says_so(tmp_path: Path, shared: Cache) -> None:
    binary = tool.install(tmp_path / "benchmark_model", Build("2019"))
    with (
        pytest.raises(WorkerError, match="gpu_precision_loss_allowed"),
        opened(binary, shared, "here/litert-native+gpu"),
    ):
        pass


# --- targets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["+gpu+nnapi", "+gpu+builtin", "+big+little", "+big+cores=f0", "+cores", "+cores=xyz", "+cores=0", "+gpu=1",
     "+big=2", ":fp16", "+builtin:fp16"],
)  # fmt: skip
def test_targets_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        RUNTIME.check(Target.parse(f"here/litert-native{text}"))
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "+gpu", "+gpu:fp16", "+nnapi:fp16@2", "+big@4", "+cores=f0@4", "+builtin+little"])
def test_targets_that_can_be(text: str) -> None:
    RUNTIME.check(Target.parse(f"here/litert-native{text}"))


def test_nnapi_is_for_phones() -> None:
    with pytest.raises(UsageError, match="NNAPI"):
        RUNTIME.check_device(Target.parse("here/litert-native+nnapi"), here("/bin/true"))


CLUSTERS = (Cluster("little", (0, 1, 2, 3), max_clock_hz=1.8e9), Cluster("big", (4, 5), max_clock_hz=2.2e9),
            Cluster("prime", (6, 7), max_clock_hz=2.8e9))  # fmt: skip
SAYS = {
    "clusters": [{"cpus": [0, 1], "max_hz": 2e9, "capacity": 400}, {"cpus": [2, 3], "max_hz": 2e9, "capacity": 1024}]
}

# Where one cluster does not tell its capacity, clocks rank all of them.
PARTLY = {"clusters": [{"cpus": [0, 1], "max_hz": 1e9}, {"cpus": [2, 3], "max_hz": 2e9, "capacity": 1024}]}


@pytest.mark.parametrize(
    ("text", "clusters", "says", "cores"),
    [
        ("", CLUSTERS, {}, None),
        ("+big@2", CLUSTERS, SAYS, [6, 7]),
        ("+little@4", CLUSTERS, SAYS, [0, 1, 2, 3]),
        ("+big@2", (), SAYS, [2, 3]),
        ("+little", CLUSTERS[:1], SAYS, [0, 1]),
        ("+big", (), PARTLY, [2, 3]),
        ("+cores=f0@4", (), {}, [4, 5, 6, 7]),
        ("+cores=0x81", (), {}, [0, 7]),
    ],
)
def test_which_cores_a_target_means(text: str, clusters: Any, says: dict[str, Any], cores: list[int] | None) -> None:
    target = Target.parse(f"here/litert-native{text}")
    assert settings.pinned(target, here("x", clusters=clusters), says) == cores


@pytest.mark.parametrize(
    ("text", "clusters", "match"),
    [("+big", (), "no clusters"), ("+big", CLUSTERS[:1], "no clusters"), ("+big@4", CLUSTERS, "4 threads on 2 cores")],
)
def test_cores_that_a_device_does_not_have(text: str, clusters: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        settings.pinned(Target.parse(f"here/litert-native{text}"), here("x", clusters=clusters), {})


@pytest.mark.parametrize(
    "told",
    [None, "big", [1], [{"cpus": "0", "max_hz": 1}], [{"cpus": [10**9], "max_hz": 2}, {"cpus": [0], "max_hz": 1}],
     [{"cpus": [0], "max_hz": "fast"}, {"cpus": [1], "max_hz": 1}]],
)  # fmt: skip
def test_clusters_that_a_device_makes_up_are_not_believed(told: object) -> None:
    with pytest.raises(UsageError, match="no clusters"):
        settings.pinned(Target.parse("here/litert-native+big"), here("x"), {"clusters": told})


@pytest.mark.parametrize(
    "said", ["", "[1]", "[[], []]", '[{"device": 3}, [0]]', "[" * 5000, '[{"device": {}}, [99999999]]']
)
def test_a_python_that_says_anything_leaves_a_machine_and_no_pin(tmp_path: Path, shared: Cache, said: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    python.chmod(0o755)
    with LocalChannel() as channel:
        found, cpus = settings.describe(channel, here("x", python=str(python)), RUNTIME, 1, shared)
    assert (found["device"], cpus) == ({"machine": platform.machine()}, None)


def test_masks_are_what_every_taskset_reads() -> None:
    assert settings.mask([4, 5, 6, 7]) == "f0"
    assert settings.cores_of(settings.mask([0, 3, 70])) == [0, 3, 70]


def test_a_process_stays_on_the_cores_that_were_asked_for(tmp_path: Path, shared: Cache) -> None:
    binary = tool.install(tmp_path / "benchmark_model")
    with opened(binary, shared, "here/litert-native+cores=1") as live:
        assert (live.cpus, live._prefix) == ([0], ("taskset", "1"))
    with (
        pytest.raises(UsageError, match="cannot keep"),
        opened(binary, shared, f"here/litert-native+cores={1 << 200:x}"),
    ):
        pass


def test_runs_fill_the_floors_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert worker.block_runs(1e-3, 30, 0.3, 10.0) == 60
    assert worker.block_runs(1e-3, 1000, 0.3, 10.0) == 200
    assert worker.block_runs(2.0, 30, 0.3, 5.0) == 1


def test_the_file_and_the_anchor_are_those_of_litert(shared: Cache, model: Model) -> None:
    native, litert = Target.parse("here/litert-native+gpu:fp16"), Target.parse("here/litert")
    assert RUNTIME.anchor(native, shared).sha256 == RUNTIME._litert.anchor(litert, shared).sha256
    artifact = RUNTIME.prepare(model, native, shared)
    assert artifact.sha256 == RUNTIME._litert.prepare(model, litert, shared).sha256
    assert artifact.facts["precision"] == "fp32"
    assert artifact.facts["weights_bytes"] > 4 * artifact.facts["params"] * 0.9
