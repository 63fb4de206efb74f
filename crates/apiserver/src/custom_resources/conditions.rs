//! The life of a definition as its status tells it: names accepted, established, terminating. Pure.
//!
//! The rules are upstream's naming and establishing controllers
//! (<https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/apiextensions-apiserver/pkg/controller>).

use coracle_api::kinds::Kind;
use coracle_api::status::go_quote;
use serde_json::{Value, json};

use crate::object;

/// Holds a definition until its objects are gone.
pub(super) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether objects of this kind define kinds.
pub(crate) fn is_definition(kind: &Kind) -> bool {
    kind.group == "apiextensions.k8s.io" && kind.kind == "CustomResourceDefinition"
}

/// What the deletion of a definition means first: it waits for its objects.
pub(crate) fn begin_termination(definition: &mut Value) {
    let mut finalizers = object::finalizers(definition);
    if !finalizers.iter().any(|name| name == CLEANUP) {
        finalizers.push(CLEANUP.to_owned());
    }
    object::set_finalizers(definition, &finalizers);
    let message =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(definition, "Terminating", "True", "InstanceDeletionPending", message, &object::now());
}

/// Whether this definition's kinds are served.
pub(super) fn is_established(definition: &Value) -> bool {
    status_of(definition, "Established") == "True"
}

/// Whether a condition holds.
pub(super) fn status_of<'a>(definition: &'a Value, condition: &str) -> &'a str {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    let mut found = conditions.filter(|found| found["type"] == condition);
    found.next().and_then(|found| found["status"].as_str()).unwrap_or_default()
}

/// Sets a condition; the time tells when its status last changed.
pub(super) fn set(
    definition: &mut Value,
    condition: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: &str,
) {
    let wanted = json!({
        "type": condition, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    let conditions =
        object::entry_object(definition, "status").entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|found| found["type"] == condition) {
        None => conditions.push(wanted),
        Some(found) if found["status"] != status => *found = wanted,
        Some(found) => {
            found["reason"] = json!(reason);
            found["message"] = json!(message);
        }
    }
}

/// The status that a definition should have, given the others; `None` when it is as it should be.
pub(super) fn plan<'a>(
    definition: &Value,
    others: impl Iterator<Item = &'a Value>,
    now: &str,
) -> Option<Value> {
    let names = &definition["spec"]["names"];
    if *names == definition["status"]["acceptedNames"] && is_established(definition) {
        return None;
    }
    let taken = Taken::new(definition, others);
    let mut next = definition.clone();
    let mut accepted = definition["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = json!({ "plural": "", "kind": "" });
    }
    let mut conflict = None;
    for (field, reason, used) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        match taken_names(&names[field], &accepted[field], used) {
            Some(message) => conflict = Some((reason, message)),
            None => put(&mut accepted, field, &names[field]),
        }
    }
    put(&mut accepted, "categories", &names["categories"]);
    object::entry_object(&mut next, "status").insert("acceptedNames".to_owned(), accepted);
    match conflict {
        None => {
            set(&mut next, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now);
            let message = "the initial names have been accepted";
            set(&mut next, "Established", "True", "InitialNamesAccepted", message, now);
        }
        Some((reason, message)) => {
            set(&mut next, "NamesAccepted", "False", reason, &message, now);
            if !is_established(definition) {
                let message = "not all names are accepted";
                set(&mut next, "Established", "False", "NotAccepted", message, now);
            }
        }
    }
    (next["status"] != definition["status"]).then(|| next["status"].take())
}

/// The names that other definitions of the group have.
struct Taken {
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl Taken {
    fn new<'a>(definition: &Value, others: impl Iterator<Item = &'a Value>) -> Self {
        let (mut resources, mut kinds) = (Vec::new(), Vec::new());
        let group = &definition["spec"]["group"];
        for kind in coracle_api::kinds::all().iter().filter(|kind| *group == kind.group) {
            resources.extend([kind.plural.to_owned(), kind.singular.to_owned()]);
            resources.extend(kind.short_names.iter().map(|&name| name.to_owned()));
            kinds.extend([kind.kind.to_owned(), kind.list_kind.to_owned()]);
        }
        let is_other = |other: &&Value| {
            other["spec"]["group"] == *group
                && other["metadata"]["name"] != definition["metadata"]["name"]
        };
        for other in others.filter(is_other) {
            let names = &other["status"]["acceptedNames"];
            for field in ["plural", "singular", "shortNames"] {
                resources.extend(words(&names[field]));
            }
            kinds.extend(words(&names["kind"]));
            kinds.extend(words(&names["listKind"]));
        }
        Self { resources, kinds }
    }
}

/// Which of the wanted names somebody else has, in words.
fn taken_names(wanted: &Value, accepted: &Value, used: &[String]) -> Option<String> {
    let ours = words(accepted);
    let taken: Vec<String> = words(wanted)
        .into_iter()
        .filter(|name| !ours.contains(name) && used.contains(name))
        .map(|name| format!("{} is already in use", go_quote(&name)))
        .collect();
    match taken.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// The words of a text or a list of texts.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if !text.is_empty() => vec![text.clone()],
        Value::Array(_) => object::strings(Some(value)),
        _ => Vec::new(),
    }
}

fn put(object: &mut Value, field: &str, value: &Value) {
    let Some(object) = object.as_object_mut() else { return };
    if value.is_null() {
        object.remove(field);
    } else {
        object.insert(field.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({ "metadata": { "name": format!("{plural}.x.io") }, "spec": { "group": "x.io", "names": {
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List") } } })
    }

    #[test]
    fn names_are_given_to_whoever_came_first() {
        let mut first = definition("as", "A");
        first["status"] = plan(&first, std::iter::empty(), "now").unwrap();
        assert!(is_established(&first));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(plan(&first, std::iter::empty(), "later"), None);

        let mut second = definition("bs", "A");
        second["status"] = plan(&second, [&first].into_iter(), "now").unwrap();
        assert!(!is_established(&second));
        assert_eq!(second["status"]["acceptedNames"], json!({ "plural": "bs", "kind": "" }));
        let refused = &second["status"]["conditions"][0];
        assert_eq!(refused["reason"], "ListKindConflict");
        assert_eq!(refused["message"], "\"AList\" is already in use");
        // Nothing new to say.
        assert_eq!(plan(&second, [&first].into_iter(), "later"), None);
        // The names become free.
        let status = plan(&second, std::iter::empty(), "later").unwrap();
        second["status"] = status;
        assert!(is_established(&second));
    }

    #[test]
    fn an_ending_definition_waits() {
        let mut first = definition("as", "A");
        begin_termination(&mut first);
        assert_eq!(first["metadata"]["finalizers"], json!([CLEANUP]));
        assert_eq!(status_of(&first, "Terminating"), "True");
    }
}
