//! Paths and operations of one group-version.

use serde_json::{Map, Value, json};

use super::schemas::{name_of, v2_reference, v3_reference};
use super::{Custom, Form, META};
use crate::kinds::{self, GroupVersion, Kind, Subresource};

const OBJECT_TYPES: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAM_TYPES: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Strategic merge patches need merge keys, which only built-in kinds have.
const CUSTOM_PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// The types of patches that a kind takes.
fn patch_types(kind: &Kind) -> &'static [&'static str] {
    if kind.custom.is_some() { &CUSTOM_PATCH_TYPES } else { &PATCH_TYPES }
}

/// Name, type, and what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const READ: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Ask for watch events of type BOOKMARK."),
    ("continue", "string", "Where the next page of a list starts; taken from the previous page."),
    ("fieldSelector", "string", "Restrict the objects returned by their fields."),
    ("labelSelector", "string", "Restrict the objects returned by their labels."),
    ("limit", "integer", "The largest number of objects to return in one page."),
    ("resourceVersion", "string", "The version from which on the request may be served."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to a list."),
    (
        "sendInitialEvents",
        "boolean",
        "Start a watch with an event for each object that exists, then a bookmark.",
    ),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Answer with a stream of changes instead of a list."),
];
const WRITE: [Parameter; 3] = [
    (
        "dryRun",
        "string",
        "With 'All', all stages of the request are processed, but nothing is persisted.",
    ),
    ("fieldManager", "string", "The name of the actor or entity that makes the change."),
    (
        "fieldValidation",
        "string",
        "What to do about unknown or duplicate fields: Ignore, Warn or Strict.",
    ),
];
const FORCE: Parameter =
    ("force", "boolean", "Take over fields that other managers own; for apply patches only.");
const DELETE: [Parameter; 5] = [
    WRITE[0],
    (
        "gracePeriodSeconds",
        "integer",
        "How long the object may take to end; zero deletes it at once.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that can no longer be read from storage.",
    ),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    (
        "propagationPolicy",
        "string",
        "What happens to dependents: Orphan, Background or Foreground.",
    ),
];
const LOG: [Parameter; 9] = [
    ("container", "string", "The container; the only one by default."),
    ("follow", "boolean", "Go on with new lines as they are written."),
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Do not verify the serving certificate of the node.",
    ),
    ("limitBytes", "integer", "The largest number of bytes to return."),
    ("previous", "boolean", "The logs of the previous instance of the container."),
    ("sinceSeconds", "integer", "Only lines newer than so many seconds."),
    ("stream", "string", "All, Stdout or Stderr."),
    ("tailLines", "integer", "The number of lines from the end to start with."),
    ("timestamps", "boolean", "Put the time before each line."),
];
const EXEC: [Parameter; 6] = [
    ("command", "string", "The command to run; once for each argument."),
    ("container", "string", "The container; the only one by default."),
    ("stderr", "boolean", "Redirect the standard error stream."),
    ("stdin", "boolean", "Redirect the standard input stream."),
    ("stdout", "boolean", "Redirect the standard output stream."),
    ("tty", "boolean", "Allocate a terminal."),
];
const PORT_FORWARD: [Parameter; 1] = [("ports", "integer", "The ports to forward.")];
const PROXY: [Parameter; 1] = [("path", "string", "The path of the proxied request.")];

/// The paths of a group-version.
pub(super) fn of(
    served: GroupVersion,
    form: Form,
    definitions: &Map<String, Value>,
    custom: &Custom,
) -> Map<String, Value> {
    let mut paths = Map::new();
    let root = kinds::root_path(served.group, served.version);
    let writer = Writer { form, served, definitions };
    paths.insert(format!("{root}/"), json!({ "get": writer.resources() }));
    for kind in custom.all().filter(|kind| kind.group_version() == served) {
        writer.kind(kind, &root, &mut paths);
    }
    paths
}

struct Writer<'a> {
    form: Form,
    served: GroupVersion,
    definitions: &'a Map<String, Value>,
}

/// One operation before it is written out.
struct Operation<'a> {
    /// The verb, as `x-kubernetes-action` names it.
    action: &'static str,
    id: String,
    description: String,
    parameters: Vec<Parameter>,
    /// Name of the definition of the request's body, with the types it may have.
    body: Option<(String, &'a [&'a str])>,
    /// Name of the definition of the answer; none for streams and text.
    answer: Option<String>,
    kind: (&'a str, &'a str, &'a str),
}

impl Writer<'_> {
    fn resources(&self) -> Value {
        let mut operation = self.write(Operation {
            action: "get",
            id: format!("get{}APIResources", self.group_name()),
            description: "get available resources".to_owned(),
            parameters: Vec::new(),
            body: None,
            answer: Some(format!("{META}.APIResourceList")),
            kind: ("", "", ""),
        });
        if let Some(operation) = operation.as_object_mut() {
            operation.remove("x-kubernetes-action");
            operation.remove("x-kubernetes-group-version-kind");
        }
        operation
    }

    fn kind(&self, kind: &Kind, root: &str, paths: &mut Map<String, Value>) {
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{scope}/{}", kind.plural);
        let item = format!("{collection}/{{name}}");
        let place = if kind.namespaced { vec!["namespace"] } else { vec![] };
        let named: Vec<&str> = ["name"].into_iter().chain(place.iter().copied()).collect();
        let mut insert = |path: String, in_path: &[&str], operations: Vec<(&str, Value)>| {
            if operations.is_empty() {
                return;
            }
            let mut operations: Map<String, Value> = operations
                .into_iter()
                .map(|(method, operation)| (method.to_owned(), operation))
                .collect();
            operations.insert("parameters".to_owned(), self.path_parameters(in_path));
            paths.insert(path, operations.into());
        };
        if kind.namespaced && kind.allows("list") {
            let everywhere = self.main(kind, "list", "ForAllNamespaces");
            insert(format!("{root}/{}", kind.plural), &[], vec![("get", everywhere)]);
        }
        let scoped = if kind.namespaced { "Namespaced" } else { "" };
        let select = |pairs: &[(&'static str, &'static str)]| -> Vec<(&str, Value)> {
            let allowed = pairs.iter().filter(|(_, verb)| kind.allows(verb));
            allowed.map(|(method, verb)| (*method, self.main(kind, verb, scoped))).collect()
        };
        insert(
            collection,
            &place,
            select(&[("get", "list"), ("post", "create"), ("delete", "deletecollection")]),
        );
        insert(
            item.clone(),
            &named,
            select(&[("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")]),
        );
        for subresource in kind.subresources {
            let methods = [
                ("get", "get"),
                ("post", "create"),
                ("put", "update"),
                ("patch", "patch"),
                ("delete", "delete"),
            ];
            let allowed = methods.iter().filter(|(_, verb)| subresource.allows(verb));
            let operations = allowed
                .map(|(method, verb)| (*method, self.sub(kind, subresource, verb)))
                .collect();
            insert(format!("{item}/{}", subresource.name), &named, operations);
        }
    }

    /// An operation of the kind itself; `scope` is part of its id.
    fn main(&self, kind: &Kind, verb: &'static str, scope: &str) -> Value {
        let name = name_of(kind.group, kind.version, kind.kind).unwrap_or_default();
        let group = self.group_name();
        let (before, after) = if scope == "ForAllNamespaces" { ("", scope) } else { (scope, "") };
        let id = |word: &str| format!("{word}{group}{before}{}{after}", kind.kind);
        let parameters = |all: &[Parameter]| [&[PRETTY], all].concat();
        let object = || Some((name.clone(), ["*/*"].as_slice()));
        let options = || Some((format!("{META}.DeleteOptions"), ["*/*"].as_slice()));
        let status = || Some(format!("{META}.Status"));
        let article = kind.kind;
        let (action, id, description, parameters, body, answer) = match verb {
            "list" => {
                let text = format!("list or watch objects of kind {article}");
                ("list", id("list"), text, parameters(&READ), None, Some(format!("{name}List")))
            }
            "create" => {
                let text = format!("create a {article}");
                ("post", id("create"), text, parameters(&WRITE), object(), Some(name.clone()))
            }
            "deletecollection" => {
                let id = format!("delete{group}Collection{before}{}", kind.kind);
                let all = [&DELETE[..], &READ[1..9]].concat();
                let text = format!("delete collection of {article}");
                ("deletecollection", id, text, parameters(&all), options(), status())
            }
            "get" => {
                let text = format!("read the specified {article}");
                ("get", id("read"), text, parameters(&[]), None, Some(name.clone()))
            }
            "update" => {
                let text = format!("replace the specified {article}");
                ("put", id("replace"), text, parameters(&WRITE), object(), Some(name.clone()))
            }
            "patch" => {
                let text = format!("partially update the specified {article}");
                let all = [&WRITE[..], &[FORCE]].concat();
                let patch = Some((format!("{META}.Patch"), patch_types(kind)));
                ("patch", id("patch"), text, parameters(&all), patch, Some(name.clone()))
            }
            _ => {
                let text = format!("delete a {article}");
                ("delete", id("delete"), text, parameters(&DELETE), options(), status())
            }
        };
        let kind = (kind.group, kind.version, kind.kind);
        self.write(Operation { action, id, description, parameters, body, answer, kind })
    }

    fn sub(&self, kind: &Kind, subresource: &Subresource, verb: &'static str) -> Value {
        let name = name_of(subresource.group, subresource.version, subresource.kind)
            .filter(|name| self.definitions.contains_key(name));
        let (word, action) = match verb {
            "get" if name.is_none() => ("connectGet", "connect"),
            "create" if name.is_none() => ("connectPost", "connect"),
            "update" if name.is_none() => ("connectPut", "connect"),
            "patch" if name.is_none() => ("connectPatch", "connect"),
            "delete" if name.is_none() => ("connectDelete", "connect"),
            "get" => ("read", "get"),
            "create" => ("create", "post"),
            "update" => ("replace", "put"),
            _ => ("patch", "patch"),
        };
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        let id =
            format!("{word}{}{scope}{}{}", self.group_name(), kind.kind, camel(subresource.name));
        let is_log = subresource.name == "log";
        let parameters = match (subresource.name, verb) {
            ("log", _) => LOG.to_vec(),
            ("exec" | "attach", _) => EXEC.to_vec(),
            ("portforward", _) => PORT_FORWARD.to_vec(),
            ("proxy", _) => PROXY.to_vec(),
            (_, "patch") => [&[PRETTY], &WRITE[..], &[FORCE]].concat(),
            (_, "get") => vec![PRETTY],
            _ => [&[PRETTY], &WRITE[..]].concat(),
        };
        let body = match (verb, &name) {
            ("create" | "update", Some(name)) => Some((name.clone(), ["*/*"].as_slice())),
            ("patch", Some(_)) => Some((format!("{META}.Patch"), patch_types(kind))),
            _ => None,
        };
        let description = format!("{word} {} of the specified {}", subresource.name, kind.kind);
        let answer = if is_log { None } else { name };
        let kind = (subresource.group, subresource.version, subresource.kind);
        self.write(Operation { action, id, description, parameters, body, answer, kind })
    }

    fn write(&self, operation: Operation<'_>) -> Value {
        let (group, version, kind) = operation.kind;
        let mut written = json!({
            "tags": [self.tag()],
            "description": operation.description,
            "operationId": operation.id,
            "responses": {},
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": { "group": group, "kind": kind, "version": version },
        });
        let mut parameters: Vec<Value> = operation
            .parameters
            .iter()
            .map(|parameter| self.parameter("query", *parameter))
            .collect();
        let codes: &[&str] = match operation.action {
            "post" => &["200", "201", "202"],
            "put" | "patch" => &["200", "201"],
            "delete" => &["200", "202"],
            _ => &["200"],
        };
        for code in codes {
            written["responses"][*code] =
                self.response(code, operation.answer.as_deref(), operation.action);
        }
        written["responses"]["401"] = json!({ "description": "Unauthorized" });
        match (self.form, &operation.body) {
            (Form::V3, Some((name, types))) => {
                let schema = json!({ "schema": { "$ref": v3_reference(name) } });
                let content: Map<String, Value> =
                    types.iter().map(|media| ((*media).to_owned(), schema.clone())).collect();
                written["requestBody"] = json!({ "content": content });
                // Deleting needs no options.
                if !name.ends_with(".DeleteOptions") {
                    written["requestBody"]["required"] = true.into();
                }
            }
            (Form::V2, Some((name, types))) => {
                let mut body = json!({ "name": "body", "in": "body", "schema": { "$ref": v2_reference(name) } });
                if !name.ends_with(".DeleteOptions") {
                    body["required"] = true.into();
                }
                parameters.insert(0, body);
                written["consumes"] = json!(types);
            }
            (_, None) => (),
        }
        if self.form == Form::V2 {
            written["produces"] = json!(OBJECT_TYPES);
            written["schemes"] = json!(["https"]);
        }
        if !parameters.is_empty() {
            written["parameters"] = parameters.into();
        }
        written
    }

    fn response(&self, code: &str, answer: Option<&str>, action: &str) -> Value {
        let description = match code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        match (self.form, answer) {
            (Form::V3, Some(name)) => {
                let schema = json!({ "schema": { "$ref": v3_reference(name) } });
                let streams = if action == "list" { STREAM_TYPES.as_slice() } else { &[] };
                let types = OBJECT_TYPES.iter().chain(streams);
                let content: Map<String, Value> =
                    types.map(|media| ((*media).to_owned(), schema.clone())).collect();
                json!({ "description": description, "content": content })
            }
            (Form::V3, None) => {
                json!({ "description": description, "content": { "*/*": { "schema": { "type": "string" } } } })
            }
            (Form::V2, Some(name)) => {
                json!({ "description": description, "schema": { "$ref": v2_reference(name) } })
            }
            (Form::V2, None) => {
                json!({ "description": description, "schema": { "type": "string" } })
            }
        }
    }

    fn path_parameters(&self, names: &[&str]) -> Value {
        let describe = |name: &&str| match *name {
            "namespace" => (
                "namespace",
                "string",
                "object name and auth scope, such as for teams and projects",
            ),
            _ => ("name", "string", "name of the object"),
        };
        names.iter().map(describe).map(|parameter| self.parameter("path", parameter)).collect()
    }

    fn parameter(&self, place: &str, (name, type_, description): Parameter) -> Value {
        let mut parameter = json!({ "name": name, "in": place, "description": description });
        match self.form {
            Form::V2 => parameter["type"] = type_.into(),
            Form::V3 => parameter["schema"] = json!({ "type": type_ }),
        }
        if place == "path" {
            parameter["required"] = true.into();
        }
        if self.form == Form::V2 || place == "path" {
            match self.form {
                Form::V2 => parameter["uniqueItems"] = true.into(),
                Form::V3 => parameter["schema"]["uniqueItems"] = true.into(),
            }
        }
        parameter
    }

    /// `AppsV1`, `CoreV1`, `RbacAuthorizationV1`: part of every operation's id.
    fn group_name(&self) -> String {
        format!(
            "{}{}",
            group_words(self.served.group).iter().map(|word| camel(word)).collect::<String>(),
            camel(self.served.version)
        )
    }

    /// `apps_v1`, `rbacAuthorization_v1`.
    fn tag(&self) -> String {
        let words = group_words(self.served.group);
        let rest: String = words.iter().skip(1).map(|word| camel(word)).collect();
        format!("{}{rest}_{}", words.first().copied().unwrap_or_default(), self.served.version)
    }
}

fn group_words(group: &str) -> Vec<&str> {
    if group.is_empty() {
        return vec!["core"];
    }
    group.trim_end_matches(".k8s.io").split('.').collect()
}

fn camel(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}
