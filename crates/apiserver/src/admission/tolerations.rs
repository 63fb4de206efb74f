//! DefaultTolerationSeconds: a pod stays five minutes on a node that stopped answering, unless it says otherwise.

use serde_json::{Value, json};

use super::{AdmissionRequest, Operation};

const SECONDS: u32 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Adds the tolerations that are missing.
pub(super) fn mutate(request: &mut AdmissionRequest<'_>) {
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if !written || !request.is_core("Pod") {
        return;
    }
    for taint in TAINTS {
        let tolerations = &mut request.object["spec"]["tolerations"];
        if tolerations
            .as_array()
            .into_iter()
            .flatten()
            .any(|toleration| tolerates(toleration, taint))
        {
            continue;
        }
        let toleration = json!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS });
        match tolerations.as_array_mut() {
            Some(list) => list.push(toleration),
            None => *tolerations = json!([toleration]),
        }
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration[field].as_str().unwrap_or_default();
    matches!(text("effect"), "" | "NoExecute") && (text("key").is_empty() || text("key") == taint)
}
