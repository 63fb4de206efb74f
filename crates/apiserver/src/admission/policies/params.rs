//! Finds the objects that a binding names as parameters.

use coracle_api::kinds::Kind;
use coracle_store::{Object, Store};
use serde_json::Value;

use super::configuration::ParamRef;
use crate::{custom_resources, storage, views};

/// The parameters, one evaluation for each; a single `None` when the policy or the binding wants none.
pub(super) async fn collect(
    store: &Store,
    kind: Option<&'static Kind>,
    wanted: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let (Some(kind), Some(wanted)) = (kind, wanted) else { return Ok(vec![None]) };
    let namespace = match (kind.namespaced, wanted.namespace.as_str(), namespace) {
        (false, "", _) => "",
        (false, _, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                .to_owned());
        }
        (true, "", "") => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, "", around) => around,
        (true, named, _) => named,
    };
    let found: Vec<_> = match &wanted.selector {
        _ if !wanted.name.is_empty() => {
            store.get(&storage::key(kind, namespace, &wanted.name)).into_iter().collect()
        }
        Some(selector) => {
            let selector = selector.as_ref().map_err(Clone::clone)?;
            let listing = store.list(&storage::range(kind, namespace), None, None, None);
            let mut objects = listing.map(|listing| listing.objects).unwrap_or_default();
            objects.retain(|object| selector.matches(|key| object.attributes.label(key)));
            objects
        }
        None => return Err("one of name or selector must be provided".to_owned()),
    };
    if found.is_empty() && wanted.denies_nothing_found {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()
        );
    }
    let found = custom_resources::bring_all(kind, found).await.map_err(|status| status.message)?;
    found.iter().map(|object| read(kind, object).map(Some)).collect()
}

fn read(kind: &'static Kind, object: &Object) -> Result<Value, String> {
    let stored = storage::decode(object).map_err(|status| status.message)?;
    Ok(views::read(kind, stored))
}
