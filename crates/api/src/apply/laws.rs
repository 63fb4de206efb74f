//! Laws that hold for all sets, objects and histories.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let int = json!({ "type": "integer" });
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    let mut set = strings.clone();
    set["x-kubernetes-list-type"] = json!("set");
    json!({
        "type": "object",
        "properties": {
            "number": int,
            "map": { "type": "object", "additionalProperties": int },
            "whole": { "type": "object", "additionalProperties": int, "x-kubernetes-map-type": "atomic" },
            "list": strings,
            "set": set,
            "struct": { "type": "object", "properties": { "p": int, "q": int } },
            "items": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "properties": { "name": { "type": "string" }, "value": int, "more": set },
                },
            },
        },
    })
});

fn type_ref() -> TypeRef<'static> {
    TypeRef::Structural(&SCHEMA)
}

fn number() -> impl Strategy<Value = Value> {
    (0..3i64).prop_map(|number| json!(number))
}

fn words() -> impl Strategy<Value = Value> {
    prop::collection::btree_set("[abc]", 1..4).prop_shuffle_into().prop_map(|words| json!(words))
}

trait ShuffleInto {
    fn prop_shuffle_into(self) -> BoxedStrategy<Vec<String>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>> + 'static> ShuffleInto for S {
    fn prop_shuffle_into(self) -> BoxedStrategy<Vec<String>> {
        self.prop_map(|words| words.into_iter().collect::<Vec<_>>()).prop_shuffle().boxed()
    }
}

fn some(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| prop::option::of(value).prop_map(move |value| (name, value)))
        .collect();
    fields
        .prop_map(|fields| {
            let fields =
                fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(fields.collect::<Map<String, Value>>())
        })
        .boxed()
}

fn some_of_all(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    some(fields).prop_filter("not empty", |value| value != &json!({})).boxed()
}

fn object() -> BoxedStrategy<Value> {
    let numbers = |names: [&'static str; 2]| {
        some_of_all(names.into_iter().map(|name| (name, number().boxed())).collect())
    };
    let item = some(vec![("value", number().boxed()), ("more", words().boxed())]);
    let items = prop::collection::btree_map("[xyz]", item, 1..4)
        .prop_map(|items| {
            let items = items.into_iter().map(|(name, mut item)| {
                item["name"] = json!(name);
                item
            });
            items.collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(|items| json!(items));
    some(vec![
        ("number", number().boxed()),
        ("map", numbers(["k", "l"])),
        ("whole", numbers(["k", "l"])),
        ("list", words().boxed()),
        ("set", words().boxed()),
        ("struct", numbers(["p", "q"])),
        ("items", items.boxed()),
    ])
}

fn set() -> impl Strategy<Value = FieldSet> {
    object().prop_map(|value| field_set(type_ref(), &value))
}

/// One write of a history.
#[derive(Debug, Clone)]
enum Write {
    Apply { name: &'static str, config: Value, force: bool },
    Update { name: &'static str, object: Value },
}

fn write() -> impl Strategy<Value = Write> {
    let name = prop::sample::select(vec!["ann", "bob", "cyd"]);
    (name, object(), 0..3).prop_map(|(name, object, how)| match how {
        0 => Write::Update { name, object },
        how => Write::Apply { name, config: object, force: how == 1 },
    })
}

fn manager(name: &str, operation: Operation) -> Manager {
    Manager {
        name: name.to_owned(),
        operation,
        api_version: "v1".to_owned(),
        subresource: String::new(),
    }
}

fn apply_as(
    name: &str,
    live: &Value,
    managed: &Managed,
    config: &Value,
    force: bool,
) -> Result<Applied, Conflicts> {
    let (manager, ignored) = (manager(name, Operation::Apply), FieldSet::default());
    let (managed, now) = (managed.clone(), "2026-01-01T00:00:00Z");
    let ignored = &ignored;
    apply(Apply { type_ref: type_ref(), live, config, managed, manager, force, ignored, now })
}

/// The state after some writes; those that conflict change nothing.
fn play(writes: &[Write]) -> (Value, Managed) {
    let (mut object, mut managed) = (json!({}), Managed::default());
    for write in writes {
        match write {
            Write::Apply { name, config, force } => {
                if let Ok(applied) = apply_as(name, &object, &managed, config, *force) {
                    (object, managed) = (applied.object, applied.managed);
                }
            }
            Write::Update { name, object: new } => {
                let manager = manager(name, Operation::Update);
                let entries = managed.to_json().and_then(|list| list.as_array().cloned());
                let entries = record_update(
                    type_ref(),
                    &object,
                    new,
                    entries.unwrap_or_default(),
                    &manager,
                    &FieldSet::default(),
                    "2026-01-01T00:00:00Z",
                );
                managed = Managed::read(&json!(entries)).unwrap();
                object = new.clone();
            }
        }
    }
    (object, managed)
}

proptest! {
    #[test]
    fn sets_are_sets(a in set(), b in set(), c in set()) {
        prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
        prop_assert_eq!(a.clone().union(&b).union(&c), a.clone().union(&b.clone().union(&c)));
        prop_assert_eq!(a.clone().union(&a), a.clone());
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.intersection(&a), a.clone());
        prop_assert!(a.clone().difference(&a).is_empty());
        prop_assert!(a.clone().difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.clone().difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(
            a.clone().difference(&b.clone().union(&c)),
            a.clone().difference(&b).difference(&c)
        );
        prop_assert!(a.clone().union(&b).contains(&a));
        prop_assert_eq!(a.clone().contains(&b), b.clone().difference(&a).is_empty());
        prop_assert!(a.clone().outside(&b).intersection(&b).is_empty());
    }

    #[test]
    fn sets_survive_their_json(a in set(), b in set()) {
        let json = a.to_json();
        prop_assert_eq!(FieldSet::from_json(&json), Some(a.clone()));
        prop_assert_eq!(b.touches_json(&json), !a.intersection(&b).is_empty());
        prop_assert_eq!(b.is_within_json(&json), a.contains(&b));
    }

    #[test]
    fn nothing_differs_from_itself(a in object(), b in object()) {
        prop_assert_eq!(compare(type_ref(), &a, &a), Comparison::default());
        let (there, back) = (compare(type_ref(), &a, &b), compare(type_ref(), &b, &a));
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(there.modified, back.modified);
    }

    #[test]
    fn merging_twice_is_merging_once(live in object(), config in object()) {
        let once = merge(type_ref(), &live, &config);
        prop_assert_eq!(&merge(type_ref(), &once, &config), &once);
        prop_assert_eq!(&merge(type_ref(), &live, &live), &live);
        let left = compare(type_ref(), &once, &merge(type_ref(), &json!({}), &config));
        prop_assert!(left.added.is_empty() && left.modified.is_empty());
    }

    #[test]
    fn applying_twice_is_applying_once(writes in prop::collection::vec(write(), 0..5), config in object()) {
        let (object, managed) = play(&writes);
        let once = apply_as("ann", &object, &managed, &config, true).unwrap();
        let twice = apply_as("ann", &once.object, &once.managed, &config, false);
        prop_assert_eq!(twice, Ok(once));
    }

    #[test]
    fn who_applies_owns_just_that(writes in prop::collection::vec(write(), 0..5), config in object()) {
        let (object, managed) = play(&writes);
        let applied = apply_as("ann", &object, &managed, &config, true).unwrap();
        let owned = applied.managed.of(&manager("ann", Operation::Apply)).unwrap();
        prop_assert_eq!(&owned.fields, &field_set(type_ref(), &config));
        // Whoever still owns a field agrees about it.
        let taken = compare(type_ref(), &object, &applied.object).taken();
        for entry in applied.managed.0.iter().filter(|entry| entry.manager.name != "ann") {
            prop_assert!(entry.fields.intersection(&taken).is_empty());
        }
    }

    #[test]
    fn a_conflict_is_a_change_of_what_another_wants(writes in prop::collection::vec(write(), 0..5), config in object()) {
        let (object, managed) = play(&writes);
        let forced = apply_as("dan", &object, &managed, &config, true).unwrap();
        let taken = compare(type_ref(), &object, &forced.object).taken();
        let expected = managed.0.iter().any(|entry| !entry.fields.intersection(&taken).is_empty());
        prop_assert_eq!(apply_as("dan", &object, &managed, &config, false).is_err(), expected);
    }

    #[test]
    fn nobody_owns_what_is_not_there(writes in prop::collection::vec(write(), 0..6)) {
        let (object, managed) = play(&writes);
        let there = compare(type_ref(), &json!({}), &object).added.union(&field_set(type_ref(), &object));
        for entry in &managed.0 {
            prop_assert!(there.contains(&entry.fields), "{:?} is not within {}", entry, object);
        }
    }

    #[test]
    fn what_only_one_wanted_goes_with_the_wish(config in object(), other in object()) {
        let first = apply_as("ann", &json!({}), &Managed::default(), &config, false).unwrap();
        let nothing = apply_as("ann", &first.object, &first.managed, &json!({}), false).unwrap();
        prop_assert_eq!(&nothing.object, &json!({}));
        prop_assert_eq!(&nothing.managed.to_json(), &None);

        // What both want stays for the other.
        let both = apply_as("bob", &first.object, &first.managed, &other, true).unwrap();
        let left = apply_as("ann", &both.object, &both.managed, &json!({}), false).unwrap();
        let wanted = merge(type_ref(), &left.object, &other);
        prop_assert_eq!(wanted, left.object);
    }

    #[test]
    fn books_are_kept_in_one_form(writes in prop::collection::vec(write(), 0..6)) {
        let (_, managed) = play(&writes);
        let json = managed.to_json();
        let again = json.as_ref().map(|json| Managed::read(json).unwrap()).unwrap_or_default();
        prop_assert_eq!(again.to_json(), json);
    }
}
