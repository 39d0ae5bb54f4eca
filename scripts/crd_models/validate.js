// Reads custom resources (a JSON array) from standard input; prints what is wrong, one fault a line.
import { GRPCRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/GRPCRoute";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { readFileSync } from "node:fs";

const MODELS = [GRPCRoute, PodMonitor, PrometheusRule, ScaledObject];
// No field of these has such a value.
const NONSENSE = [[["nonsense"]]];

function fault(Model, manifest) {
  try {
    new Model(manifest).validate();
    return null;
  } catch (error) {
    return error.message;
  }
}

// The schemas let fields pass that they do not know. Such a field may hold anything, which tells.
function* unknownFields(Model, manifest, node, path) {
  for (const [key, value] of Object.entries(node)) {
    node[key] = NONSENSE;
    if (fault(Model, manifest) === null) yield `${path}.${key} is no field`;
    node[key] = value;
    if (value !== null && typeof value === "object") yield* unknownFields(Model, manifest, value, `${path}.${key}`);
  }
}

for (const manifest of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${manifest.apiVersion} ${manifest.kind} ${manifest.metadata?.name}`;
  const Model = MODELS.find((model) => model.is(manifest));
  if (!Model) {
    console.log(`${name}: no schema is known`);
    continue;
  }
  const found = fault(Model, manifest);
  const faults = found === null ? unknownFields(Model, manifest, manifest.spec, "spec") : [found];
  for (const text of faults) console.log(`${name}: ${text}`);
}
