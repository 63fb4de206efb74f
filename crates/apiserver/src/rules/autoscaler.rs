//! `HorizontalPodAutoscaler`.

use serde_json::{Value, json};

use crate::rules::json::{Read, default, object, set, with};
use crate::rules::{Rules, generic};

pub static RULES: Rules = Rules {
    default: |autoscaler| {
        let spec = object(autoscaler, "spec");
        default(spec, "minReplicas", 1);
        if spec["metrics"].size() == 0 {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        }
        with(spec, "behavior", default_behavior);
    },
    prepare_create: |autoscaler| {
        generic::start_status(autoscaler, json!({"desiredReplicas": 0, "currentMetrics": null}));
    },
    ..Rules::GENERIC
};

fn default_behavior(behavior: &mut Value) {
    let up = object(behavior, "scaleUp");
    default(up, "stabilizationWindowSeconds", 0);
    default(up, "selectPolicy", "Max");
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    default(up, "policies", json!([pods, percent]));
    let down = object(behavior, "scaleDown");
    default(down, "selectPolicy", "Max");
    default(down, "policies", json!([percent]));
}
