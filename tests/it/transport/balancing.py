"""A gRPC client that balances over instances by their health.

usage: balancing.py ADDRESS,ADDRESS...   with the key on stdin

Prints the code of each check on a line of its own, until it is killed.
"""

import json
import sys
import time

import grpc
from keystead.v1 import authz_pb2, authz_pb2_grpc

CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "keystead.v1.Authz"},
}


def main() -> None:
    key = sys.stdin.readline().strip()
    options = [
        ("grpc.service_config", json.dumps(CONFIG)),
        # Several addresses in a row are no authority.
        ("grpc.default_authority", "keystead"),
    ]
    channel = grpc.insecure_channel(f"ipv4:{sys.argv[1]}", options=options)
    authz = authz_pb2_grpc.AuthzStub(channel)
    while True:
        check = authz.Check.future(
            authz_pb2.CheckRequest(api_key=key), timeout=20, wait_for_ready=True
        )
        # Waits for the end.
        print(check.code().name, flush=True)
        time.sleep(0.005)


main()
