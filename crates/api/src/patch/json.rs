//! RFC 6902, with what the library that upstream uses (evanphx/json-patch, version 4) makes of it: its error messages, its indexes
//! counted from the end (`-1`), its bounds. The crate `json-patch` has neither of them.

use serde_json::Value;

use super::PatchError;

/// As upstream: more operations than this are no patch but a program.
const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations together may write, as upstream: without it, a patch doubles an object with each line.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

pub(super) fn apply(mut document: Value, patch: &Value) -> Result<Value, PatchError> {
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
        apply_one(&mut document, operation, &mut copied_bytes)?;
    }
    Ok(document)
}

fn apply_one(
    document: &mut Value,
    operation: &Value,
    copied_bytes: &mut usize,
) -> Result<(), PatchError> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str);
    let path =
        text("path").ok_or_else(|| malformed("operation missing path field: missing value"))?;
    let value = operation.get("value");
    let needed =
        || value.cloned().ok_or_else(|| malformed("operation missing value field: missing value"));
    let from =
        || text("from").ok_or_else(|| malformed("operation missing from field: missing value"));
    match text("op").unwrap_or_default() {
        "add" => add(document, path, needed()?),
        "remove" => remove(document, path),
        "replace" => replace(document, path, needed()?),
        "move" => shift(document, from()?, path),
        "copy" => copy(document, from()?, path, copied_bytes),
        "test" => test(document, path, value.unwrap_or(&Value::Null)),
        other => Err(PatchError::Inapplicable(format!("Unexpected kind: {other}"))),
    }
}

fn malformed(what: &str) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {what}"))
}

/// What is wrong, and what the library calls it at the end.
fn refused(what: &str, cause: &str) -> PatchError {
    PatchError::Inapplicable(format!("{what}: {cause}"))
}

const MISSING: &str = "missing value";

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let Some((container, key)) = parent(document, path) else {
        let what = format!("add operation does not apply: doc is missing path: \"{path}\"");
        return Err(refused(&what, MISSING));
    };
    put(container, &key, value)
        .map_err(|cause| refused(&format!("error in add for path: '{path}'"), &cause))
}

fn remove(document: &mut Value, path: &str) -> Result<(), PatchError> {
    let Some((container, key)) = parent(document, path) else {
        let what = format!("remove operation does not apply: doc is missing path: \"{path}\"");
        return Err(refused(&what, MISSING));
    };
    let taken = take(container, &key);
    taken.map(drop).map_err(|cause| refused(&format!("error in remove for path: '{path}'"), &cause))
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let missing = |what: &str| {
        let what = format!("replace operation does not apply: doc is missing {what}: {path}");
        refused(&what, MISSING)
    };
    let (container, key) = parent(document, path).ok_or_else(|| missing("path"))?;
    match child_mut(container, &key) {
        Some(place) => {
            *place = value;
            Ok(())
        }
        None => Err(missing("key")),
    }
}

fn shift(document: &mut Value, from: &str, path: &str) -> Result<(), PatchError> {
    let Some((container, key)) = parent(document, from) else {
        let what = format!("move operation does not apply: doc is missing from path: {from}");
        return Err(refused(&what, MISSING));
    };
    let moved = take(container, &key)
        .map_err(|cause| refused(&format!("error in move for path: '{key}'"), &cause))?;
    let Some((container, key)) = parent(document, path) else {
        let what =
            format!("move operation does not apply: doc is missing destination path: {path}");
        return Err(refused(&what, MISSING));
    };
    put(container, &key, moved)
        .map_err(|cause| refused(&format!("error in move for path: '{path}'"), &cause))
}

fn copy(
    document: &mut Value,
    from: &str,
    path: &str,
    copied_bytes: &mut usize,
) -> Result<(), PatchError> {
    let found = if from.is_empty() {
        document.clone()
    } else {
        let Some((container, key)) = parent(document, from) else {
            let what = format!("copy operation does not apply: doc is missing from path: {from}");
            return Err(refused(&what, MISSING));
        };
        child_mut(container, &key).cloned().ok_or_else(|| {
            let what = format!("error in copy for from: '{from}'");
            refused(&what, &absent("unable to get", container, &key))
        })?
    };
    let Some((container, key)) = parent(document, path) else {
        let what =
            format!("copy operation does not apply: doc is missing destination path: {path}");
        return Err(refused(&what, MISSING));
    };
    *copied_bytes += found.to_string().len();
    if *copied_bytes > MAX_COPIED_BYTES {
        return Err(PatchError::TooLarge(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the limit \
             {MAX_COPIED_BYTES}"
        )));
    }
    put(container, &key, found)
        .map_err(|cause| refused("error while adding value during copy", &cause))
}

fn test(document: &mut Value, path: &str, wanted: &Value) -> Result<(), PatchError> {
    let found = if path.is_empty() {
        Some(&*document)
    } else {
        let Some((container, key)) = parent(document, path) else {
            let what = format!("test operation does not apply: is missing path: {path}");
            return Err(refused(&what, MISSING));
        };
        child_mut(container, &key).map(|found| &*found)
    };
    // An absent member equals null.
    if found.unwrap_or(&Value::Null) == wanted {
        return Ok(());
    }
    Err(refused(&format!("testing value {path} failed"), "test failed"))
}

/// The list or object that holds the last part of the path, and that part. A path begins with a slash.
fn parent<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (way, key) =
        path.strip_prefix('/').map(|path| path.rsplit_once('/').unwrap_or(("", path)))?;
    let is_direct = path.matches('/').count() == 1;
    let mut place = document;
    if !is_direct {
        for part in way.split('/') {
            place = child_mut(place, &unescape(part))?;
        }
    }
    matches!(place, Value::Object(_) | Value::Array(_)).then(|| (place, unescape(key)))
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn child_mut<'a>(container: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match container {
        Value::Object(object) => object.get_mut(key),
        Value::Array(list) => {
            let index = index(key, list.len()).ok()?;
            list.get_mut(index)
        }
        _ => None,
    }
}

/// Puts the value into an object, or before an item of a list.
fn put(container: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match container {
        Value::Object(object) => {
            object.insert(key.to_owned(), value);
            Ok(())
        }
        Value::Array(list) if key == "-" => {
            list.push(value);
            Ok(())
        }
        Value::Array(list) => {
            // One more place than items: after the last.
            let index = index(key, list.len() + 1)?;
            list.insert(index, value);
            Ok(())
        }
        _ => Err(MISSING.to_owned()),
    }
}

fn take(container: &mut Value, key: &str) -> Result<Value, String> {
    let why = absent("Unable to remove", container, key);
    match container {
        Value::Object(object) => object.remove(key).ok_or(why),
        Value::Array(list) => index(key, list.len()).map(|index| list.remove(index)),
        _ => Err(why),
    }
}

fn absent(what: &str, container: &Value, key: &str) -> String {
    match container {
        Value::Array(list) => index(key, list.len()).err().unwrap_or_default(),
        _ => format!("{what} nonexistent key: {key}: {MISSING}"),
    }
}

/// The place that a number means, below the number of places; negative ones are counted from the end.
fn index(key: &str, places: usize) -> Result<usize, String> {
    let number: i64 =
        key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let count = i64::try_from(places).unwrap_or(i64::MAX);
    let from_start = if number < 0 { number + count } else { number };
    usize::try_from(from_start).ok().filter(|index| *index < places).ok_or_else(|| {
        format!("Unable to access invalid index: {number}: invalid index referenced")
    })
}
