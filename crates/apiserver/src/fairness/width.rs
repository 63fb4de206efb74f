//! How many seats a request takes, as upstream's estimator reckons
//! (`apiserver/pkg/util/flowcontrol/request/list_work_estimator.go`): a list one for each hundred objects that it goes through.

use std::sync::Arc;

use coracle_store::{Range, Store};

use crate::query::Query;
use crate::request_info::RequestInfo;

const OBJECTS_OF_A_SEAT: usize = 100;
const MAX_SEATS: usize = 10;

/// The seats of this request; its level may allow fewer.
pub(super) fn of(store: &Store, info: &RequestInfo, query: &Query) -> usize {
    let Some(target) = info.resource.as_ref() else { return 1 };
    let starts_with_list = match info.verb {
        "list" => true,
        // A watch that begins with what is there is a list at first.
        "watch" => query.get("sendInitialEvents") == Some("true"),
        _ => false,
    };
    if !starts_with_list || !target.name.is_empty() {
        return 1;
    }
    let resource = if target.group.is_empty() {
        target.resource.clone()
    } else {
        format!("{}.{}", target.resource, target.group)
    };
    let namespace = target.namespace.as_str();
    let range = if namespace.is_empty() {
        Range::all(Arc::from(resource))
    } else {
        Range::namespace(Arc::from(resource), namespace)
    };
    let stored = store.count(&range);
    let selects = ["labelSelector", "fieldSelector"]
        .iter()
        .any(|name| query.get(name).is_some_and(|selector| !selector.is_empty()));
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    seats(stored, limit, selects)
}

/// A page is made of as many objects, and as many are looked at to tell how many remain; a selector may have to look at all.
fn seats(stored: usize, limit: Option<usize>, selects: bool) -> usize {
    let visited = match limit {
        Some(limit) if !selects => stored.min(limit.saturating_mul(2)),
        _ => stored,
    };
    visited.div_ceil(OBJECTS_OF_A_SEAT).clamp(1, MAX_SEATS)
}

#[cfg(test)]
mod tests {
    use super::seats;

    #[test]
    fn a_list_is_as_wide_as_what_it_goes_through() {
        let check = |stored, limit, selects, want| {
            assert_eq!(seats(stored, limit, selects), want, "{stored} {limit:?} {selects}");
        };
        check(0, None, false, 1);
        check(100, None, false, 1);
        check(101, None, false, 2);
        check(1_000_000, None, false, 10);
        check(1_000_000, Some(100), false, 2);
        check(1_000_000, Some(100), true, 10);
        check(50, Some(usize::MAX), false, 1);
    }
}
