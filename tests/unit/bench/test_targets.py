"""Targets: the configurations made for them, and what is said of those that are missing."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from bench.children import Child
from bench.shapes import MAX_TUNNELS
from bench.targets import NAMES, available, base, running
from bench.targets.haproxy import HAPROXY, haproxy, haproxy_config
from bench.targets.nginx import NGINX, nginx, nginx_config
from bench.targets.peers import PEERS, peer

ORIGIN = "127.0.0.1:4567"
PORT = 8765


def nginx_lines(name: str, directory: Path) -> list[str]:
    text = nginx_config(NGINX[name], ORIGIN, PORT, directory)
    return [line.strip() for line in text.splitlines()]


def haproxy_lines(name: str) -> list[str]:
    return [line.strip() for line in haproxy_config(HAPROXY[name], ORIGIN, PORT).splitlines()]


@pytest.mark.parametrize("name", NGINX)
def test_nginx_is_one_worker_in_the_foreground_without_a_log(name: str, tmp_path: Path) -> None:
    lines = nginx_lines(name, tmp_path)
    assert {"daemon off;", "master_process on;", "worker_processes 1;", "access_log off;"} <= {
        *lines
    }
    assert f"listen 127.0.0.1:{PORT} backlog=1024;" in lines


@pytest.mark.parametrize("name", NGINX)
def test_nginx_passes_upgrades_on_and_keeps_connections_to_the_origin(
    name: str, tmp_path: Path
) -> None:
    lines = nginx_lines(name, tmp_path)
    assert {
        f"server {ORIGIN};",
        "keepalive 64;",
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $connection_upgrade;",
    } <= {*lines}


@pytest.mark.parametrize("name", NGINX)
def test_nginx_writes_into_its_directory_only(name: str, tmp_path: Path) -> None:
    places = [line for line in nginx_lines(name, tmp_path) if "_path " in line or "pid " in line]
    assert len(places) == 6
    assert all(f"{tmp_path}/" in place for place in places)


def test_nginx_has_large_buffers_only_where_it_says_so(tmp_path: Path) -> None:
    assert not any("buffer_size" in line for line in nginx_lines("nginx", tmp_path))
    assert "proxy_buffer_size 128k;" in nginx_lines("nginx-large", tmp_path)


def test_only_root_gives_nginx_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert any(line.startswith('user "root" ') for line in nginx_lines("nginx", tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not any(line.startswith("user ") for line in nginx_lines("nginx", tmp_path))


@pytest.mark.parametrize("name", HAPROXY)
def test_haproxy_is_one_thread_that_reuses_connections_to_the_origin(name: str) -> None:
    lines = haproxy_lines(name)
    assert {"nbthread 1", "mode http", "http-reuse always", f"server origin {ORIGIN}"} <= {*lines}
    assert f"bind 127.0.0.1:{PORT}" in lines
    assert not any(line.startswith("log") for line in lines)


def test_haproxy_has_large_buffers_only_where_it_says_so() -> None:
    assert not any(line.startswith("tune.") for line in haproxy_lines("haproxy"))
    assert "tune.bufsize 131072" in haproxy_lines("haproxy-large")


def test_the_largest_scenario_fits_where_descriptors_allow_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = 2 * MAX_TUNNELS + base.SPARE_DESCRIPTORS
    for hard, limit in ((4096, 4096), (fits + 1, fits), (resource.RLIM_INFINITY, fits)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (1024, hard))
        assert base.descriptor_limit() == limit


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
def test_a_missing_program_is_one_sentence_with_the_way_to_install_it(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(base, "DAEMON_PLACES", ())
    said = (
        nginx(NGINX["nginx"], ORIGIN) if program == "nginx" else haproxy(HAPROXY["haproxy"], ORIGIN)
    )
    package = {"nginx": "nginx-light", "haproxy": "haproxy"}[program]
    assert said == f"{program} is not installed: apt-get install {package}"


def test_a_program_is_found_where_only_roots_path_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nginx"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(base, "DAEMON_PLACES", (str(tmp_path),))
    assert base.find("nginx") == program


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        ("aiohttp", ["aiohttp"], "aiohttp: aiohttp is not installed: pip install -e '.[bench]'"),
        ("aiohttp-uvloop", ["aiohttp", "uvloop"],
         "aiohttp-uvloop: aiohttp and uvloop are not installed: pip install -e '.[bench]'"),
        ("websockets", ["websockets"],
         "websockets: websockets is not installed: pip install -e '.[bench]'"),
    ],
)  # fmt: skip
def test_a_missing_package_is_one_sentence_with_the_way_to_install_it(
    name: str, missing: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    assert peer(PEERS[name], ORIGIN) == said


def test_targets_come_in_the_order_in_which_they_are_named() -> None:
    with Child("nothing", ["-c", "input()"]) as child:
        made = available(["trio-tasks", "direct"], child, f"http://{ORIGIN}", "mark")
    assert len(made) == 2
    assert not any(isinstance(each, str) for each in made)


def test_every_target_has_its_name_once() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_what_runs_already_is_a_relay_or_as_it_is() -> None:
    relay = running("http://127.0.0.1:80/", "bot", "pk")
    assert (relay.kind, relay.name) == ("relay", "127.0.0.1:80")
    assert relay.door.start_url == "http://127.0.0.1:80/v1/public/bot/start"
    other = running("ws://127.0.0.1:80/ws", "bot", "")
    assert (other.kind, other.door.ws_url) == ("given", "ws://127.0.0.1:80/ws")
    with pytest.raises(ValueError, match="expected http://host:port or ws://"):
        running("ftp://127.0.0.1", "bot", "")
