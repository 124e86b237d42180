#!/usr/bin/env bash
# obstore 0.12.1 cannot list a bucket of S3 in which a single key has an empty part (`a//b.jpg`) or a part
# `.` or `..`: the listing ends with InvalidPathError, and the other keys are not given either. S3 allows
# such keys, and boto3 lists them. They come from prefixes that are joined with one slash too many.
# Server: moto, which holds its buckets in memory.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet obstore==0.12.1 boto3==1.44.5 "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.5
"$folder/venv/bin/python" -m moto.server -H 127.0.0.1 -p 5077 >"$folder/log" 2>&1 &
server=$!
"$folder/venv/bin/python" - <<'PYTHON'
import socket, sys, time

import boto3
import obstore
from obstore.exceptions import InvalidPathError
from obstore.store import S3Store

for _ in range(300):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5077)) == 0:
            break
    time.sleep(0.1)
place = {"endpoint_url": "http://127.0.0.1:5077", "region_name": "us-east-1"}
keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
boto = boto3.client("s3", **place, **keys)
boto.create_bucket(Bucket="photos")
store = S3Store(
    "photos", endpoint=place["endpoint_url"], region="us-east-1", client_options={"allow_http": True},
    access_key_id="testing", secret_access_key="testing",
)
boto.put_object(Bucket="photos", Key="2019/a.jpg", Body=b"a")
listed = [item["path"] for page in obstore.list(store) for item in page]
print("obstore", obstore.__version__, "· before:", listed)
as_stated = listed == ["2019/a.jpg"]
for odd in ("2019//b.jpg", "2019/./b.jpg", "2019/../b.jpg"):
    boto.put_object(Bucket="photos", Key=odd, Body=b"b")
    by_boto = [item["Key"] for item in boto.list_objects_v2(Bucket="photos")["Contents"]]
    try:
        seen = str([item["path"] for page in obstore.list(store) for item in page])
        as_stated = False
    except InvalidPathError as error:
        seen = f"InvalidPathError: {str(error).splitlines()[0]}"
    as_stated &= sorted(by_boto) == sorted(["2019/a.jpg", odd])
    print(f"with {odd!r}: boto3 lists {by_boto}; obstore: {seen}")
    boto.delete_object(Bucket="photos", Key=odd)
sys.exit(0 if as_stated else 1)
PYTHON
