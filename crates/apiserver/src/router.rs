//! Every request's way in: who asks, what for, may they, and then to its handler.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use coracle_api::kinds::Kind;
use coracle_api::status::{Reason, Status};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, header};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;

use crate::aggregation::proxy::Lasts;
use crate::annotations::Annotations;
use crate::answer::{self, Answer};
use crate::audit::{self, Record, Source};
use crate::authn::{self, Peer};
use crate::authz::{Attributes, Target};
use crate::call::{self, Call};
use crate::fairness::{Entering, Flow, Patience};
use crate::identity::User;
use crate::metrics::Served;
use crate::negotiate::{Offer, Representation};
use crate::query::Query;
use crate::request_info::{RequestInfo, ResourcePath};
use crate::server::Server;
use crate::warnings::Warnings;
use crate::{aggregation, handlers, limits, paths, resource_metrics};

/// Set on requests of clients in this process: who they are is known.
#[derive(Clone)]
pub(crate) struct InMemory(pub(crate) User);

/// Set on requests of connections that end before the server does: what would go on for ever ends then.
#[derive(Clone)]
pub(crate) struct Ends(pub(crate) CancellationToken);

/// The whole API as one service.
pub(crate) fn router(server: Arc<Server>) -> Router {
    let compression = CompressionLayer::new()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(LargeAnswers);
    Router::new().fallback(handle).with_state(server).layer(compression)
}

/// Compresses what has a known large size: lists, never watches or logs.
#[derive(Clone, Copy)]
struct LargeAnswers;

impl Predicate for LargeAnswers {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        response.body().size_hint().exact().is_some_and(|bytes| bytes >= limits::COMPRESS_BYTES)
    }
}

/// Answers one request, whatever happens on the way.
async fn handle(State(server): State<Arc<Server>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let mut served = Served::default();
    let accept = request.headers().get(header::ACCEPT).cloned();
    let id = audit::id(request.headers());
    let mut trail = Trail { id: &id, record: None, flow: None };
    let answered =
        AssertUnwindSafe(answer(&server, request, &mut served, &mut trail)).catch_unwind().await;
    let panicked = answered.is_err();
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => answer::failure(&status, Representation::of_refusals(accept.as_ref())),
        Err(_) => {
            tracing::error!(
                resource = served.resource,
                verb = served.verb,
                "a request handler panicked"
            );
            let why = Status::internal(
                "This request caused apiserver to panic. Look in the logs for details.",
            );
            answer::failure(&why, Representation::of_refusals(accept.as_ref()))
        }
    };
    if let Some(record) = trail.record {
        response = record.finish(response, panicked).await;
    }
    if let Some(flow) = trail.flow {
        flow.write_headers(response.headers_mut());
    }
    let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"));
    response.headers_mut().insert("audit-id", id);
    server.metrics.request(&served, response.status(), started.elapsed());
    response
}

/// What is noted of the request on its way.
struct Trail<'a> {
    /// Names it in logs on both sides.
    id: &'a str,
    record: Option<Box<Record>>,
    /// Where priority and fairness put it.
    flow: Option<Flow>,
}

async fn answer(
    server: &Arc<Server>,
    request: Request<Body>,
    served: &mut Served,
    trail: &mut Trail<'_>,
) -> Answer<Response> {
    let (mut parts, body) = request.into_parts();
    let raw_query = parts.uri.query().unwrap_or_default();
    if raw_query.len() > limits::QUERY_BYTES {
        return Err(Status::new(414, Reason::Unknown, "the query is too long"));
    }
    let query = Query::parse(raw_query);
    let fields = query.get("fieldSelector").unwrap_or_default();
    let info = RequestInfo::read(&parts.method, parts.uri.path(), query.flag("watch"), fields);
    served.verb = info.verb;

    let patience = match parts.extensions.get::<InMemory>() {
        Some(_) => Patience::Endless,
        None => Patience::Usual,
    };
    let user = identify(server, &mut parts, &info, trail).await?;
    let long_running = info.is_long_running();
    // What lasts has no seat, but for watches until they have begun.
    let _seat = if long_running && info.verb != "watch" {
        None
    } else {
        let entering = Entering {
            user: &user,
            info: &info,
            path: parts.uri.path(),
            query: &query,
            patience,
            store: &server.store,
        };
        server.fairness.enter(&entering, &mut trail.flow).await?
    };
    authorize(server, &user, &info, parts.uri.path(), trail)?;

    let body = note_body(trail.record.as_mut(), &parts.headers, body).await?;
    if let Some(remote) = server.aggregator.remote_at(parts.uri.path()) {
        if remote.is_here() {
            return resource_metrics::answer(server, &info, &parts, &query).boxed().await;
        }
        let ends = take_ends(server, &mut parts);
        let lasts = if long_running { Lasts::Until(ends) } else { Lasts::AsUsual(ends) };
        return aggregation::proxy::forward(server, &remote, &user, (parts, body), lasts)
            .boxed()
            .await;
    }
    let RequestInfo { verb, resource, .. } = info;
    let Some(target) = resource else {
        return paths::answer(server, &parts, &query).boxed().await;
    };
    let asked = Asked { parts, body, query, user, verb, long_running };
    let (response, annotations) = answer_about(server, asked, target, served).await?;
    if let Some(record) = &mut trail.record {
        for (name, text) in annotations.all() {
            record.annotate(&name, &text);
        }
    }
    Ok(response)
}

/// A request that may be answered.
struct Asked {
    parts: http::request::Parts,
    body: Body,
    query: Query,
    user: User,
    verb: &'static str,
    long_running: bool,
}

/// Answers a request for an object or a collection, and says what the audit log should know of it.
async fn answer_about(
    server: &Arc<Server>,
    asked: Asked,
    target: ResourcePath,
    served: &mut Served,
) -> Answer<(Response, Annotations)> {
    let Asked { mut parts, body, query, user, verb, long_running } = asked;
    let kind = handlers::kind_at(server, &target)?;
    served.about(kind, &target);
    let representation = match target.subresource.as_str() {
        // What others say in their own form: the client's wishes are for them.
        "log" | "proxy" => Representation::default(),
        _ => Representation::negotiate(&parts.headers, &query, offer(kind, &target))?,
    };
    let ends = take_ends(server, &mut parts);
    let _counted = server.metrics.count_in_flight(&parts.method, long_running);
    let mut call = Call {
        ends,
        uri: parts.uri,
        upgrade: parts.extensions.remove::<OnUpgrade>(),
        source: parts.extensions.remove::<Source>(),
        server: server.clone(),
        user,
        verb,
        target,
        kind,
        representation,
        query,
        method: parts.method,
        headers: parts.headers,
        body: Mutex::new(body),
        warnings: Warnings::default(),
        annotations: Annotations::default(),
        repeated_keys: None,
    };
    let answered = if long_running {
        handlers::dispatch(&mut call).boxed().await
    } else {
        let in_time =
            tokio::time::timeout(limits::REQUEST_TIMEOUT, handlers::dispatch(&mut call).boxed());
        in_time.await.unwrap_or_else(|_| {
            Err(Status::timeout("request did not complete within the allotted timeout", 0))
        })
    };
    let mut response = answered.unwrap_or_else(|status| {
        let accept = call.headers.get(header::ACCEPT);
        answer::failure(&status, Representation::of_refusals(accept))
    });
    call.add_warnings(&mut response);
    Ok((response, call.annotations))
}

/// What ends a request that would go on for ever.
fn take_ends(server: &Server, parts: &mut http::request::Parts) -> CancellationToken {
    let own = parts.extensions.remove::<Ends>();
    own.map_or_else(|| server.shutdown.clone(), |Ends(token)| token)
}

/// What objects of the kind can be written as. A `Scale` has a message whatever it scales.
fn offer(kind: &Kind, target: &ResourcePath) -> Offer {
    if kind.custom.is_some() && target.subresource != "scale" {
        Offer::CustomObjects
    } else {
        Offer::Everything
    }
}

/// Who asks: known from the start in memory, by credentials otherwise; and whom they act as.
async fn identify(
    server: &Server,
    parts: &mut http::request::Parts,
    info: &RequestInfo,
    trail: &mut Trail<'_>,
) -> Answer<User> {
    let user = match parts.extensions.remove::<InMemory>() {
        Some(InMemory(user)) => Ok(user),
        None => {
            server.authenticator.prepare_request(&parts.headers).await;
            let peer = parts.extensions.get::<Peer>();
            let judged = server.authenticator.authenticate(peer, &parts.headers);
            let is_let_in = |user: &User| {
                *user != User::anonymous() || server.authenticator.lets_in_anybody(parts.uri.path())
            };
            judged.ok().filter(is_let_in).ok_or_else(Status::unauthorized)
        }
    };
    server.authenticator.proxies().strip(&mut parts.headers);
    if let Some(log) = &server.audit {
        // Whoever showed wrong credentials is nobody, and still asked.
        let asking = user.as_ref().map_or_else(|_| User::default(), User::clone);
        trail.record = log.begin(trail.id, &asking, info, parts).await;
    }
    let user = user?;
    let Some(record) = &mut trail.record else {
        return authn::impersonate(user, &parts.headers, &server.authorizer);
    };
    let acting = authn::impersonate(user.clone(), &parts.headers, &server.authorizer)?;
    if acting != user {
        record.impersonated(&acting);
    }
    Ok(acting)
}

/// Holds on to the body for the record, if that wants it; what cannot be read is the handler's to refuse.
async fn note_body(
    record: Option<&mut Box<Record>>,
    headers: &HeaderMap,
    body: Body,
) -> Answer<Body> {
    let Some(record) = record.filter(|record| record.wants_request()) else { return Ok(body) };
    let bytes = call::read_body(body, headers).await?;
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Patches are JSON whatever they are called.
    record.request(&call::to_json(media_type.unwrap_or_default(), &bytes).unwrap_or(bytes.clone()));
    Ok(Body::from(bytes))
}

fn authorize(
    server: &Server,
    user: &User,
    info: &RequestInfo,
    path: &str,
    trail: &mut Trail<'_>,
) -> Answer<()> {
    let target = match &info.resource {
        None => Target::Path(path),
        Some(resource) => Target::Resource {
            group: &resource.group,
            resource: &resource.resource,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: &resource.name,
        },
    };
    let fields = &info.fields;
    let attributes = Attributes { user, verb: info.verb, target, fields };
    if let Some(record) = &mut trail.record {
        record.authorized(&server.authorizer.authorize(&attributes));
    }
    server.authorizer.check(&attributes)
}
