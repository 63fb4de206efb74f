//! Pod templates: when two are the same, and a name for each.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The label that tells the pods of one template of a Deployment from those of another.
pub(crate) const HASH: &str = "pod-template-hash";
/// The longest name of an object.
const LONGEST_NAME: usize = 253;

/// The template without its hash, and without the difference between empty and absent.
pub(crate) fn comparable(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH);
    }
    let mut value = serde_json::to_value(&template).unwrap_or_default();
    drop_empty_lists(&mut value);
    value
}

// An empty object may mean something (`emptyDir: {}`), an empty list never does.
fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty_lists);
            fields.retain(|name, field| match field {
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => {
                    !(fields.is_empty()
                        && matches!(name.as_str(), "labels" | "annotations" | "metadata"))
                }
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty_lists),
        _ => (),
    }
}

/// The name of what belongs to one template of `owner`.
pub(crate) fn name_with(owner: &str, hash: &str) -> String {
    let longest = LONGEST_NAME - 1 - hash.len();
    format!("{}-{hash}", &owner[..owner.len().min(longest)])
}

/// A hash that is the same whenever the template is, written in letters that cannot form words.
pub(crate) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Upstream's alphabet (apimachinery `rand.SafeEncodeString`).
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut digest = Sha256::new();
    feed(&mut digest, &comparable(template));
    if let Some(collisions) = collisions {
        digest.update(collisions.to_le_bytes());
    }
    let digest = digest.finalize();
    let mut number = String::new();
    let _ = write!(number, "{}", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    number.bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

/// Feeds a value in an order of fields that no other crate's features can change.
fn feed(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            digest.update(b"{");
            for (name, field) in sorted {
                digest.update(Value::from(name.as_str()).to_string());
                feed(digest, field);
            }
            digest.update(b"}");
        }
        Value::Array(items) => {
            digest.update(b"[");
            items.iter().for_each(|item| feed(digest, item));
            digest.update(b"]");
        }
        leaf => digest.update(format!("{leaf},")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_hash_depends_on_the_template_and_the_collisions_only() {
        let plain = template(
            json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } }),
        );
        let hashed = template(
            json!({ "metadata": { "labels": { "app": "web", HASH: "x" } }, "spec": { "containers": [] } }),
        );
        let other = template(
            json!({ "metadata": { "labels": { "app": "api" } }, "spec": { "containers": [] } }),
        );
        assert_eq!(template_hash(&plain, None), template_hash(&hashed, None));
        assert_ne!(template_hash(&plain, None), template_hash(&other, None));
        assert_ne!(template_hash(&plain, None), template_hash(&plain, Some(1)));
        // Sets of an earlier version of this program must be found again.
        assert_eq!(template_hash(&plain, None), "f75df5f4d");
    }

    #[test]
    fn names_stay_within_their_limit() {
        assert_eq!(name_with("web", "abc"), "web-abc");
        let long = "d".repeat(LONGEST_NAME);
        assert_eq!(name_with(&long, "abc").len(), LONGEST_NAME);
    }
}
