//! Putting what somebody wants into an object.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::types::{Atom, Entries, Items, TypeRef};

/// `live` with everything that `config` says; what `config` does not mention stays.
pub fn merge(type_ref: TypeRef<'_>, live: &Value, config: &Value) -> Value {
    match (type_ref.resolve(config), live, config) {
        (Atom::Map(entries), Value::Object(live), Value::Object(config)) => {
            Value::Object(merge_entries(&entries, live, config))
        }
        (Atom::List(items), Value::Array(live), Value::Array(config))
            if !live.is_empty() || !config.is_empty() =>
        {
            Value::Array(merge_items(&items, live, config))
        }
        _ => config.clone(),
    }
}

fn merge_entries(
    entries: &Entries<'_>,
    live: &Map<String, Value>,
    config: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = live.clone();
    for (name, wanted) in config {
        let value = match live.get(name) {
            Some(there) => merge(entries.child(name).type_ref, there, wanted),
            None => wanted.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged
}

/// The items that the config names come in its order; the others stay where they were relative to those.
fn merge_items(items: &Items<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let (live_names, config_names) = (items.elements(live), items.elements(config));
    let places = |names: &[String]| -> HashMap<String, usize> {
        names.iter().enumerate().rev().map(|(place, name)| (name.clone(), place)).collect()
    };
    let (in_live, in_config) = (places(&live_names), places(&config_names));
    let mut shared = config_names.iter().filter(|name| in_live.contains_key(*name));
    let mut next_shared = shared.next();
    let merged_item = |place: usize| match in_live.get(&config_names[place]) {
        Some(&there) => merge(items.item, &live[there], &config[place]),
        None => config[place].clone(),
    };
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut left, mut right) = (0, 0);
    while left < live.len() || right < config.len() {
        if left < live.len() {
            let name = &live_names[left];
            if !in_config.contains_key(name) {
                merged.push(live[left].clone());
                left += 1;
                continue;
            }
            // It is the config's: it comes where the config has it.
            let is_next = right < config.len() && *name == config_names[right];
            if !is_next && next_shared != Some(name) {
                left += 1;
                continue;
            }
        }
        if right < config.len() {
            let name = &config_names[right];
            merged.push(merged_item(right));
            if left < live.len() && live_names[left] == *name {
                left += 1;
            }
            right += 1;
            if next_shared == Some(name) {
                next_shared = shared.next();
            }
        } else {
            left += 1;
        }
    }
    merged
}
