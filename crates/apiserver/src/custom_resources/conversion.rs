//! Objects from one version of their definition to another: by a new `apiVersion`, or by a webhook.
//!
//! Start reading at [`bring`], which every reader goes through, and at [`to_storage`], which every writer does. As upstream:
//! what is stored gets the defaults of the version in which it is stored, is converted, and loses what the wanted version does not
//! know. A webhook is asked about many objects at once, and what lists and watches showed is kept for a while, so that a hundred
//! watchers of one version cost one question for each change.

mod configuration;
mod review;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::kinds::{Kind, api_version};
use coracle_api::status::{Reason, Status};
use coracle_store::{Key, Object, Revision};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::definition::definition_of;
use super::schema::Node;
use super::values;
use crate::answer::Answer;
use crate::extension::{Destination, Extensions, ReviewVersion};
use crate::{limits, object, storage};
pub(super) use configuration::validate;

/// How objects of one definition are converted; shared by its versions.
pub(crate) struct Conversion {
    /// What stored objects say.
    pub(crate) storage_api_version: String,
    /// The schema of each version, by `apiVersion`, served or not.
    schemas: HashMap<String, Arc<Node>>,
    keeps_unknown: bool,
    /// Who converts, when versions differ in more than their name.
    hook: Option<Hook>,
    shown: Mutex<Kept>,
}

struct Hook {
    /// Nobody, where nothing can be called: in tests of other things.
    client: Option<Extensions>,
    /// Or why it cannot be called.
    destination: Result<Destination, String>,
    /// None when it speaks no version of the review that we do.
    version: Option<ReviewVersion>,
}

/// What was converted for lists and watches: by object and wanted version.
#[derive(Default)]
struct Kept {
    objects: HashMap<(Key, &'static str), (Revision, Arc<Object>)>,
    bytes: usize,
}

/// A stored object in the version of `kind`, as the webhook has it now. Other objects are left as they are.
pub(crate) async fn bring(kind: &'static Kind, stored: Arc<Object>) -> Answer<Arc<Object>> {
    let Some(definition) = definition_of(kind).filter(|it| it.conversion.is_by_webhook()) else {
        return Ok(stored);
    };
    let brought = definition.conversion.show(kind, std::slice::from_ref(&stored)).await?;
    Ok(brought.into_iter().next().unwrap_or(stored))
}

/// [`bring`] for many, which may come out of memory.
pub(crate) async fn bring_all(
    kind: &'static Kind,
    stored: Vec<Arc<Object>>,
) -> Answer<Vec<Arc<Object>>> {
    let Some(definition) = definition_of(kind).filter(|it| it.conversion.is_by_webhook()) else {
        return Ok(stored);
    };
    let conversion = &definition.conversion;
    let mut brought: Vec<_> = stored.iter().map(|object| conversion.kept(kind, object)).collect();
    let missing: Vec<Arc<Object>> = brought
        .iter()
        .zip(&stored)
        .filter(|(found, _)| found.is_none())
        .map(|(_, object)| object.clone())
        .collect();
    let mut shown = conversion.show(kind, &missing).await?.into_iter();
    for place in brought.iter_mut().filter(|place| place.is_none()) {
        *place = shown.next();
        if let Some(object) = place {
            conversion.keep(kind, object);
        }
    }
    Ok(brought.into_iter().flatten().collect())
}

/// Whether readers of this kind have to wait for a webhook.
pub(crate) fn is_by_webhook(kind: &Kind) -> bool {
    definition_of(kind).is_some_and(|definition| definition.conversion.is_by_webhook())
}

/// A stored object, decoded and in the shape of this kind's version.
pub(crate) async fn decoded(kind: &'static Kind, stored: Arc<Object>) -> Answer<Value> {
    let mut object = storage::decode(&*bring(kind, stored).await?)?;
    super::read(kind, &mut object);
    Ok(object)
}

/// An object of any version of its definition, in the version of `kind`.
pub(crate) async fn convert(kind: &'static Kind, object: Value) -> Answer<Value> {
    match definition_of(kind) {
        Some(definition) => definition.conversion.convert_one(object, kind.api_version).await,
        None => Ok(object),
    }
}

/// The object in the version in which it is to be stored.
pub(crate) async fn to_storage<'a>(
    kind: &'static Kind,
    object: &'a Value,
) -> Answer<Cow<'a, Value>> {
    let Some(definition) = definition_of(kind) else { return Ok(Cow::Borrowed(object)) };
    let conversion = &definition.conversion;
    let to = conversion.storage_api_version.as_str();
    if object["apiVersion"] == to {
        return Ok(Cow::Borrowed(object));
    }
    conversion.convert_one(object.clone(), to).await.map(Cow::Owned)
}

/// Whether an object must be written again because it is stored in another version than new ones.
pub(crate) fn is_stale(kind: &'static Kind, stored: &Object) -> bool {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(rename = "apiVersion", borrow)]
        api_version: Cow<'a, str>,
    }
    let Some(definition) = definition_of(kind) else { return false };
    let wanted = &definition.conversion.storage_api_version;
    serde_json::from_slice::<Head<'_>>(&stored.bytes)
        .is_ok_and(|head| head.api_version != wanted.as_str())
}

impl Conversion {
    /// Reads what a definition says about all its versions.
    pub(super) fn read(definition: &Value, client: Option<Extensions>) -> Self {
        let spec = &definition["spec"];
        let group = spec["group"].as_str().unwrap_or_default();
        let name =
            |version: &Value| api_version(group, version["name"].as_str().unwrap_or_default());
        let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let stored = versions.iter().find(|version| version["storage"] == true);
        let webhook = &spec["conversion"]["webhook"];
        let hook = || Hook {
            client,
            destination: Destination::of_webhook(&webhook["clientConfig"])
                .map_err(|error| error.to_string()),
            version: ReviewVersion::choose(&object::strings(
                webhook.get("conversionReviewVersions"),
            )),
        };
        let schema = |version: &Value| Node::read(&version["schema"]["openAPIV3Schema"]);
        Self {
            storage_api_version: stored.map(name).unwrap_or_default(),
            schemas: versions.iter().map(|each| (name(each), Arc::new(schema(each)))).collect(),
            keeps_unknown: spec["preserveUnknownFields"] == true,
            hook: (spec["conversion"]["strategy"] == "Webhook").then(hook),
            shown: Mutex::default(),
        }
    }

    /// The schema of a version.
    pub(super) fn schema(&self, api_version: &str) -> Option<&Arc<Node>> {
        self.schemas.get(api_version)
    }

    const fn is_by_webhook(&self) -> bool {
        self.hook.is_some()
    }

    /// Gives a stored object the defaults of the version in which it is stored, and that version's fields alone.
    pub(super) fn complete(&self, stored: &mut Value) {
        let version = stored["apiVersion"].as_str().unwrap_or_default().to_owned();
        let Some(schema) = self.schemas.get(&version) else { return };
        if !self.keeps_unknown {
            values::prune(stored, schema);
        }
        values::default(stored, schema);
    }

    /// Takes out what this version does not know.
    fn trim(&self, object: &mut Value, api_version: &str) {
        if let Some(schema) = self.schemas.get(api_version).filter(|_| !self.keeps_unknown) {
            values::prune(object, schema);
        }
    }

    /// What is stored, as readers of this kind see it.
    async fn show(&self, kind: &'static Kind, stored: &[Arc<Object>]) -> Answer<Vec<Arc<Object>>> {
        let mut objects = Vec::with_capacity(stored.len());
        for object in stored {
            let mut object = storage::decode(object)?;
            self.complete(&mut object);
            objects.push(object);
        }
        let objects = self.convert(objects, kind.api_version).await?;
        let shown = objects.iter().zip(stored).map(|(object, stored)| {
            Arc::new(Object {
                key: stored.key.clone(),
                revision: stored.revision,
                created_revision: stored.created_revision,
                bytes: Bytes::from(object.to_string()),
                attributes: storage::attributes_of(kind, object),
            })
        });
        Ok(shown.collect())
    }

    async fn convert_one(&self, object: Value, to: &str) -> Answer<Value> {
        if object["apiVersion"] == to {
            return Ok(object);
        }
        let converted = self.convert(vec![object], to).await?;
        converted.into_iter().next().ok_or_else(|| Status::internal("nothing was converted"))
    }

    /// Converts those of the objects that are in another version.
    async fn convert(&self, mut objects: Vec<Value>, to: &str) -> Answer<Vec<Value>> {
        let Some(hook) = &self.hook else {
            for object in &mut objects {
                object["apiVersion"] = json!(to);
                self.trim(object, to);
            }
            return Ok(objects);
        };
        let wanted: Vec<usize> =
            (0..objects.len()).filter(|&index| objects[index]["apiVersion"] != to).collect();
        for batch in batches(&objects, &wanted) {
            let originals: Vec<&Value> = batch.iter().map(|&index| &objects[index]).collect();
            let converted = hook.ask(&originals, to).await?;
            for (&index, mut object) in batch.iter().zip(converted) {
                self.trim(&mut object, to);
                objects[index] = object;
            }
        }
        Ok(objects)
    }

    fn kept(&self, kind: &'static Kind, object: &Object) -> Option<Arc<Object>> {
        let kept = self.shown.lock();
        let (revision, shown) = kept.objects.get(&(object.key.clone(), kind.api_version))?;
        (*revision == object.revision).then(|| shown.clone())
    }

    fn keep(&self, kind: &'static Kind, object: &Arc<Object>) {
        let mut kept = self.shown.lock();
        if kept.bytes + object.bytes.len() > limits::CONVERTED_BYTES {
            // What is still wanted comes back soon.
            *kept = Kept::default();
        }
        kept.bytes += object.bytes.len();
        let place = (object.key.clone(), kind.api_version);
        let before = kept.objects.insert(place, (object.revision, object.clone()));
        kept.bytes -= before.map_or(0, |(_, before)| before.bytes.len());
    }
}

/// Cuts what is to be converted into questions of a bounded size.
fn batches(objects: &[Value], wanted: &[usize]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut bytes = 0;
    for &index in wanted {
        let size = objects[index].to_string().len();
        bytes += size;
        match batches.last_mut() {
            Some(batch)
                if bytes <= limits::CONVERSION_BYTES
                    && batch.len() < limits::CONVERSION_OBJECTS =>
            {
                batch.push(index);
            }
            _ => {
                bytes = size;
                batches.push(vec![index]);
            }
        }
    }
    batches
}

impl Hook {
    /// Asks the webhook for these objects in another version.
    async fn ask(&self, originals: &[&Value], to: &str) -> Answer<Vec<Value>> {
        let text = |field: &str| {
            originals.first().and_then(|object| object[field].as_str()).unwrap_or_default()
        };
        let what = review::gvk(text("apiVersion"), text("kind"));
        let told = |why: String| {
            let message = format!("conversion webhook for {what} {why}");
            Status::new(500, Reason::Unknown, message)
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let answered = self.answered(&uid, originals, to).await;
        let converted = answered.map_err(|why| told(format!("failed: {why}")))?;
        let (found, expected) = (converted.len(), originals.len());
        if found != expected {
            return Err(told(format!("returned {found} objects, expected {expected}")));
        }
        let accepted = converted.into_iter().zip(originals).enumerate();
        let accepted = accepted.map(|(index, (converted, original))| {
            review::accept(original, converted, to)
                .map_err(|fault| told(format!("returned {}", fault.message(index, expected))))
        });
        accepted.collect()
    }

    async fn answered(
        &self,
        uid: &str,
        originals: &[&Value],
        to: &str,
    ) -> Result<Vec<Value>, String> {
        let version = self.version.ok_or("no supported conversion review versions")?;
        let client = self.client.as_ref().ok_or("nothing outside can be called")?;
        let destination = self.destination.as_ref().map_err(Clone::clone)?;
        let question = Bytes::from(review::question(version, uid, originals, to).to_string());
        let answer = client.ask(destination, question, limits::CONVERSION_TIMEOUT).await;
        review::answered(version, uid, &answer.map_err(|error| error.to_string())?)
    }
}

impl std::fmt::Debug for Conversion {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Conversion")
            .field("storage_api_version", &self.storage_api_version)
            .field("is_by_webhook", &self.is_by_webhook())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_a_bounded_size() {
        let large = json!("x".repeat(limits::CONVERSION_BYTES / 2 + 1));
        let objects = [json!(1), large.clone(), json!(2), large, json!(3)];
        assert_eq!(batches(&objects, &[0, 1, 2, 3, 4]), [vec![0, 1, 2], vec![3, 4]]);
        let many = vec![json!(1); limits::CONVERSION_OBJECTS + 1];
        let wanted: Vec<usize> = (0..many.len()).collect();
        assert_eq!(batches(&many, &wanted)[1], [limits::CONVERSION_OBJECTS]);
    }
}
