//! A request passed on to the server of its group-version, and the answer passed back; a connection that is upgraded is handed on.

use axum::body::Body;
use axum::response::Response;
use coracle_api::status::Status;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;

use super::{Behind, Remote, State};
use crate::answer::Answer;
use crate::audit::Source;
use crate::handlers::subresources::until;
use crate::identity::User;
use crate::server::Server;
use crate::{forwarded, limits, tunnel};

/// Headers that belong to one connection, and those by which callers show us who they are.
const DROPPED: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
];

/// How long a request may last.
pub(crate) enum Lasts {
    /// Until this ends it: a watch.
    Until(CancellationToken),
    /// As long as any request; but a connection that is upgraded, until this ends it.
    AsUsual(CancellationToken),
}

/// Passes the request on as this user's.
pub(crate) async fn forward(
    server: &Server,
    remote: &Remote,
    user: &User,
    (mut parts, body): (Parts, Body),
    lasts: Lasts,
) -> Answer<Response> {
    let (State::Available(_), Behind::Service(Ok(destination))) = (&remote.state, &remote.server)
    else {
        return Ok(plain("service unavailable"));
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = destination.at(path).map_err(Status::internal)?;
    let client = parts.extensions.remove::<OnUpgrade>();
    let request = request_for(uri, user, parts, body)?;
    let sent = server.aggregator.client.send(destination, request);
    let sent = match &lasts {
        Lasts::Until(_) => sent.await,
        Lasts::AsUsual(_) => {
            tokio::time::timeout(limits::REQUEST_TIMEOUT, sent).await.map_err(|_| {
                Status::timeout("request did not complete within the allotted timeout", 0)
            })?
        }
    };
    let mut response = match sent {
        Ok(response) => response.map(Body::new),
        Err(error) => return Ok(plain(&format!("error trying to reach service: {error}"))),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (Lasts::Until(ends) | Lasts::AsUsual(ends)) = lasts;
        return Ok(match client {
            Some(client) => tunnel::join(&server.tunnels, ends, client, response),
            None => {
                plain("error trying to reach service: it changed the protocol without being asked")
            }
        });
    }
    drop_hop_headers(response.headers_mut());
    Ok(match lasts {
        Lasts::Until(ends) => response.map(|body| until(body, ends)),
        Lasts::AsUsual(_) => response,
    })
}

/// The request as the server gets it. What the client wants of its connection is told only where that is another protocol.
fn request_for(uri: Uri, user: &User, parts: Parts, body: Body) -> Answer<Request<Body>> {
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let protocol = protocol.filter(|_| tunnel::is_wanted(&parts.headers));
    let mut request =
        Request::builder().method(parts.method).uri(uri).body(body).map_err(Status::internal)?;
    *request.headers_mut() = parts.headers;
    let headers = request.headers_mut();
    drop_hop_headers(headers);
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    identify(headers, user);
    forwarded::tell_path(headers, parts.uri.path());
    forwarded::tell_client(headers, parts.extensions.get::<Source>().copied());
    Ok(request)
}

/// 503 in upstream's form: text.
fn plain(message: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn drop_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tunnel::listed(headers).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&DROPPED) {
        headers.remove(name);
    }
}

/// Says who asks in the front proxy's words; what the client itself said in them is forgotten.
pub(super) fn identify(headers: &mut HeaderMap, user: &User) {
    let claimed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            ["x-remote-", "impersonate-"].iter().any(|prefix| name.as_str().starts_with(prefix))
        })
        .cloned()
        .collect();
    for name in claimed {
        headers.remove(name);
    }
    let mut say = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    say(HeaderName::from_static("x-remote-user"), &user.name);
    if !user.uid.is_empty() {
        say(HeaderName::from_static("x-remote-uid"), &user.uid);
    }
    for group in &user.groups {
        say(HeaderName::from_static("x-remote-group"), group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = format!("x-remote-extra-{}", escaped(key)).parse::<HeaderName>() else {
            continue;
        };
        for value in values {
            say(name.clone(), value);
        }
    }
}

/// A key as a part of a header's name: what may not stand there is written as in URLs.
fn escaped(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if is_plain {
            escaped.push(char::from(byte.to_ascii_lowercase()));
        } else {
            escaped.push_str(&format!("%{byte:02x}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_named_by_us_alone() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "x-remote-extra-scopes", "impersonate-user", "accept"] {
            headers.insert(name, HeaderValue::from_static("liar"));
        }
        let mut user = User::new("alice", &["a", "b"]);
        user.extra.insert("example.com/Scope".to_owned(), vec!["one".to_owned(), "two".to_owned()]);
        identify(&mut headers, &user);
        let all = |name: &str| {
            headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(all("x-remote-user"), ["alice"]);
        assert_eq!(all("x-remote-group"), ["a", "b", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fscope"), ["one", "two"]);
        assert_eq!(all("accept"), ["liar"]);
        assert!(all("x-remote-extra-scopes").is_empty() && all("impersonate-user").is_empty());
    }

    #[test]
    fn headers_of_a_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("x-mine, close"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        drop_hop_headers(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
