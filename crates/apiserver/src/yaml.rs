//! What a YAML document says twice, which readers into maps pass over in silence.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// The first key that a mapping has twice, in the words of upstream's strict reader; none in a document that is not YAML.
pub(crate) fn repeated_key(text: &[u8]) -> Option<String> {
    let repeated = RefCell::new(None);
    let read = Node(&repeated).deserialize(serde_yaml::Deserializer::from_slice(text));
    let line = read.err()?.location()?.line();
    let key = repeated.into_inner()?;
    Some(format!("line {line}: key {key:?} already set in map"))
}

/// Where the key is put that stops the reading.
type Repeated = RefCell<Option<String>>;

/// Any value.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Repeated);

/// A key of a mapping that has the others already.
struct Key<'a>(&'a Repeated, &'a mut HashSet<String>);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Scalars that say nothing here.
macro_rules! ignore {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: Error>(self, _: $type) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any YAML value")
    }

    ignore!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while entries.next_key_seed(Key(self.0, &mut seen))?.is_some() {
            entries.next_value_seed(self)?;
        }
        Ok(())
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    ignore!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if self.1.insert(key.to_owned()) {
            return Ok(());
        }
        *self.0.borrow_mut() = Some(key.to_owned());
        Err(E::custom("a key is there twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(repeated_key(text.as_bytes()).as_deref(), expected, "{text}");
    }

    #[test]
    fn the_second_of_two_equal_keys_is_named_with_its_line() {
        let twice = "line 3: key \"b\" already set in map";
        check("\na: {x: 1, y: [1, true, ~, 1.5]}\nb: {a: 1}\n1: 2\n", None);
        check("a:\n  b: 1\n  b: 2\n", Some(twice));
        check("- a\n- b: 1\n  b: 2\n", Some(twice));
        check("a: b: c", None);
        check("", None);
    }
}
