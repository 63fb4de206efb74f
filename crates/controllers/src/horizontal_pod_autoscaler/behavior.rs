//! How fast a wished size may be followed.
//!
//! Upstream: `normalizeDesiredReplicas`, `stabilizeRecommendationWithBehaviors` and
//! `convertDesiredReplicasWithBehaviorRate` in `pkg/controller/podautoscaler/horizontal.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Upstream's `--horizontal-pod-autoscaler-downscale-stabilization`.
const DOWNSCALE_WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// The longest that any window or period may be; what is older is forgotten.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// What is remembered of one autoscaler, as upstream only while this controller lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// Sizes that the metrics asked for.
    pub wishes: Vec<(Timestamp, i32)>,
    /// Changes that were made: how many pods more, or fewer.
    pub changes: Vec<(Timestamp, i32)>,
}

impl Memory {
    /// Forgets what no rule can ask for any more.
    pub fn forget(&mut self, now: Timestamp) {
        self.wishes.retain(|(at, _)| *at + LONGEST > now);
        self.changes.retain(|(at, _)| *at + LONGEST > now);
    }

    /// By how many pods it grew (or shrank) within `seconds`.
    fn grown(&self, seconds: i32, now: Timestamp) -> i32 {
        let since = now - SignedDuration::from_secs(i64::from(seconds));
        self.changes.iter().filter(|(at, _)| *at > since).map(|(_, by)| by).sum()
    }
}

/// The sizes that count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub current: i32,
    pub wished: i32,
    pub min: i32,
    pub max: i32,
}

/// A reason and its message, for a condition.
pub(super) type Why = (&'static str, &'static str);

/// The size to go to, and what kept it from the wished one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub replicas: i32,
    pub able: Why,
    pub limited: (bool, Why),
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Why =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Why =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Why =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

/// The size to go to now. The wish has to be in the memory afterwards, not before.
pub(super) fn outcome(
    sizes: Sizes,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    memory: &Memory,
    now: Timestamp,
) -> Outcome {
    let (stabilized, able) = stabilize(sizes, behavior, memory, now);
    let (lower, upper) = match behavior {
        None => {
            let doubled = sizes.current.saturating_mul(2).max(4);
            let upper =
                if sizes.max > doubled { (doubled, UP_LIMIT) } else { (sizes.max, TOO_MANY) };
            ((sizes.min, TOO_FEW), upper)
        }
        Some(behavior) => rates(sizes, behavior, memory, now),
    };
    let (replicas, why) = if stabilized < lower.0 {
        lower
    } else if stabilized > upper.0 {
        upper
    } else {
        (stabilized, WITHIN)
    };
    Outcome { replicas, able, limited: (replicas != stabilized, why) }
}

fn stabilize(
    sizes: Sizes,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    memory: &Memory,
    now: Timestamp,
) -> (i32, Why) {
    let window = |rules: Option<&HPAScalingRules>, default: SignedDuration| {
        let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
        seconds.map_or(default, |seconds| SignedDuration::from_secs(i64::from(seconds)))
    };
    let recent = |window: SignedDuration| {
        let wishes = memory.wishes.iter().filter(move |(at, _)| *at > now - window);
        wishes.map(|(_, wish)| *wish)
    };
    let down = window(behavior.and_then(|behavior| behavior.scale_down.as_ref()), DOWNSCALE_WINDOW);
    let highest = recent(down).fold(sizes.wished, i32::max);
    let Some(behavior) = behavior else {
        return (highest, if highest == sizes.wished { READY } else { DOWN_STABILIZED });
    };
    let up = window(behavior.scale_up.as_ref(), SignedDuration::ZERO);
    let lowest = recent(up).fold(sizes.wished, i32::min);
    // Between the two it stays as it is.
    let stabilized = sizes.current.max(lowest).min(highest);
    let able = match stabilized == sizes.wished {
        true => READY,
        false if sizes.wished >= sizes.current => UP_STABILIZED,
        false => DOWN_STABILIZED,
    };
    (stabilized, able)
}

/// The smallest and the largest size that the policies allow now.
fn rates(
    sizes: Sizes,
    behavior: &HorizontalPodAutoscalerBehavior,
    memory: &Memory,
    now: Timestamp,
) -> ((i32, Why), (i32, Why)) {
    let current = sizes.current;
    let least = behavior.scale_down.as_ref().map(|rules| {
        limit(
            rules,
            current,
            |period, value, in_percent| {
                let before = current - memory.grown(period, now);
                if in_percent {
                    (f64::from(before) * (1.0 - f64::from(value) / 100.0)) as i32
                } else {
                    before.saturating_sub(value)
                }
            },
            Direction::Down,
        )
    });
    let most = behavior.scale_up.as_ref().map(|rules| {
        limit(
            rules,
            current,
            |period, value, in_percent| {
                let before = current - memory.grown(period, now);
                if in_percent {
                    (f64::from(before) * (1.0 + f64::from(value) / 100.0)).ceil() as i32
                } else {
                    before.saturating_add(value)
                }
            },
            Direction::Up,
        )
    });
    let least = least.map_or(sizes.min, |least| least.min(current));
    let lower = if sizes.min < least { (least, DOWN_LIMIT) } else { (sizes.min, TOO_FEW) };
    let most = most.map_or(sizes.max, |most| most.max(current));
    let upper = if sizes.max > most { (most, UP_LIMIT) } else { (sizes.max, TOO_MANY) };
    (lower, upper)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// What the rules' policies allow together: `Max` takes the one that changes most, `Min` the one that changes least.
fn limit(
    rules: &HPAScalingRules,
    current: i32,
    allowed: impl Fn(i32, i32, bool) -> i32,
    direction: Direction,
) -> i32 {
    let policies = rules.policies.as_deref().unwrap_or_default();
    let each = policies
        .iter()
        .map(|policy| allowed(policy.period_seconds, policy.value, policy.type_ == "Percent"));
    let takes_largest = match rules.select_policy.as_deref() {
        Some("Disabled") => return current,
        Some("Min") => direction == Direction::Down,
        _ => direction == Direction::Up,
    };
    let found = if takes_largest { each.max() } else { each.min() };
    found.unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn seconds(ago: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH - SignedDuration::from_secs(ago)
    }

    /// From 4 pods, between 1 and 100: the size and the two reasons.
    fn check(behavior: Value, memory: &Memory, wished: i32, expected: (i32, &str, &str)) {
        let behavior: Option<HorizontalPodAutoscalerBehavior> =
            serde_json::from_value(behavior.clone()).unwrap();
        let sizes = Sizes { current: 4, wished, min: 1, max: 100 };
        let found = outcome(sizes, behavior.as_ref(), memory, Timestamp::UNIX_EPOCH);
        let (limited, (why, _)) = found.limited;
        assert_eq!((found.replicas, found.able.0, why), expected, "{behavior:?} {wished}");
        assert_eq!(limited, why != "DesiredWithinRange");
    }

    #[test]
    fn without_rules_it_doubles_at_most_and_shrinks_late() {
        let none = Memory::default();
        check(Value::Null, &none, 6, (6, "ReadyForNewScale", "DesiredWithinRange"));
        check(Value::Null, &none, 20, (8, "ReadyForNewScale", "ScaleUpLimit"));
        check(Value::Null, &none, 0, (1, "ReadyForNewScale", "TooFewReplicas"));
        let wished =
            Memory { wishes: vec![(seconds(299), 3), (seconds(301), 9)], ..Memory::default() };
        check(Value::Null, &wished, 2, (3, "ScaleDownStabilized", "DesiredWithinRange"));
    }

    #[test]
    fn policies_bound_the_rate() {
        let none = Memory::default();
        let up = |select: &str| {
            json!({ "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                { "type": "Pods", "value": 2, "periodSeconds": 60 }, { "type": "Percent", "value": 100, "periodSeconds": 60 }] } })
        };
        check(up("Max"), &none, 50, (8, "ReadyForNewScale", "ScaleUpLimit"));
        check(up("Min"), &none, 50, (6, "ReadyForNewScale", "ScaleUpLimit"));
        check(up("Disabled"), &none, 50, (4, "ReadyForNewScale", "ScaleUpLimit"));
        check(up("Max"), &none, 5, (5, "ReadyForNewScale", "DesiredWithinRange"));
        let grown =
            Memory { changes: vec![(seconds(30), 2), (seconds(70), 1)], ..Memory::default() };
        check(up("Min"), &grown, 50, (4, "ReadyForNewScale", "ScaleUpLimit"));

        let down = |select: &str| {
            json!({ "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                { "type": "Pods", "value": 1, "periodSeconds": 60 }, { "type": "Percent", "value": 50, "periodSeconds": 60 }] } })
        };
        check(down("Max"), &none, 1, (2, "ReadyForNewScale", "ScaleDownLimit"));
        check(down("Min"), &none, 1, (3, "ReadyForNewScale", "ScaleDownLimit"));
        check(down("Disabled"), &none, 1, (4, "ReadyForNewScale", "ScaleDownLimit"));
    }

    #[test]
    fn windows_hold_both_directions_back() {
        let rules = json!({ "scaleUp": { "stabilizationWindowSeconds": 60 }, "scaleDown": { "stabilizationWindowSeconds": 60 } });
        let wished =
            Memory { wishes: vec![(seconds(30), 4), (seconds(90), 1)], ..Memory::default() };
        check(rules.clone(), &wished, 2, (4, "ScaleDownStabilized", "DesiredWithinRange"));
        check(rules, &wished, 9, (4, "ScaleUpStabilized", "DesiredWithinRange"));
    }
}
