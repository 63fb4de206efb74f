//! What a YAML document says twice, which readers into maps pass over in silence.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// As many as one answer names; each costs one more reading of the text.
const MOST_NAMED: usize = 16;

/// The keys that mappings have twice, in the words of upstream's strict reader; none in a document that is not YAML.
pub(crate) fn repeated_keys(text: &[u8]) -> Option<String> {
    let keys: Vec<String> = (0..MOST_NAMED).map_while(|known| repeated_key(text, known)).collect();
    (!keys.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", keys.join("\n  ")))
}

/// The first key that a mapping has twice, after as many as are known. The reader tells a line only where it stops.
fn repeated_key(text: &[u8], known: usize) -> Option<String> {
    let repeated = RefCell::new(Repeated { known, key: None });
    let read = Node(&repeated).deserialize(serde_yaml::Deserializer::from_slice(text));
    let line = read.err()?.location()?.line();
    let key = repeated.into_inner().key?;
    Some(format!("line {line}: key {key:?} already set in map"))
}

/// Where the key is put that stops the reading.
struct Repeated {
    /// How many are passed over.
    known: usize,
    key: Option<String>,
}

/// Any value.
#[derive(Clone, Copy)]
struct Node<'a>(&'a RefCell<Repeated>);

/// A key of a mapping that has the others already.
struct Key<'a>(&'a RefCell<Repeated>, &'a mut HashSet<String>);

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
        let mut repeated = self.0.borrow_mut();
        if repeated.known > 0 {
            repeated.known -= 1;
            return Ok(());
        }
        repeated.key = Some(key.to_owned());
        Err(E::custom("a key is there twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let keys = repeated_keys(text.as_bytes()).unwrap_or_default();
        assert_eq!(keys.lines().skip(1).map(str::trim).collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn the_second_of_two_equal_keys_is_named_with_its_line() {
        let twice = "line 3: key \"b\" already set in map";
        check("\na: {x: 1, y: [1, true, ~, 1.5]}\nb: {a: 1}\n1: 2\n", &[]);
        check("a:\n  b: 1\n  b: 2\n", &[twice]);
        check("- a\n- b: 1\n  b: 2\n", &[twice]);
        check("a: b: c", &[]);
        check("", &[]);
        let both = [twice, "line 4: key \"a\" already set in map"];
        check("a:\n  b: 1\n  b: 2\na: 3\n", &both);
    }
}
