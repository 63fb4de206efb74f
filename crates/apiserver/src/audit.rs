//! The audit log: who asked for what, and what came of it; an event a line, in upstream's form.
//!
//! A policy says how much of which requests is recorded. What is recorded waits for a place in a bounded queue to the
//! one writer, so nothing is lost while the disk is slow, and memory stays bounded. Without a policy it costs nothing.

mod file;
mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header, request};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::authz::Decision;
use crate::identity::User;
use crate::protobuf;
use crate::request_info::RequestInfo;
use policy::{Level, Policy, Stage, Wanted};

pub use file::LogFile;

/// Events that wait for the disk; those who bring more wait themselves.
const QUEUED: usize = 4096;
/// A larger object is left out of its event: lists of thousands would drown the log.
const OBJECT_BYTES: usize = 1 << 20;
/// A client's own name for its request, if it is not longer.
const ID_CHARS: usize = 64;

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy cannot be read.
    #[error("cannot use the audit policy: {0}")]
    Policy(String),
    /// The file cannot be written.
    #[error("cannot write the audit log {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Set on requests of connections: where they come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source(pub(crate) SocketAddr);

/// Reads a policy (the file's text) and says what is wrong with it.
///
/// # Errors
/// When it cannot be used.
pub fn check_policy(policy: &str) -> Result<(), AuditError> {
    Policy::parse(policy).map(drop)
}

/// The open log.
pub struct AuditLog {
    policy: Policy,
    lines: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl AuditLog {
    /// Records by this policy (the file's text) into this file. Call it within a runtime.
    ///
    /// # Errors
    /// When the policy cannot be read or the file not be written.
    pub fn open(policy: &str, file: LogFile) -> Result<Arc<Self>, AuditError> {
        let policy = Policy::parse(policy)?;
        let path = file.path.clone();
        let writer =
            file::Writer::open(file).map_err(|source| AuditError::File { path, source })?;
        let (lines, inbox) = mpsc::channel(QUEUED);
        let writer = tokio::task::spawn_blocking(move || writer.run(inbox));
        Ok(Arc::new(Self {
            policy,
            lines: Mutex::new(Some(lines)),
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Writes what waits, and ends.
    pub(crate) async fn close(&self) {
        drop(self.lines.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // An error means that it ended by itself.
            writer.await.ok();
        }
    }

    /// Begins the record of a request, if its policy wants one.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        id: &str,
        user: &User,
        info: &RequestInfo,
        parts: &request::Parts,
    ) -> Option<Box<Record>> {
        let wanted = self.policy.wanted(user, info, parts.uri.path());
        if wanted.level == Level::None {
            return None;
        }
        let uri = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let mut event = Map::new();
        let mut tell = |field: &str, value: Value| drop(event.insert(field.to_owned(), value));
        tell("kind", "Event".into());
        tell("apiVersion", "audit.k8s.io/v1".into());
        tell("level", wanted.level.name().into());
        tell("auditID", id.into());
        tell("requestURI", uri.into());
        tell("verb", info.verb.into());
        tell("user", user_info(user));
        tell("sourceIPs", sources(parts).into());
        if let Some(agent) = text_of(&parts.headers, header::USER_AGENT.as_str()) {
            tell("userAgent", agent.into());
        }
        if let Some(object) = object_reference(info) {
            tell("objectRef", object);
        }
        tell("requestReceivedTimestamp", now().into());
        let record = Record {
            log: self.clone(),
            wanted,
            event,
            annotations: Map::new(),
            is_long_running: info.is_long_running(),
            is_started: false,
            is_ended: false,
        };
        record.write(Stage::RequestReceived).await;
        Some(Box::new(record))
    }
}

/// What is recorded of one request.
pub(crate) struct Record {
    log: Arc<AuditLog>,
    wanted: Wanted,
    event: Map<String, Value>,
    annotations: Map<String, Value>,
    is_long_running: bool,
    is_started: bool,
    is_ended: bool,
}

impl Record {
    /// Notes as whom the request is done, when that is somebody else.
    pub(crate) fn impersonated(&mut self, user: &User) {
        self.event.insert("impersonatedUser".to_owned(), user_info(user));
    }

    /// Notes whether it was allowed, and why.
    pub(crate) fn authorized(&mut self, decision: &Decision) {
        let (decision, why) = match decision {
            Decision::Allow(why) => ("allow", why.to_string()),
            Decision::NoOpinion(why) => ("forbid", why.clone()),
        };
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", &why);
    }

    /// Adds an annotation.
    pub(crate) fn annotate(&mut self, name: &str, value: &str) {
        self.annotations.insert(name.to_owned(), value.into());
    }

    /// Whether it is worth holding on to the body.
    pub(crate) fn wants_request(&self) -> bool {
        self.wanted.level >= Level::Request && !self.is_long_running
    }

    /// Notes what was sent, as JSON.
    pub(crate) fn request(&mut self, json: &[u8]) {
        if let Some(object) = self.object(json) {
            self.event.insert("requestObject".to_owned(), object);
        }
    }

    /// Notes the outcome and passes it on; an answer that goes on is noted again when it ends.
    pub(crate) async fn finish(
        mut self: Box<Self>,
        response: Response,
        panicked: bool,
    ) -> Response {
        let code = response.status();
        let mut status = json!({ "metadata": {}, "code": code.as_u16() });
        let wants_object = self.wanted.level == Level::RequestResponse || !code.is_success();
        let is_small =
            response.body().size_hint().exact().is_some_and(|bytes| bytes <= OBJECT_BYTES as u64);
        let (parts, mut body) = response.into_parts();
        if wants_object && is_small && !self.is_streamed(code) {
            let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            self.answered(code, &bytes, &mut status);
            body = Body::from(bytes);
        }
        self.event.insert("responseStatus".to_owned(), status);
        let response = Response::from_parts(parts, body);
        if panicked {
            self.write(Stage::Panic).await;
            self.is_ended = true;
            return response;
        }
        if !self.is_streamed(code) {
            self.write(Stage::ResponseComplete).await;
            self.is_ended = true;
            return response;
        }
        self.write(Stage::ResponseStarted).await;
        self.is_started = true;
        response.map(|body| Body::new(Followed { body, _record: self }))
    }

    fn is_streamed(&self, code: StatusCode) -> bool {
        self.is_long_running && (code.is_success() || code.is_informational())
    }

    fn answered(&mut self, code: StatusCode, bytes: &Bytes, status: &mut Value) {
        // The log is JSON, whatever the client reads.
        let json = protobuf::to_json(bytes).unwrap_or_else(|_| bytes.clone());
        let Some(object) = self.object(&json) else { return };
        if !code.is_success() {
            for field in ["status", "message", "reason", "details"] {
                if !object[field].is_null() {
                    status[field] = object[field].clone();
                }
            }
        }
        if self.wanted.level == Level::RequestResponse {
            self.event.insert("responseObject".to_owned(), object);
        }
    }

    fn object(&self, json: &[u8]) -> Option<Value> {
        if json.is_empty() || json.len() > OBJECT_BYTES {
            return None;
        }
        let mut object: Value = serde_json::from_slice(json).ok()?;
        if self.wanted.omit_managed_fields {
            drop_managed_fields(&mut object);
        }
        Some(object)
    }

    async fn write(&self, stage: Stage) {
        let lines = self.log.lines.lock().clone();
        if let (Some(line), Some(lines)) = (self.line(stage), lines) {
            // An error means that the log is closed: the server is ending.
            lines.send(line).await.ok();
        }
    }

    /// The event of this stage, unless the policy leaves it out.
    fn line(&self, stage: Stage) -> Option<Vec<u8>> {
        if self.wanted.omitted.contains(&stage) {
            return None;
        }
        let mut event = self.event.clone();
        event.insert("stage".to_owned(), stage.name().into());
        event.insert("stageTimestamp".to_owned(), now().into());
        if !self.annotations.is_empty() {
            event.insert("annotations".to_owned(), self.annotations.clone().into());
        }
        let mut line = Value::from(event).to_string().into_bytes();
        line.push(b'\n');
        Some(line)
    }
}

/// A request that was not answered to its end has one all the same: its client went away, or its watch is over.
impl Drop for Record {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        let lines = self.log.lines.lock().clone();
        let Some(lines) = lines else { return };
        if !self.event.contains_key("responseStatus") {
            let closed = json!({ "metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200 });
            self.event.insert("responseStatus".to_owned(), closed);
        }
        let started = self.is_long_running && !self.is_started;
        let started = started.then(|| self.line(Stage::ResponseStarted)).flatten();
        for line in started.into_iter().chain(self.line(Stage::ResponseComplete)) {
            if lines.try_send(line).is_err() {
                // Here nobody can wait.
                tracing::warn!("the audit log is full: the end of a request is not in it");
            }
        }
    }
}

/// A body whose end is noted, however it ends.
struct Followed {
    body: Body,
    _record: Box<Record>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
}

/// What the request is called in logs on both sides: what the client calls it, or a fresh name.
pub(crate) fn id(headers: &HeaderMap) -> String {
    let given = text_of(headers, "audit-id").filter(|id| !id.is_empty() && id.len() <= ID_CHARS);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Where it comes from, by those who passed it on and by the connection.
fn sources(parts: &request::Parts) -> Vec<String> {
    let forwarded = text_of(&parts.headers, "x-forwarded-for").unwrap_or_default();
    let forwarded =
        forwarded.split(',').filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok());
    let own = parts.extensions.get::<Source>().map(|Source(address)| address.ip());
    let mut sources: Vec<String> = Vec::new();
    for address in forwarded.chain(own) {
        let address = address.to_canonical().to_string();
        if !sources.contains(&address) {
            sources.push(address);
        }
    }
    if sources.is_empty() { vec!["127.0.0.1".to_owned()] } else { sources }
}

fn object_reference(info: &RequestInfo) -> Option<Value> {
    let target = info.resource.as_ref()?;
    let parts = [
        ("resource", &target.resource),
        ("namespace", &target.namespace),
        ("name", &target.name),
        ("apiGroup", &target.group),
        ("apiVersion", &target.version),
        ("subresource", &target.subresource),
    ];
    let known = parts.into_iter().filter(|(_, value)| !value.is_empty());
    Some(known.map(|(field, value)| (field.to_owned(), json!(value))).collect::<Map<_, _>>().into())
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    let mut tell = |field: &str, value: Value, is_known: bool| {
        if is_known {
            info.insert(field.to_owned(), value);
        }
    };
    tell("username", json!(user.name), !user.name.is_empty());
    tell("uid", json!(user.uid), !user.uid.is_empty());
    tell("groups", json!(user.groups), !user.groups.is_empty());
    tell("extra", json!(user.extra), !user.extra.is_empty());
    info.into()
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_managed_fields(item);
    }
}

/// Now, as `metav1.MicroTime` is written.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[tokio::test]
    async fn a_request_whose_client_goes_away_is_recorded_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
        let file = LogFile { path: path.clone(), ..LogFile::default() };
        let log = AuditLog::open(policy, file).unwrap();
        for (method, watching) in [(Method::POST, false), (Method::GET, true)] {
            let info = RequestInfo::read(&method, "/api/v1/pods", watching, "");
            let (parts, ()) = http::Request::new(()).into_parts();
            let record = log.begin("id", &User::new("ann", &[]), &info, &parts).await;
            // What happens when the connection ends: the future that holds it is dropped.
            drop(record.unwrap());
        }
        log.close().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told: Vec<String> =
            events.map(|event| format!("{} {}", event["verb"], event["stage"])).collect();
        assert_eq!(
            told.join("; ").replace('"', ""),
            "create RequestReceived; create ResponseComplete; \
             watch RequestReceived; watch ResponseStarted; watch ResponseComplete"
        );
        assert_eq!(text.matches("Connection closed early").count(), 3);
    }
}
