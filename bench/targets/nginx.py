"""nginx as a reverse proxy with one worker, configured for the run."""

from __future__ import annotations

import grp
import json
import os
import pwd
from pathlib import Path

from bench.targets.base import Start, Variant, descriptor_limit, find, in_front

__all__ = ["NGINX", "nginx", "nginx_config"]

# Bodies stream and nothing goes to disk, as with the relay. Timeouts and request limits of
# connections are beyond any run, so that none ends while it is measured.
CONFIG = """\
daemon off;
master_process on;
worker_processes 1;
worker_rlimit_nofile {descriptors};
{user}pid {directory}/nginx.pid;
error_log stderr warn;

events {{
    worker_connections {descriptors};
}}

http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;

    client_max_body_size 0;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;

    map $http_upgrade $connection_upgrade {{
        default upgrade;
        "" "";
    }}

    upstream origin {{
        server {origin};
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
    }}

    server {{
        listen 127.0.0.1:{port} backlog=1024;

        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 3600s;
            proxy_send_timeout 3600s;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
{settings}        }}
    }}
}}
"""
# An upgraded connection has one buffer of proxy_buffer_size per direction; the other two
# are for answers, and must not be smaller than it.
LARGE = """\
            proxy_buffer_size 128k;
            proxy_buffers 8 128k;
            proxy_busy_buffers_size 256k;
"""
LESS = (
    "checks no key and no token, knows no sessions, looks into no frame: less than the relay does"
)
NGINX = {
    variant.name: variant
    for variant in (
        Variant("nginx", "", f"{LESS}; default buffers: for large messages see nginx-large."),
        Variant("nginx-large", LARGE, f"{LESS}; buffers of 128 KiB, tuned for large messages."),
    )
}
MISSING = "nginx is not installed: apt-get install nginx-light"


def nginx(variant: Variant, origin: str) -> Start | str:
    """What starts nginx before the origin at host:port, or the sentence that it is missing."""
    program = find("nginx")

    def configure(directory: Path, port: int) -> list[str]:
        path = directory / "nginx.conf"
        path.write_text(nginx_config(variant, origin, port, directory))
        return ["-p", str(directory), "-c", str(path)]

    return MISSING if program is None else in_front(program, variant, configure)


def nginx_config(variant: Variant, origin: str, port: int, directory: Path) -> str:
    """The text of a configuration; the directory takes everything that nginx writes."""
    return CONFIG.format(
        descriptors=descriptor_limit(),
        user=_user(),
        directory=directory,
        origin=origin,
        port=port,
        settings=variant.settings,
    )


def _user() -> str:
    """Root's nginx would give its worker to a user who cannot enter the directory."""
    if os.geteuid() != 0:
        return ""
    user, group = pwd.getpwuid(0).pw_name, grp.getgrgid(os.getegid()).gr_name
    return f"user {json.dumps(user)} {json.dumps(group)};\n"
