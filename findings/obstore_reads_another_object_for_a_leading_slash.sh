#!/usr/bin/env bash
# In S3 `/a.jpg` and `a.jpg` are two objects. obstore 0.12.1 drops the leading slash of a key: asked for
# `/a.jpg` it gives the bytes of `a.jpg` without an error, and a trailing slash is dropped in the same way.
# So keys of a manifest that another client wrote may be read as the wrong pictures. boto3 reads both.
# Server: moto, which holds its buckets in memory.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet obstore==0.12.1 boto3==1.44.5 "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.5
"$folder/venv/bin/python" -m moto.server -H 127.0.0.1 -p 5078 >"$folder/log" 2>&1 &
server=$!
"$folder/venv/bin/python" - <<'PYTHON'
import socket, sys, time

import boto3
import obstore
from obstore.store import S3Store

for _ in range(300):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5078)) == 0:
            break
    time.sleep(0.1)
place = {"endpoint_url": "http://127.0.0.1:5078", "region_name": "us-east-1"}
keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
boto = boto3.client("s3", **place, **keys)
boto.create_bucket(Bucket="photos")
store = S3Store(
    "photos", endpoint=place["endpoint_url"], region="us-east-1", client_options={"allow_http": True},
    access_key_id="testing", secret_access_key="testing",
)
as_stated = True
print("obstore", obstore.__version__)
for odd in ("/a.jpg", "a.jpg/"):
    boto.put_object(Bucket="photos", Key="a.jpg", Body=b"the plain key")
    boto.put_object(Bucket="photos", Key=odd, Body=b"the key with the slash")
    by_boto = boto.get_object(Bucket="photos", Key=odd)["Body"].read()
    by_obstore = bytes(obstore.get(store, odd).bytes())
    print(f"{odd!r}: boto3 {by_boto!r}, obstore {by_obstore!r}")
    as_stated &= by_boto == b"the key with the slash" and by_obstore == b"the plain key"
    boto.delete_object(Bucket="photos", Key=odd)
sys.exit(0 if as_stated else 1)
PYTHON
