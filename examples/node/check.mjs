#!/usr/bin/env node
// Asks Keystead whether an API key is valid and may do what is asked.
//
// The class below is made to be pasted into a service. From the top of the
// repository:
//
//     npm ci --prefix examples/node
//     echo "$KEY" | examples/node/check.mjs - --scope read
//
// Exit codes are those of `keystead check`: 0 valid, 10 unauthenticated,
// 11 permission denied, 12 unavailable (nothing is said about the key), 1 other.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import protobuf from "protobufjs";

// UNAVAILABLE is retried once, after the pause that the server asks for in the
// trailer `grpc-retry-pushback-ms`, else after about `initialBackoff`. When much
// fails, `retryThrottling` stops retrying, so that retries do not add to an
// outage. `round_robin` spreads the calls over all addresses of the name.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  retryThrottling: { maxTokens: 10, tokenRatio: 0.1 },
  methodConfig: [
    {
      name: [{ service: "keystead.v1.Authz" }],
      retryPolicy: {
        maxAttempts: 2,
        initialBackoff: "0.05s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

// Holds two attempts and the longest pause that a server asks for, 1.5 s. A
// service whose own callers wait less sets less.
const DEADLINE_MS = 3_000;

const PROTO = fileURLToPath(new URL("../../proto", import.meta.url));
const { Authz } = grpc.loadPackageDefinition(
  loadSync("keystead/v1/authz.proto", { includeDirs: [PROTO], longs: String, enums: String }),
).keystead.v1;

// What the trailer `grpc-status-details-bin` holds, of google/rpc/status.proto
// and google/rpc/error_details.proto.
const details = protobuf.parse(`
  syntax = "proto3";
  message Status { repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; string domain = 2; }
  message RetryInfo { Duration retry_delay = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
`).root;

/**
 * The key is not valid (UNAUTHENTICATED, for HTTP 401) or may not do what was
 * asked (PERMISSION_DENIED, for HTTP 403). Asking again changes nothing.
 */
export class Denied extends Error {
  constructor(code, reason, message) {
    super(message);
    Object.assign(this, { name: "Denied", code, reason });
  }
}

/**
 * Nobody could say anything about the key: it was NOT rejected. For HTTP this is
 * 503, never 401. `retryAfterMs` is absent for "with growing pauses".
 */
export class NoAnswer extends Error {
  constructor(reason, message, retryAfterMs) {
    super(message);
    Object.assign(this, { name: "NoAnswer", reason, retryAfterMs });
  }
}

/**
 * A client. Make one and keep it: its channel connects once and reconnects by
 * itself.
 */
export class Keystead {
  #authz;

  constructor(server) {
    const address = server.replace(/^\w+:\/\//, "");
    const credentials = server.startsWith("https://")
      ? grpc.credentials.createSsl()
      : grpc.credentials.createInsecure();
    const options = { "grpc.service_config": JSON.stringify(SERVICE_CONFIG) };
    this.#authz = new Authz(address, credentials, options);
  }

  /**
   * Resolves to the `CheckResponse` for a valid key that was granted all
   * `scopes`. Rejects with `Denied`, `NoAnswer`, or the error of gRPC for a
   * mistake in a program or in how it is deployed, which says nothing about the
   * key.
   */
  check({ apiKey, scopes = [], clientIp = "", audience = "" }) {
    const request = { apiKey, requiredScopes: scopes, clientIp, audience };
    const deadline = Date.now() + DEADLINE_MS;
    const answer = new Promise((resolve, reject) => {
      this.#authz.check(request, { deadline }, (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
    return answer.catch((error) => {
      throw explained(error);
    });
  }

  close() {
    this.#authz.close();
  }
}

/**
 * Tells the kinds of failure apart. A denial counts only with Keystead's own
 * reason: a proxy on the way can refuse a call too, and knows nothing of the key.
 */
function explained(error) {
  const { reason, retryAfterMs } = readDetails(error.metadata);
  switch (error.code) {
    case grpc.status.UNAUTHENTICATED:
    case grpc.status.PERMISSION_DENIED:
      return reason ? new Denied(error.code, reason, error.details) : error;
    // An answer that came too late, or was given up, is no answer either.
    case grpc.status.UNAVAILABLE:
    case grpc.status.DEADLINE_EXCEEDED:
    case grpc.status.CANCELLED:
      return new NoAnswer(reason ?? grpc.status[error.code], error.details, retryAfterMs);
    default:
      return error;
  }
}

/** The reason and the pause, each absent if Keystead gave none. */
function readDetails(metadata) {
  const found = {};
  const [bytes] = metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return found;
  try {
    for (const { typeUrl, value } of details.lookupType("Status").decode(bytes).details) {
      if (typeUrl === "type.googleapis.com/google.rpc.ErrorInfo") {
        const info = details.lookupType("ErrorInfo").decode(value);
        if (info.domain === "keystead") found.reason = info.reason;
      } else if (typeUrl === "type.googleapis.com/google.rpc.RetryInfo") {
        const { seconds, nanos } = details.lookupType("RetryInfo").decode(value).retryDelay;
        found.retryAfterMs = Number(seconds) * 1e3 + nanos / 1e6;
      }
    }
  } catch {
    // Details that cannot be read are not Keystead's.
  }
  return found;
}

async function main() {
  const { values, positionals } = parseArguments();
  if (positionals.length !== 1) {
    console.error("usage: check.mjs [--scope SCOPE]... [--server [https://]HOST:PORT] KEY");
    return 1;
  }
  // Arguments show in the list of processes; stdin does not.
  const [key] = positionals[0] === "-" ? readFileSync(0, "utf8").split("\n") : positionals;
  const keystead = new Keystead(values.server);
  try {
    const answer = await keystead.check({ apiKey: key.trim(), scopes: values.scope });
    console.log("valid");
    console.log(`  key        ${answer.keyId}`);
    console.log(`  principal  ${answer.principal}`);
    console.log(`  scopes     ${answer.scopes?.join(" ") || "none"}`);
    return 0;
  } catch (error) {
    return report(error);
  } finally {
    keystead.close();
  }
}

/** No positionals for arguments that make no sense; they are not repeated, as one may be a key. */
function parseArguments() {
  const options = {
    scope: { type: "string", multiple: true, default: [] },
    server: { type: "string", default: "127.0.0.1:50051" },
  };
  try {
    return parseArgs({ allowPositionals: true, options });
  } catch {
    return { values: {}, positionals: [] };
  }
}

function report(error) {
  if (error instanceof Denied) {
    console.log(`denied: ${error.reason}\n  ${error.message}`);
    return error.code === grpc.status.UNAUTHENTICATED ? 10 : 11;
  }
  if (error instanceof NoAnswer) {
    const after =
      error.retryAfterMs === undefined
        ? "with growing pauses"
        : `after ${(error.retryAfterMs / 1e3).toFixed(3)} s`;
    console.log(`no answer: ${error.reason}\n  ${error.message}`);
    console.log(`  the key was NOT rejected; ask again ${after}`);
    return 12;
  }
  console.error(`error: ${error.message}`);
  return 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = await main();
}
