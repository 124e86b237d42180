"""Listing a bucket: keys a second and memory, for any number of keys.

    python -m benchmarks.listing --keys 100000 1000000

The keys are made up by a small server in a process of its own that answers as S3 does (ListObjectsV2,
pages of a thousand, in 50 folders); the manifest that comes out is real. The seconds are those of the
listing process on its core, in which the answers are parsed and the manifest is written.
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import tyro

from lib.archive.archive import Archive, Reading
from lib.archive.manifest import write_manifest
from lib.storage.folder import folder
from lib.storage.options import S3Options, StorageOptions

FOLDERS = 50
PAGE = 1000


@dataclass(frozen=True)
class Options:
    """List made-up buckets.

    Attributes:
        keys: Numbers of keys.
    """

    keys: tuple[int, ...] = (100_000, 1_000_000)


def main() -> None:
    """List a bucket of each size, each in a process of its own, whose memory is then its own, too."""
    options = tyro.cli(Options)
    context = multiprocessing.get_context("spawn")
    for keys in options.keys:
        port = context.Queue()
        server = context.Process(target=serve, args=(keys, port), daemon=True)
        server.start()
        lister = context.Process(target=list_bucket, args=(port.get(), keys))
        lister.start()
        lister.join()
        server.kill()
        if lister.exitcode:
            sys.exit(lister.exitcode)


def list_bucket(port: int, keys: int) -> None:
    """Write the manifest of the bucket."""
    options = StorageOptions(S3Options(f"http://127.0.0.1:{port}", "us-east-1", anonymous=True))
    with tempfile.TemporaryDirectory() as name:
        started, worked = time.monotonic(), time.process_time()
        manifest = write_manifest(
            Archive(["s3://bucket"], reading=Reading(storage=options)),
            folder(Path(name) / "manifest"),
        )
        seconds, core = time.monotonic() - started, time.process_time() - worked
    assert manifest.images == keys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{keys:,} keys: {keys / seconds:,.0f} keys/s, {keys / core:,.0f} keys per second of a core, "
        f"peak memory {peak:,.0f} MiB",
        flush=True,
    )


def serve(keys: int, port: "multiprocessing.Queue[int]") -> None:
    """Answer as a bucket with that many keys."""
    each = keys // FOLDERS

    def page(prefix: str, token: str, folders: bool) -> str:
        head = "<ListBucketResult>"
        if folders:
            common = "".join(
                f"<CommonPrefixes><Prefix>{f:03}/</Prefix></CommonPrefixes>" for f in range(FOLDERS)
            )
            return f"{head}<IsTruncated>false</IsTruncated>{common}</ListBucketResult>"
        start = int(token or 0)
        stop = min(start + PAGE, each)
        found = "".join(
            f"<Contents><Key>{prefix}{n:08}.jpg</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>&quot;{n:032x}&quot;</ETag><Size>{n}</Size></Contents>"
            for n in range(start, stop)
        )
        more = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{stop}</NextContinuationToken>"
            if stop < each
            else "<IsTruncated>false</IsTruncated>"
        )
        return f"{head}{more}{found}</ListBucketResult>"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            text = page(
                query.get("prefix", [""])[0],
                query.get("continuation-token", [""])[0],
                "delimiter" in query,
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.put(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
