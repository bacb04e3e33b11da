"""moto's S3 in a process of its own, with an empty bucket."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_KEYS = {"aws_access_key_id": "id", "aws_secret_access_key": "secret"}


@contextlib.contextmanager
def moto_serving() -> Iterator[tuple[dict[str, Any], Any]]:
    """Serve the bucket `bucket` on loopback. Gives obstore's options, and boto3's client."""
    server = subprocess.Popen([sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stdin is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    import boto3

    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **_KEYS)
    client.create_bucket(Bucket="bucket")
    try:
        yield {**_KEYS, "aws_region": "us-east-1", "aws_endpoint": url}, client
    finally:
        server.stdin.close()
        server.stdout.close()
        server.kill()  # a forked process that still runs has its stdin too
        server.wait()


def objects_below(client: Any, prefix: str) -> dict[str, bytes]:
    """Return the objects below a prefix, by the rest of their names."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {key.removeprefix(prefix): client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}
