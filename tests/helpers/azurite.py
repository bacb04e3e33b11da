"""Azurite, Microsoft's stand-in for Azure's blobs, in a process of its own, with an empty container."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

PROGRAM = shutil.which("azurite-blob")
CONTAINER = "container"
_ACCOUNT = "devstoreaccount1"  # Azurite's own, with its published key
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextlib.contextmanager
def azurite_serving() -> Iterator[dict[str, Any]]:
    """Serve the container on loopback. Gives obstore's options."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "--location", folder, "--blobPort", "0", "--skipApiVersionCheck", "--disableTelemetry"]
        server = subprocess.Popen([*command, "--silent"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            found = next(re.search(r"listens on (http://\S+)", line) for line in server.stdout if "listens" in line)
            assert found is not None
            endpoint = f"{found[1]}/{_ACCOUNT}"
            _make_container(endpoint)
            yield {
                "azure_storage_account_name": _ACCOUNT, "azure_storage_account_key": _KEY,
                "azure_storage_endpoint": endpoint,
            }  # fmt: skip
        finally:
            server.terminate()
            server.communicate()


def _make_container(endpoint: str) -> None:
    """Ask for the container, with a signature as "Authorize with Shared Key" of Azure's documentation has it."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}\nrestype:container"
    text = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in sorted(headers.items())) + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), hashlib.sha256)).decode()
    headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{signature}", "Content-Length": "0"}
    request = urllib.request.Request(f"{endpoint}/{CONTAINER}?restype=container", method="PUT", headers=headers)
    urllib.request.urlopen(request, timeout=30).close()
