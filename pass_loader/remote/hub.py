"""Which files a data set of the Hugging Face hub has: https://huggingface.co/docs/hub/api, `tree` of a data set.

`Store` reads the files themselves. The hub tells sizes and numbers of git here, not the ETags that its answers have.
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from urllib.error import HTTPError
from urllib.parse import quote

from ..errors import PackError

_HUB = "https://huggingface.co"
_TIMEOUT_S = 60
_NEXT = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next\b')  # of the header Link


def endpoint_of(url: str, kind: str = "resolve") -> str:
    """Return the address of a file or folder of a data set, hf://datasets/OWNER/NAME@REVISION/..., on the hub.

    kind: "resolve" for its bytes, "tree" for what is in a folder. Raises PackError for another URL.
    """
    parts = url.split("://", 1)[1].strip("/").split("/")
    if len(parts) < 3 or parts[0] != "datasets":
        raise PackError(f"{url}: want hf://datasets/OWNER/NAME/..., or hf://datasets/OWNER/NAME@REVISION/...")
    name, _, revision = parts[2].partition("@")
    hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/") + ("/api" if kind == "tree" else "")
    path = "".join(f"/{quote(part)}" for part in parts[3:])
    return f"{hub}/datasets/{parts[1]}/{name}/{kind}/{quote(revision or 'main', safe='')}{path}"


def names_below(url: str, deep: bool) -> list[str]:
    """Return the names of a folder's files below it; those in folders below too where `deep`.

    Raises FileNotFoundError, PermissionError, ConnectionError, ValueError for an answer that is no listing.
    """
    inside = "/".join(url.split("://", 1)[1].strip("/").split("/")[3:])
    page: str | None = endpoint_of(url, "tree") + ("?recursive=true" if deep else "")
    own = endpoint_of(url, "tree").split("/api/")[0] + "/"
    names = []
    while page is not None:
        if not page.startswith(own):  # the token is for the hub alone
            raise ConnectionError(f"the listing goes on at another server, {page[:100]}")
        content, page = _page(page)
        paths = [entry["path"] for entry in json.loads(content) if entry["type"] == "file"]
        names += [path[len(inside) + 1 :] if inside else path for path in paths]
    return names


def _page(address: str) -> tuple[bytes, str | None]:
    """Return an answer and the address of the next one."""
    request = urllib.request.Request(address)
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            found = _NEXT.search(answer.headers.get("Link", ""))
            return answer.read(), found[1] if found else None
    except HTTPError as error:
        kinds = {404: FileNotFoundError, 401: PermissionError, 403: PermissionError}
        raise kinds.get(error.code, ConnectionError)(f"the hub answered {error.code} {error.reason}") from None
