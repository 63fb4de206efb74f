//! RFC 6902, with the error messages of the library that upstream uses (evanphx/json-patch).

use serde_json::Value;

use super::PatchError;

/// As upstream: more operations than this are no patch but a program.
const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations together may write, as upstream: without it, a patch doubles an object with each line.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

pub(super) fn apply(mut document: Value, patch: &Value) -> Result<Value, PatchError> {
    let malformed = |what: &str| PatchError::Malformed(format!("error decoding patch: {what}"));
    let operations = patch.as_array().ok_or_else(|| {
        malformed("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    })?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut copied_bytes = 0;
    for operation in operations {
        let text = |key: &str| operation.get(key).and_then(Value::as_str);
        let kind = text("op").unwrap_or_default();
        let path =
            text("path").ok_or_else(|| malformed("operation missing path field: missing value"))?;
        let value = operation.get("value");
        let needed = || {
            value.cloned().ok_or_else(|| malformed("operation missing value field: missing value"))
        };
        let from =
            || text("from").ok_or_else(|| malformed("operation missing from field: missing value"));
        match kind {
            "add" => add(&mut document, path, needed()?, "add")?,
            "remove" => drop(remove(&mut document, path, "remove")?),
            "replace" => replace(&mut document, path, needed()?)?,
            "move" => {
                let moved = remove(&mut document, from()?, "move")?;
                add(&mut document, path, moved, "move")?;
            }
            "copy" => {
                let from = from()?;
                let found =
                    find(&document, from).cloned().ok_or_else(|| missing("copy", "key", from))?;
                copied_bytes += found.to_string().len();
                if copied_bytes > MAX_COPIED_BYTES {
                    return Err(PatchError::TooLarge(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding \
                         the limit {MAX_COPIED_BYTES}"
                    )));
                }
                add(&mut document, path, found, "copy")?;
            }
            "test" => test(&document, path, value.unwrap_or(&Value::Null))?,
            other => return Err(PatchError::Inapplicable(format!("Unexpected kind: {other}"))),
        }
    }
    Ok(document)
}

fn test(document: &Value, path: &str, wanted: &Value) -> Result<(), PatchError> {
    // An absent member equals null, as in upstream's library.
    if find(document, path).unwrap_or(&Value::Null) == wanted {
        return Ok(());
    }
    Err(PatchError::Inapplicable(format!("testing value {path} failed: test failed")))
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    let Some(pointer) = pointer(path) else { return Err(missing("replace", "path", path)) };
    match document.pointer_mut(pointer) {
        Some(place) => {
            *place = value;
            Ok(())
        }
        None => Err(missing("replace", "key", path)),
    }
}

fn add(document: &mut Value, path: &str, value: Value, operation: &str) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (container, key) =
        parent(document, path).ok_or_else(|| missing(operation, "path", path))?;
    match container {
        Value::Object(object) => {
            object.insert(key, value);
            Ok(())
        }
        Value::Array(list) => {
            let index = if key == "-" { Some(list.len()) } else { index(&key) };
            match index.filter(|index| *index <= list.len()) {
                Some(index) => {
                    list.insert(index, value);
                    Ok(())
                }
                None => Err(PatchError::Inapplicable(format!(
                    "{operation} operation does not apply: error in add for path: '{path}': Unable to access invalid \
                     index: {key}: invalid index referenced"
                ))),
            }
        }
        _ => Err(missing(operation, "path", path)),
    }
}

fn remove(document: &mut Value, path: &str, operation: &str) -> Result<Value, PatchError> {
    let (container, key) =
        parent(document, path).ok_or_else(|| missing(operation, "path", path))?;
    let removed = match container {
        Value::Object(object) => object.remove(&key),
        Value::Array(list) => {
            index(&key).filter(|index| *index < list.len()).map(|index| list.remove(index))
        }
        _ => None,
    };
    removed.ok_or_else(|| missing(operation, "key", path))
}

fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    document.pointer(pointer(path)?)
}

/// The list or object that holds the last part of the path, and that part.
fn parent<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, key) = pointer(path)?.rsplit_once('/')?;
    let key = key.replace("~1", "/").replace("~0", "~");
    Some((document.pointer_mut(parent)?, key))
}

/// A path must be empty or start with a slash.
fn pointer(path: &str) -> Option<&str> {
    (path.is_empty() || path.starts_with('/')).then_some(path)
}

/// Digits without leading zeros.
fn index(key: &str) -> Option<usize> {
    if key.starts_with('+') || (key.starts_with('0') && key.len() > 1) {
        None
    } else {
        key.parse().ok()
    }
}

fn missing(operation: &str, what: &str, path: &str) -> PatchError {
    PatchError::Inapplicable(format!(
        "{operation} operation does not apply: doc is missing {what}: {path}: missing value"
    ))
}
