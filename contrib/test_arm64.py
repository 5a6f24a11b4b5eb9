"""``hwbench doctor`` and ``hwbench profile`` on an arm64 Debian that runs here under emulation (``make test-arm64``).

Debian's own packages are unpacked into a folder once, and an sshd in it serves a loopback port: a real client, a real
daemon, real aarch64 wheels, another processor. Emulation is some hundred times slower than the processor it pretends to
be, so what is looked at is that everything works and never how fast it is. It needs root, for mounts and chroot; where
something is missing nothing is tested and the reason is printed.

The system and the wheels stay in the user's cache folder for the next run (about 700 MB); $HWBENCH_ARM64 names another.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from hwbench.selftest.loopback import Loopback, loopback, settle, short_folder

SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "openssh-server,python3,python3-venv,python3-pip,ca-certificates,iproute2,procps"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
WHEELS = ("numpy>=1.23", "onnxruntime>=1.16", "ai-edge-litert>=2.1,<3")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
WORKDIR = "/var/hwbench"  # of the device; outside of the folder that goes with the server
LIMIT = ("--timeout", "570s")
# hwbench with few sessions and a short anchor: the real one, which `doctor` runs, takes half a second of emulation and
# a profile runs it hundreds of times.
BRIEF = """
import sys
from hwbench import bench, campaign, runtimes
from hwbench.__main__ import main
campaign.REFERENCE_SESSIONS, campaign.LAYER_SESSIONS["quick"], bench.CHAIN_LENGTHS = 1, 1, (5, 15)
for name in ("onnxruntime", "litert"):
    type(runtimes.find(name)).anchor = lambda self, target, cache: self.chain(2, 10, target, cache)
sys.exit(main(sys.argv[1:]))
"""
# The kernel's own list is the host's. onnxruntime asks it for the kind of core, and QEMU 7.2's aarch64 crashes without.
CPUINFO = "".join(
    f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
    for core in range(os.cpu_count() or 1)
)
# root cpuinfo folder command…: a system of its own processes and mounts, which go when the first of them goes. LiteRT
# looks its processors up in /sys.
BOOT = """
mount -t proc proc "$1/proc" && mount --bind "$2" "$1/proc/cpuinfo" || exit 1
mount -t sysfs -o ro sysfs "$1/sys" || mount --rbind /sys "$1/sys" || exit 1
mkdir -p "$1/run/sshd" "$1$3" && mount --bind "$3" "$1$3" || exit 1
root=$1
shift 3
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Bed:
    """A running system.

    Attributes:
        server: its sshd.
        home: folder of the profiles, the store and the models, which stays.
        wheels: folder of aarch64 wheels.
    """

    server: Loopback
    home: Path
    wheels: Path

    def hwbench(self, *arguments: str, brief: bool = False) -> list[dict[str, Any]]:
        """The JSON objects that a command of hwbench printed, run as :data:`BRIEF` says if asked for.

        Raises:
            AssertionError: it failed.
        """
        own = {"HWBENCH_DEVICES": str(self.home / "devices"), "HWBENCH_DB": str(self.home / "results.db")}
        program = ["-c", BRIEF] if brief else ["-m", "hwbench"]
        done = subprocess.run(
            [sys.executable, *program, *arguments],
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0:
            raise AssertionError(f"hwbench {' '.join(arguments)} ended with {done.returncode}\n{said}\n{done.stderr}")
        return said


def cache() -> Path:
    """Where the system and the wheels stay."""
    return Path(os.environ.get("HWBENCH_ARM64") or platformdirs.user_cache_dir("hwbench-arm64"))


def emulated() -> bool:
    """Whether programs for aarch64 run here; what Debian's packages have put in place is switched on if need be."""
    if platform.machine() in ("aarch64", "arm64"):
        return True
    if not (BINFMT / "status").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], capture_output=True, check=False)
    handler = BINFMT / "qemu-aarch64"
    if not handler.exists() and shutil.which("update-binfmts"):
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], capture_output=True, check=False)
    return handler.exists() and handler.read_text().startswith("enabled")


def missing() -> tuple[str, str] | None:
    """The first thing that stands in the way, and what helps."""
    if sys.platform != "linux":
        return "Linux", "Run it on a Linux machine"
    if os.geteuid() != 0:
        return "root", "Mounts and chroot need it: sudo make test-arm64"
    needs = {
        "mmdebstrap": "mmdebstrap",
        "unshare": "util-linux",
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
    }
    for program, package in needs.items():
        if shutil.which(program) is None:
            return program, f"apt-get install {package}"
    if subprocess.run(["unshare", "-mpf", "true"], capture_output=True, check=False).returncode != 0:
        return "a mount namespace (unshare -m)", "This container allows none; run it on a whole machine"
    if not emulated():
        return "emulation of aarch64", "apt-get install qemu-user-static binfmt-support"
    return None


def system(folder: Path) -> Path:
    """The unpacked system, made when it is not there; whole or not at all."""
    root = folder / f"debian-{SUITE}"
    if root.is_dir():
        return root
    part = folder / f"{root.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=apt", f"--include={PACKAGES}", SUITE, str(part)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    part.rename(root)
    return root


def wheels(folder: Path) -> Path:
    """A folder with the wheels that ``doctor --install`` is given, downloaded when it is not there."""
    there = folder / "wheels"
    if there.is_dir():
        return there
    part = folder / "wheels.part"
    shutil.rmtree(part, ignore_errors=True)
    tags = [word for tag in PLATFORMS for word in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", PYTHON, *tags]
    subprocess.run([*command, "-d", str(part), *WHEELS], check=True, stdin=subprocess.DEVNULL)
    part.rename(there)
    return there


def models(home: Path) -> tuple[Path, Path]:
    """One small network in both files: a convolution, a depthwise one and a pointwise one."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from hwbench.runtimes.tflite_made import Builder

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.full(shape, 0.01, np.float32), name)

    weights = [tensor("w0", 8, 3, 3, 3), tensor("w1", 8, 1, 3, 3), tensor("w2", 16, 8, 1, 1)]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="first", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["a", "w1"], ["b"], name="depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="pointwise"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 3, 32, 32)), ("y", None))]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, home / "small.onnx")
    builder = Builder()
    shape: tuple[int, ...] = (1, 32, 32, 3)
    x = y = builder.tensor("x", shape)
    for cout, kernel, depthwise in ((8, 3, False), (0, 3, True), (16, 1, False)):
        y, shape = builder.conv(y, shape, cout, kernel, 1, depthwise)
    (home / "small.tflite").write_bytes(builder.finish([x], [y]))
    return home / "small.onnx", home / "small.tflite"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Bed]:
    """The system with its server, and what hwbench needs beside it."""
    root, home = system(folder), folder / "home"
    (home / "devices").mkdir(parents=True, exist_ok=True)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    with short_folder() as short:
        (short / "cpuinfo").write_text(CPUINFO)
        inside = short / "ssh"
        space = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
        boot = ("sh", "-c", BOOT, "boot", str(root), str(short / "cpuinfo"), str(inside), "/usr/sbin/sshd")
        plain = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        try:
            with loopback(inside, server=(*space, *boot), env=plain) as server:
                yield Bed(server, home, wheels(folder))
                left = settle(server.mark, 10.0)
                assert not left, f"{len(left)} processes of the device still run"
        finally:
            shutil.rmtree(f"{root}{short}", ignore_errors=True)


def install(bed: Bed) -> str:
    """From nothing: the profile is written, the environment made, the wheels installed."""
    shutil.rmtree(bed.home / "devices")
    (bed.home / "devices").mkdir()
    subprocess.run(["ssh", *bed.server.options, "loopback", f"rm -rf {WORKDIR}"], check=True)
    (added,) = add(bed)
    assert added["kind"] == "ssh", added
    shown = bed.hwbench("doctor", "arm64", "--install", "--wheels", str(bed.wheels), *LIMIT, "--json")
    return checked(shown)


def add(bed: Bed) -> list[dict[str, Any]]:
    """``devices add``; also for a server on another port than the last run's."""
    way = ("--ssh", "loopback", "--ssh-option", " ".join(bed.server.options), "--workdir", WORKDIR, "--force", "--json")
    return bed.hwbench("devices", "add", "arm64", *way)


def checked(rows: Sequence[Mapping[str, Any]]) -> str:
    """What doctor found, when both runtimes passed on an aarch64 Python."""
    found = {(row["what"], row["name"]): row for row in rows if "what" in row}
    assert "aarch64" in found["worker", "python"]["text"], rows
    for name in ("onnxruntime", "litert"):
        assert found["runtime", name]["status"] == "PASS", found["runtime", name]
    assert not any(row["status"] == "FAIL" for row in found.values()), rows
    return "; ".join(f"{name}: {found['runtime', name]['text']}" for name in ("onnxruntime", "litert"))


def doctor(bed: Bed) -> str:
    """Again, with everything in place."""
    add(bed)
    return checked(bed.hwbench("doctor", "arm64", *LIMIT, "--json"))


def profiled(bed: Bed, model: Path, target: str) -> str:
    add(bed)
    passes = "latency,layers,memory,energy"
    limits = ("--preset", "quick", "--passes", passes, *LIMIT)
    (result,) = bed.hwbench("profile", str(model), "--on", target, *limits, "--json", brief=True)
    assert result["latency_s"]["median"] > 0, result
    assert len(result["layers"]) >= 3, result["layers"]
    assert result["memory"]["peak_bytes"], result["memory"]
    assert result["energy"], result
    assert result["environment"]["device"]["machine"] == "aarch64", result["environment"]
    assert not any(each["code"] == "pass_failed" for each in result["caveats"]), result["caveats"]
    layers = ", ".join(row["name"] for row in result["layers"])
    return f"{result['latency_s']['median'] * 1e3:.1f} ms of emulation, {len(result['layers'])} layers ({layers})"


def profile_onnx(bed: Bed) -> str:
    return profiled(bed, models(bed.home)[0], "arm64/onnxruntime")


def profile_litert(bed: Bed) -> str:
    return profiled(bed, models(bed.home)[1], "arm64/litert@2")


CHECKS: Mapping[str, Callable[[Bed], str]] = {
    "install": install,
    "doctor": doctor,
    "onnxruntime": profile_onnx,
    "litert": profile_litert,
}


def main(chosen: Sequence[str]) -> int:
    """Run the named checks, or all; the exit status."""
    if unknown := [name for name in chosen if name not in (*CHECKS, "prepare")]:
        print(f"There is no check {', '.join(unknown)}. Known: prepare, {', '.join(CHECKS)}.")
        return 2
    if absent := missing():
        print(f"Nothing was tested: {absent[0]} is not here. {absent[1]}.")
        return 0
    try:
        print(f"system in {system(cache())}, wheels in {wheels(cache())}", flush=True)
    except subprocess.CalledProcessError as error:
        print(f"Nothing was tested: {error.cmd[0]} failed, which needs the network the first time.")
        return 0
    if list(chosen) == ["prepare"]:
        return 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that all that was started ends
    failed = 0
    with running(cache()) as bed:
        for name, check in CHECKS.items():
            if chosen and name not in chosen:
                continue
            begun = time.monotonic()
            try:
                said = check(bed)
                print(f"PASS  {name} ({time.monotonic() - begun:.0f} s): {said}", flush=True)
            except AssertionError as error:
                failed += 1
                print(f"FAIL  {name} ({time.monotonic() - begun:.0f} s): {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
