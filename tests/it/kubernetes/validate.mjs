// Holds Kubernetes resources against the schemas of their kinds:
//
//   node validate.mjs FOLDER…
//
// Reads all `*.yaml` of the folders. Ends with 1, and says why, if a resource does not fit its
// schema, has a field that the schema does not know, or is of a kind without one; and if a folder
// holds no resource at all. Rules in CEL and those of an admission webhook are not looked at.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { parseAllDocuments } from "yaml";

// The packages whose models are known, by what ends the group of a resource.
const MODELS = {
  "envoyproxy.io": "@kubernetes-models/envoy-gateway",
  "istio.io": "@kubernetes-models/istio",
};

// What no schema tells about, by kind: `*` is each element of a list. It is listed as not checked.
const NOT_CHECKED = {
  // Younger than the package, in Envoy Gateway 1.8.
  "gateway.envoyproxy.io/v1alpha1/SecurityPolicy": ["spec.extAuth.statusOnError"],
  // Its schema says nothing of the mesh configuration; istiod reads that.
  "install.istio.io/v1alpha1/IstioOperator": ["spec"],
  // Parts of Envoy's configuration.
  "networking.istio.io/v1alpha3/EnvoyFilter": ["spec.configPatches.*.patch.value"],
  "gateway.envoyproxy.io/v1alpha1/EnvoyPatchPolicy": ["spec.jsonPatches.*.operation.value"],
};

// What checks a resource of this kind, or nothing if there is no schema.
async function modelOf(apiVersion, kind) {
  const suffix = Object.keys(MODELS).find((end) => apiVersion.split("/")[0].endsWith(`.${end}`));
  if (!suffix || !/^\w+$/.test(kind)) return undefined;
  try {
    return (await import(`${MODELS[suffix]}/${apiVersion}/${kind}`))[kind];
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND" && error.code !== "ERR_PACKAGE_PATH_NOT_EXPORTED") {
      throw error;
    }
    return undefined;
  }
}

// The schemas are compiled into code that reads each field that it knows, and lets others be. So
// what it did not read, it does not know.
class Watched {
  #read = new Map();

  // `value`, where it is noted what is read of it.
  watch(value) {
    if (value === null || typeof value !== "object") return value;
    const names = new Set();
    this.#read.set(value, names);
    const parts = new Map();
    return new Proxy(value, {
      get: (target, name) => {
        names.add(name);
        if (!Object.hasOwn(target, name)) return target[name];
        if (!parts.has(name)) parts.set(name, this.watch(target[name]));
        return parts.get(name);
      },
    });
  }

  // The paths of all fields below `value` that nobody read, and of what is in them none. Below one
  // of `whole` everything is taken for that one.
  *unread(value, whole, path = []) {
    if (value === null || typeof value !== "object") return;
    for (const [name, part] of Object.entries(value)) {
      const below = [...path, name];
      if (!this.#read.get(value)?.has(name) || isOneOf(whole, below)) yield below;
      else yield* this.unread(part, whole, below);
    }
  }
}

function isOneOf(patterns, path) {
  return patterns.some((pattern) => {
    const names = pattern.split(".");
    return names.length === path.length && names.every((name, i) => name === "*" || name === path[i]);
  });
}

// What is wrong with a resource, and what was not checked.
async function check(resource) {
  const { apiVersion, kind } = resource ?? {};
  if (typeof apiVersion !== "string" || typeof kind !== "string") {
    return { wrong: ["is no resource: it has no apiVersion and kind"], notes: [] };
  }
  const model = await modelOf(apiVersion, kind);
  if (!model) return { wrong: [`there is no schema of ${apiVersion} ${kind}`], notes: [] };

  const wrong = [];
  const notes = [];
  const watched = new Watched();
  try {
    model.prototype.validate.call(watched.watch(resource));
  } catch (error) {
    if (!Array.isArray(error.errors)) throw error;
    for (const { instancePath, message, params } of error.errors) {
      wrong.push(`${instancePath || "/"} ${message} ${JSON.stringify(params)}`);
    }
  }
  const notChecked = NOT_CHECKED[`${apiVersion}/${kind}`] ?? [];
  for (const path of watched.unread(resource, notChecked)) {
    const name = `/${path.join("/")}`;
    if (isOneOf(notChecked, path)) notes.push(`${name} was not checked`);
    else wrong.push(`${name} is unknown to the schema`);
  }
  return { wrong, notes };
}

// Prints each resource of a file; says how many there are, and how many of them are wrong.
async function validate(file) {
  const counts = { all: 0, wrong: 0 };
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    const syntax = [...document.errors, ...document.warnings].map((error) => error.message);
    const resource = syntax.length ? undefined : document.toJS();
    const { wrong, notes } = syntax.length ? { wrong: syntax, notes: [] } : await check(resource);
    const name = resource?.metadata?.name ?? "without a name";
    console.log(`${file}: ${resource?.kind ?? "document"} ${name}: ${wrong.length ? "WRONG" : "ok"}`);
    for (const line of [...wrong, ...notes]) console.log(`  ${line}`);
    counts.all += 1;
    counts.wrong += wrong.length ? 1 : 0;
  }
  return counts;
}

let failed = process.argv.length < 3;
if (failed) console.log("usage: node validate.mjs FOLDER…");
for (const folder of process.argv.slice(2)) {
  let resources = 0;
  for (const name of readdirSync(folder).filter((name) => name.endsWith(".yaml")).sort()) {
    const counts = await validate(join(folder, name));
    resources += counts.all;
    failed ||= counts.wrong > 0;
  }
  if (!resources) {
    console.log(`${folder}: there is no resource`);
    failed = true;
  }
}
process.exitCode = failed ? 1 : 0;
