//! How fast nodes that fail may lose their pods: where much fails at once, it is likelier that the network does. Pure.
//!
//! Upstream: `ComputeZoneState` and `handleDisruption` in `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::is_ready_node;

/// Upstream's `--node-eviction-rate` of 0.1 a second.
const USUAL_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// Upstream's `--secondary-node-eviction-rate` of 0.01 a second, in a large zone of which much has failed.
const CAREFUL_PAUSE: SignedDuration = SignedDuration::from_secs(100);
/// Upstream's `--large-cluster-size-threshold`: in a smaller zone of which much has failed nobody is evicted.
const LARGE: usize = 50;
/// Upstream's `--unhealthy-zone-threshold`, in hundredths.
const UNHEALTHY: usize = 55;
/// So few nodes that are not ready say nothing of their zone.
const FEW: usize = 2;
/// On nodes that say nothing of their zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// The zones that nodes are in.
#[derive(Debug, Default)]
pub(super) struct Zones(HashMap<String, Zone>);

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    not_ready: usize,
    /// When the last of its nodes began to lose its pods.
    last: Option<Timestamp>,
}

/// Whether a node may begin to lose its pods.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    After(Duration),
    /// Not while its zone is as it is.
    No,
}

impl Zones {
    /// Takes in that a node was one thing and is another now; the answer is whether that may change what others may.
    pub fn note(&mut self, before: Option<&Node>, now: Option<&Node>) -> bool {
        let known = before.and_then(counted);
        let found = now.and_then(counted);
        if known == found {
            return false;
        }
        let was_all_dark = self.is_all_dark();
        let mut changed = false;
        for (counted, more) in [(known, false), (found, true)] {
            let Some((name, ready)) = counted else { continue };
            let zone = self.0.entry(name).or_default();
            let pause = zone.pause();
            let count = if ready { &mut zone.ready } else { &mut zone.not_ready };
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            changed |= pause != zone.pause();
        }
        self.0.retain(|_, zone| zone.ready + zone.not_ready > 0);
        changed || was_all_dark != self.is_all_dark()
    }

    /// Whether no node is ready. It is likelier then that we hear of none than that all have failed at once.
    pub fn is_all_dark(&self) -> bool {
        self.0.values().all(|zone| zone.ready == 0)
    }

    /// Whether this node may begin to lose its pods; if so, it counts as doing so.
    pub fn turn(&mut self, node: &Node, now: Timestamp) -> Turn {
        let zone = self.0.entry(zone_of(node)).or_default();
        let Some(pause) = zone.pause() else { return Turn::No };
        let since = zone.last.map_or(pause, |last| now.duration_since(last));
        match Duration::try_from(pause - since) {
            Ok(left) if !left.is_zero() => Turn::After(left),
            Ok(_) | Err(_) => {
                zone.last = Some(now);
                Turn::Now
            }
        }
    }
}

impl Zone {
    /// The time from one node to the next; none while nobody should be evicted.
    fn pause(&self) -> Option<SignedDuration> {
        let all = self.ready + self.not_ready;
        let is_unhealthy = self.not_ready > FEW && self.not_ready * 100 >= all * UNHEALTHY;
        match (self.ready, is_unhealthy) {
            // All of one zone: that the others are well says that these have failed.
            (0, _) | (_, false) => Some(USUAL_PAUSE),
            (_, true) => (all > LARGE).then_some(CAREFUL_PAUSE),
        }
    }
}

/// The zone that a node counts in, and whether it is ready.
fn counted(node: &Node) -> Option<(String, bool)> {
    let labels = node.metadata.labels.as_ref();
    let is_excluded = labels.is_some_and(|labels| labels.contains_key(EXCLUDED));
    (!is_excluded).then(|| (zone_of(node), is_ready_node(node)))
}

/// Zones of different regions may have the same name.
fn zone_of(node: &Node) -> String {
    let label = |name: &str| node.metadata.labels.as_ref()?.get(name).map(String::as_str);
    let region = label("topology.kubernetes.io/region").unwrap_or_default();
    let zone = label("topology.kubernetes.io/zone").unwrap_or_default();
    format!("{region}/{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(zone: &str, ready: bool) -> Node {
        let status = if ready { "True" } else { "Unknown" };
        serde_json::from_value(json!({
            "metadata": { "labels": { "topology.kubernetes.io/zone": zone } },
            "status": { "conditions": [{ "type": "Ready", "status": status }] },
        }))
        .unwrap()
    }

    fn zones(of: &[(&str, usize, usize)]) -> Zones {
        let mut zones = Zones::default();
        for (zone, ready, not_ready) in of {
            for _ in 0..*ready {
                zones.note(None, Some(&node(zone, true)));
            }
            for _ in 0..*not_ready {
                zones.note(None, Some(&node(zone, false)));
            }
        }
        zones
    }

    #[test]
    fn the_more_of_a_zone_fails_the_slower_it_loses_its_pods() {
        let check = |of: &[(&str, usize, usize)], pause: Option<u64>| {
            let mut zones = zones(of);
            let turn = |zones: &mut Zones, second: i64| {
                zones.turn(&node("a", false), Timestamp::from_second(second).unwrap())
            };
            let Some(pause) = pause else {
                return assert_eq!(turn(&mut zones, 0), Turn::No, "{of:?}");
            };
            assert_eq!(turn(&mut zones, 0), Turn::Now, "{of:?}");
            let left = Duration::from_secs(pause - 3);
            assert_eq!(turn(&mut zones, 3), Turn::After(left), "{of:?}");
            let later = i64::try_from(pause).unwrap();
            assert_eq!(turn(&mut zones, later), Turn::Now, "{of:?}");
        };
        check(&[("a", 9, 1)], Some(10));
        check(&[("a", 1, 2)], Some(10));
        check(&[("a", 2, 3)], None);
        check(&[("a", 20, 40)], Some(100));
        // A zone that is all dark beside one that is not has failed.
        check(&[("a", 0, 3), ("b", 1, 0)], Some(10));
    }

    #[test]
    fn what_others_may_changes_with_the_state_of_a_zone_alone() {
        let mut zones = zones(&[("a", 3, 2)]);
        let (ready, silent) = (node("a", true), node("a", false));
        assert!(!zones.note(Some(&silent), Some(&silent)));
        assert!(zones.note(Some(&ready), Some(&silent)), "three of five are many");
        assert!(!zones.note(Some(&ready), Some(&silent)));
        assert!(zones.note(Some(&ready), Some(&silent)), "nobody is left");
        assert!(zones.is_all_dark());
        assert!(zones.note(None, Some(&node("b", true))) && !zones.is_all_dark());
    }
}
