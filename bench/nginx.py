"""nginx, which serves a binary cache of plain files as fast as files can be served."""

import os
import shutil
import socket
from pathlib import Path

from .process import Server

CONFIGURATION = """\
daemon off;
{user}
worker_processes auto;
pid {base}/pid;
error_log {base}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    default_type application/octet-stream;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


class Nginx(Server):
    """A server of the files below `root`, on a port of the loopback address."""

    name = "nginx"

    def __init__(self, root: Path, base: Path) -> None:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # Workers of root's would become a user who may not read here.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = base / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user=user, base=base.absolute(), port=self.port, root=root.absolute()
            )
        )
        # Where it would otherwise write before it has read its configuration.
        log = ["-p", base.absolute(), "-e", base.absolute() / "error.log"]
        super().__init__(["nginx", *log, "-c", configuration.absolute()])
        try:
            self.wait_until(self._connected)
        except BaseException:
            self.stop()
            raise

    def _connected(self) -> bool | None:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return None
        return True


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
