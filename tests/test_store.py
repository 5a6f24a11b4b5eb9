"""The results store: what goes in comes out, and what can go wrong with a database is said as the error tree says."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import store_crash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwbench import migrations
from hwbench.caveats import Caveat
from hwbench.errors import DeviceError, MissingDependency, UsageError, WorkerError
from hwbench.measurement import ModelKey, Session, plain
from hwbench.store import Store, anchor_key
from hwbench.store.rows import pack, unpack
from hwbench.target import Target

ORT = Target.parse("local-cpu/onnxruntime")
NET = ModelKey("mobilenetv2_100", (("x", (1, 3, 224, 224)),), "a" * 64)


def made(index: int = 0, **changes: object) -> Session:
    first = Session(
        uid=f"u{index}",
        campaign="c1",
        model=NET,
        target=ORT,
        pass_="latency",
        index=index,
        preset="quick",
        started_at=f"2026-01-31T12:00:{index:02d}+00:00",
        device_time_s=1.25,
        environment={"device": {"cpu_model": "x"}, "temp_c": 40.0},
        data={"load_s": 0.5, "warmup_s": [0.1, 0.2], "steady": True},
        arrays={"samples_ns": np.arange(50, dtype=np.int64), "block_of": np.zeros(50, dtype=np.int32)},
        caveats=(Caveat("unstable", "It is unstable.", "Measure longer."),),
    )
    return replace(first, **changes)  # type: ignore[arg-type]


def same(a: Session, b: Session) -> bool:
    arrays = list(a.arrays) == list(b.arrays) and all(
        a.arrays[k].dtype == b.arrays[k].dtype and np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays
    )
    return arrays and replace(a, arrays={}) == replace(b, arrays={})


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store; ``HWBENCH_TEST_SERVER`` is the URL of an empty database that tests may wipe."""
    where: str | Path = tmp_path / "results.db"
    if request.param == "server":
        where = os.environ.get("HWBENCH_TEST_SERVER", "")
        if not where:
            pytest.skip("HWBENCH_TEST_SERVER is not set")
        engine = sa.create_engine(where)
        with engine.begin() as connection:
            for table in sa.inspect(connection).get_table_names():
                connection.exec_driver_sql(f'DROP TABLE "{table}" CASCADE')
        engine.dispose()
    with Store.open(where) as opened:
        yield opened


# -- opening


def test_where_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / "data" / name))
    monkeypatch.delenv("HWBENCH_DB", raising=False)
    Store.open().close()
    assert (tmp_path / "data" / "hwbench" / "results.db").is_file()
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "other.db"))
    Store.open().close()
    assert (tmp_path / "other.db").is_file()
    Store.open(f"sqlite:///{tmp_path}/third.db").close()
    assert (tmp_path / "third.db").is_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    for where in ("~/fourth.db", "sqlite:///~/fifth.db"):
        with Store.open(where) as opened:
            assert opened.name == str(tmp_path / where.rpartition("/")[2])


@pytest.mark.parametrize("where", ["~nobody-of-that-name/a.db", "sqlite:///~nobody-of-that-name/a.db"])
def test_the_home_of_nobody(where: str) -> None:
    with pytest.raises(UsageError, match="no such home folder") as caught:
        Store.open(where)
    assert "whole path" in (caught.value.remedy or "")


def test_wal_and_full_sync(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db") as opened, opened._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_migrations_make_the_schema_that_the_code_uses(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]
    with store._database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrations.VERSION_TABLE})
        assert compare_metadata(context, migrations.METADATA) == []


def test_an_open_store_needs_no_alembic(tmp_path: Path) -> None:
    Store.open(tmp_path / "s.db").close()
    code = (
        "import sys; from hwbench.store import Store; Store.open(sys.argv[1]).close(); print('alembic' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.db")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


def test_a_newer_store_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Store.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    with pytest.raises(UsageError, match="newer hwbench") as caught:
        Store.open(path)
    assert "upgrade" in caught.value.remedy.lower()


def test_what_is_no_store(tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"this is a letter, not a database. " * 99)
    with pytest.raises(UsageError, match="not a hwbench store"):
        Store.open(junk)
    assert junk.read_bytes().startswith(b"this is a letter")
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as raw:
        raw.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(UsageError, match="bookmarks"):
        Store.open(foreign)
    with pytest.raises(UsageError, match="is a folder"):
        Store.open(tmp_path)


def test_a_damaged_store(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path) as opened:
        for index in range(5):
            opened.add(made(index))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"), Store.open(path) as opened:
        opened.sessions()


def test_a_missing_table_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Store.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE sessions")
    with pytest.raises(UsageError, match="damaged"), Store.open(path) as opened:
        opened.add(made())


def test_addresses_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be made"):
        Store.open(tmp_path / "file" / "below" / "s.db")
    with pytest.raises(UsageError, match="postgresql"):
        Store.open("postgresq://db/hwbench")
    with pytest.raises(UsageError) as caught:
        Store.open("nonsense ://me:hunter2@")
    assert "hunter2" not in str(caught.value.as_dict())
    with pytest.raises((MissingDependency, DeviceError)) as missing:
        Store.open("postgresql+psycopg://me:hunter2@127.0.0.1:1/hwbench")
    assert "hunter2" not in str(missing.value.as_dict())
    assert missing.value.remedy


def test_read_only(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path) as opened:
        opened.add(made())
    with Store.open(f"sqlite:///file:{path}?mode=ro&uri=true") as opened:
        assert len(opened.sessions()) == 1
        with pytest.raises(DeviceError, match="read-only"):
            opened.add(made(1))


def test_a_folder_that_may_not_be_entered(locked: Path) -> None:
    with pytest.raises(DeviceError, match="Permission denied") as caught:
        Store.open(locked / "results.db")
    assert "HWBENCH_DB" in (caught.value.remedy or "")


def test_disk_full_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path) as opened:
        opened.add(made())
        with opened._database.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # of the one pooled connection
        noise = np.random.default_rng(1).integers(0, 1 << 60, 20_000)
        with pytest.raises(DeviceError, match="disk is full") as caught:
            opened.add(made(1, arrays={"samples_ns": noise}))
        assert "Free space" in caught.value.remedy
    with Store.open(path) as opened:
        assert [each.uid for each in opened.sessions()] == ["u0"]
        assert opened.add(made(1, arrays={"samples_ns": noise}))


def test_locked(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path, busy_s=0.05) as opened:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DeviceError, match="locked by another process"):
            opened.add(made())
        assert opened.sessions() == []  # readers do not wait for writers
        other.execute("ROLLBACK")
        other.close()
        assert opened.add(made())


# -- sessions


def test_a_session_comes_back_as_it_went_in(store: Store) -> None:
    session = made(target=Target.parse("pi5/torch+cudagraph+x=1:fp16@4x8"))
    assert store.add(session)
    (light,) = store.sessions()
    assert light == replace(session, arrays={})
    (full,) = store.sessions(arrays=True)
    assert same(full, session)


def test_numpy_and_missing_numbers_in_data(store: Store) -> None:
    data = {"a": np.float64(1.5), "b": np.int32(7), "c": float("nan"), "d": np.array([1.0, np.inf]), "e": (1, 2)}
    store.add(made(np.int64(3), data=data, device_time_s=np.float32(0.5)))
    (back,) = store.sessions()
    assert back.data == {"a": 1.5, "b": 7, "c": None, "d": [1.0, None], "e": [1, 2]}
    assert (back.index, back.device_time_s) == (3, 0.5)


def test_duplicates_change_nothing(store: Store) -> None:
    assert store.add(made())
    assert not store.add(made())
    assert not store.add(made(uid="another", data={"load_s": 9.0}))
    assert [each.data["load_s"] for each in store.sessions()] == [0.5]
    with pytest.raises(UsageError, match="taken by another session"):
        store.add(made(1, uid="u0"))
    assert len(store.sessions()) == 1


def test_environments_are_kept_once(store: Store) -> None:
    for index in range(4):
        store.add(made(index, environment={"temp_c": 40.0 + index // 2}))
    with store._database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(migrations.ENVIRONMENTS)).scalar() == 2
    assert [each.environment["temp_c"] for each in store.sessions()] == [40.0, 40.0, 41.0, 41.0]


def test_filters(store: Store) -> None:
    small = ModelKey("mobilenetv2_100", (("x", (1, 3, 96, 96)),), "b" * 64)
    pi = Target.parse("pi5/litert:int8@4")
    store.add(made(0))
    store.add(made(1, model=small))
    store.add(made(2, target=pi, pass_="layers"))
    store.add(made(3, campaign="c2", preset="default", started_at="2026-02-01T00:00:00Z"))

    def found(**wanted: object) -> list[int]:
        return [each.index for each in store.sessions(**wanted)]  # type: ignore[arg-type]

    assert found() == [0, 1, 2, 3]
    assert found(model="mobilenetv2_100") == [0, 1, 2, 3]
    assert found(model="mobilenetv2_100@1x3x96x96") == found(model=small) == [1]
    assert found(model=NET) == [0, 2, 3]
    assert found(target="local-cpu/onnxruntime") == found(target=ORT) == [0, 1, 3]
    assert found(pass_="layers") == found(target=pi) == [2]
    assert found(campaign="c2") == found(preset="default") == found(since="2026-02-01") == [3]
    assert found(since="2026-01-31T13:00:02+01:00") == [2, 3]
    assert found(model="other") == []
    assert found(newest=2) == [2, 3]
    assert found(target=ORT, newest=2) == [1, 3]
    assert found(newest=99) == found()
    assert store.models() == [NET, small]
    assert store.targets() == [ORT, pi]
    with pytest.raises(UsageError, match="not a time"):
        store.sessions(since="yesterday")


def test_undecodable_file_names(store: Store) -> None:
    store.add(made(model=ModelKey("caf\udce9.onnx", NET.inputs, "c" * 64)))
    assert [each.model.name for each in store.sessions(model="caf\udce9.onnx")] == ["caf\\udce9.onnx"]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True),
        st.one_of(
            hnp.arrays(np.int64, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)),
            hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=6)),
            hnp.arrays(np.bool_, 5),
        ),
        max_size=4,
    )
)
def test_arrays_round_trip(arrays: dict[str, np.ndarray]) -> None:
    back = unpack(pack(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_nothing_is_pickled() -> None:
    with pytest.raises(UsageError, match="'x' cannot be stored"):
        pack({"x": np.array([object()])})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_arrays_are_an_error(junk: bytes, at: int) -> None:
    good = pack({"samples_ns": np.arange(40, dtype=np.int64), "block_of": np.zeros(40, np.int32)})
    for blob in (junk, good[:at] + junk + good[at + len(junk) :], good[:at]):
        try:
            unpack(blob)
        except UsageError as error:
            assert "damaged" in error.message  # noqa: PT017  (damage may also be harmless, so no pytest.raises)


# -- campaigns


def test_campaigns(store: Store) -> None:
    first = store.add_campaign("c1", {"models": ["a"], "targets": [str(ORT)], "preset": "quick"})
    assert store.add_campaign("c1", {"other": 1}) == first == store.campaign("c1")
    assert first.finished_at is None
    store.finish_campaign("c1")
    assert store.campaign("c1").finished_at is not None
    assert store.campaign("c9") is None
    store.add(made(0))
    store.add(made(1, campaign="c2", pass_="layers"))
    assert {each.id for each in store.campaigns()} == {"c1", "c2"}


def test_failures(store: Store) -> None:
    store.add_failure("c1", "broken.onnx", ORT, WorkerError("It crashed.", remedy="Try again."))
    store.add_failure("c1", "broken.onnx", ORT, WorkerError("It crashed twice.", remedy="Look."))
    (failure,) = store.failures("c1")
    assert failure.error["message"] == "It crashed twice."
    assert failure.error["exit_code"] == 4
    assert store.failures("c2") == []
    store.clear_failure("c1", "broken.onnx", str(ORT))
    assert store.failures() == []


# -- references and findings


def test_references_are_frozen(store: Store) -> None:
    key = anchor_key(ORT.with_(batch=8), "1.31.0")
    assert store.reference(key) is None
    first = store.add_reference(key, 1e-3, {"sessions": 3})
    assert first.id == "local-cpu/onnxruntime:fp32@1#1"
    assert store.add_reference(key, 2e-3) == first == store.reference(key)
    newer = store.add_reference(anchor_key(ORT, "1.32.0"), 9e-4)
    assert newer.id == "local-cpu/onnxruntime:fp32@1#2"  # an id names one reference, whatever its key
    assert store.reference(key) == first
    third = store.add_reference(key, 1.1e-3, new_version=True)
    assert (third.id, third.latency_s) == ("local-cpu/onnxruntime:fp32@1#3", 1.1e-3)
    assert store.reference(key) == third
    with pytest.raises(UsageError, match="cannot be an anchor"):
        store.add_reference(anchor_key(ORT, "2"), float("nan"))


def test_findings(store: Store) -> None:
    steady = {"cpu_model": "x", "governor": None}
    assert store.noise_floor(ORT, steady) is None
    store.add_noise_floor(ORT, steady, {"effect": 0.02})
    store.add_noise_floor(str(ORT), steady, {"effect": np.float64(0.01)})
    assert store.noise_floor(ORT, steady).data == {"effect": 0.01}
    assert store.noise_floor(ORT, {"cpu_model": "y"}) is None
    store.add_comparison({"a": "x", "b": "y", "target": str(ORT)}, {"verdict": "slower"})
    assert [each.data["verdict"] for each in store.comparisons()] == ["slower"]


def test_plain_refuses_what_json_does_not_know() -> None:
    with pytest.raises(TypeError, match="Path"):
        plain({"x": [Path("a")]})


# -- several processes


def start(path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, store_crash.__file__, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})


def test_two_openers_and_writers_at_once(tmp_path: Path) -> None:
    path, failed = tmp_path / "s.db", []
    gate = threading.Barrier(4)

    def write(worker: int) -> None:
        try:
            gate.wait(10)
            with Store.open(path) as opened:
                for index in range(8):
                    opened.add(made(index % 4 + 4 * (worker // 2), uid=f"{worker}-{index}"))
                opened.add_reference(anchor_key(ORT, "1"), 1e-3 * (worker + 1))
        except BaseException as error:  # noqa: BLE001  (any, reported below)
            failed.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
    with Store.open(path) as opened:
        assert sorted(each.index for each in opened.sessions()) == list(range(8))
        assert opened.reference(anchor_key(ORT, "1")).id.endswith("#1")


def test_sigkill_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path, count, kills = tmp_path / "s.db", 100_000, 8
    rng = random.Random(20)
    said: set[int] = set()
    for number in range(kills):
        child = start(path, count)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        if number % 2:  # on a busy machine a quarter of a second may hold no commit at all
            said.add(int(child.stdout.readline()))
        time.sleep(rng.uniform(0.0, 0.25))
        child.send_signal(signal.SIGKILL)
        rest = child.communicate(timeout=120)[0]
        assert child.returncode == -signal.SIGKILL
        said |= {int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")}
        with Store.open(path) as opened:
            assert opened.integrity() == "ok"
            there = [each.index for each in opened.sessions(campaign="crash")]
        assert there == list(range(len(there)))
        assert said <= set(there)
        assert len(there) - len(said) <= 1  # a commit may be killed before its index is printed
        said = set(there)
    assert len(said) >= kills // 2
    total = len(said) + 5
    resumed = start(path, total)
    resumed.communicate(timeout=120)
    assert resumed.returncode == 0
    with Store.open(path) as opened:
        back = opened.sessions(arrays=True)
    assert [each.index for each in back] == list(range(total))
    assert all(same(each, store_crash.session(each.index)) for each in back)
