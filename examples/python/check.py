#!/usr/bin/env python3
"""Asks Keystead whether an API key is valid and may do what is asked.

The class below is made to be pasted into a service. From the top of the
repository:

    python3 -m venv target/client
    target/client/bin/pip install -r examples/python/requirements.txt
    mkdir -p target/python
    target/client/bin/python -m grpc_tools.protoc -I proto --python_out=target/python \\
        --grpc_python_out=target/python keystead/v1/authz.proto
    echo "$KEY" | PYTHONPATH=target/python target/client/bin/python examples/python/check.py - --scope read

Exit codes are those of `keystead check`: 0 valid, 10 unauthenticated,
11 permission denied, 12 unavailable (nothing is said about the key), 1 other.
"""

import argparse
import json
import sys

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from keystead.v1 import authz_pb2, authz_pb2_grpc

# UNAVAILABLE is retried once, after the pause that the server asks for in the
# trailer `grpc-retry-pushback-ms`, else after about `initialBackoff`. When much
# fails, `retryThrottling` stops retrying, so that retries do not add to an
# outage. `round_robin` spreads the calls over all addresses of the name.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    "methodConfig": [
        {
            "name": [{"service": "keystead.v1.Authz"}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

# Holds two attempts and the longest pause that a server asks for, 1.5 s. A
# service whose own callers wait less sets less.
DEADLINE_SECONDS = 3.0


class Denied(Exception):
    """The key is not valid (UNAUTHENTICATED, for HTTP 401) or may not do what
    was asked (PERMISSION_DENIED, for HTTP 403). Asking again changes nothing."""

    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code, self.reason = code, reason


class NoAnswer(Exception):
    """Nobody could say anything about the key: it was NOT rejected. For HTTP
    this is 503, never 401. `retry_after` is in seconds, or None for "with
    growing pauses"."""

    def __init__(self, reason, message, retry_after=None):
        super().__init__(message)
        self.reason, self.retry_after = reason, retry_after


class Keystead:
    """A client. Make one and keep it: its channel connects once, reconnects by
    itself and may be used from all threads."""

    def __init__(self, server):
        options = [("grpc.service_config", json.dumps(SERVICE_CONFIG))]
        scheme, _, address = server.rpartition("://")
        if scheme == "https":
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        self._authz = authz_pb2_grpc.AuthzStub(self._channel)

    def check(self, api_key, scopes=(), client_ip="", audience=""):
        """Returns the `CheckResponse` for a valid key that was granted all
        `scopes`. Raises `Denied`, `NoAnswer`, or `grpc.RpcError` for a mistake in
        a program or in how it is deployed, which says nothing about the key."""
        request = authz_pb2.CheckRequest(
            api_key=api_key,
            required_scopes=scopes,
            client_ip=client_ip,
            audience=audience,
        )
        try:
            return self._authz.Check(request, timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            raise explained(error) from None


def explained(error):
    """Tells the kinds of failure apart. A denial counts only with Keystead's own
    reason: a proxy on the way can refuse a call too, and knows nothing of the
    key."""
    code, message = error.code(), error.details()
    reason, retry_after = read_details(error)
    denials = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    if code in denials and reason:
        return Denied(code, reason, message)
    # An answer that came too late, or was given up, is no answer either.
    if code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ):
        return NoAnswer(reason or code.name, message, retry_after)
    return error


def read_details(error):
    """The reason and the pause in seconds, each None if Keystead gave none."""
    reason, retry_after = None, None
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        status = None
    for detail in status.details if status else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == "keystead":
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, retry_after


def main():
    arguments = parse_arguments()
    # Arguments show in the list of processes; stdin does not.
    key = sys.stdin.readline().strip() if arguments.key == "-" else arguments.key
    # What is no UTF-8 is no key either; let the server say so.
    key = key.encode("utf-8", "replace").decode()
    try:
        answer = Keystead(arguments.server).check(key, arguments.scope)
    except Denied as denied:
        print(f"denied: {denied.reason}\n  {denied}")
        return 10 if denied.code is grpc.StatusCode.UNAUTHENTICATED else 11
    except NoAnswer as outage:
        after = "with growing pauses"
        if outage.retry_after is not None:
            after = f"after {outage.retry_after:.3f} s"
        print(f"no answer: {outage.reason}\n  {outage}")
        print(f"  the key was NOT rejected; ask again {after}")
        return 12
    except grpc.RpcError as error:
        print(f"error: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    print("valid")
    print(f"  key        {answer.key_id}")
    print(f"  principal  {answer.principal}")
    print(f"  scopes     {' '.join(answer.scopes) or 'none'}")
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # Does not repeat the arguments, as one of them may be a key.
    parser.error = lambda _: parser.exit(1, parser.format_usage())
    parser.add_argument("key", metavar="KEY", help="the key; `-` reads a line of stdin")
    parser.add_argument("--scope", action="append", default=[], help="may be repeated")
    parser.add_argument(
        "--server",
        default="127.0.0.1:50051",
        metavar="[https://]HOST:PORT",
        help="default: %(default)s",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
