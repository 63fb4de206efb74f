//! A stream of bytes as the messages of a WebSocket: how a page in a browser reads a log.
//!
//! As upstream's `wsstream.Reader`: an empty message comes first, then the bytes as they come, in base64 if the protocol's
//! name says so. Nothing that the client says is listened to.

use axum::body::{Body, Bytes};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_api::status::Status;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::answer::Answer;
use crate::call::Call;
use crate::{limits, tunnel};

/// The one version that there is (RFC 6455).
const VERSION: &str = "13";
/// What a client may say at once: it has nothing to say but that it ends.
const CLIENT_MESSAGE_BYTES: usize = 4096;

/// How bytes become messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// The client named none.
    Unnamed,
    Binary,
    Base64,
}

impl Protocol {
    fn named(name: &str) -> Option<Self> {
        match name {
            "binary.k8s.io" => Some(Self::Binary),
            "base64.binary.k8s.io" => Some(Self::Base64),
            _ => None,
        }
    }

    fn name(self) -> Option<HeaderValue> {
        match self {
            Self::Unnamed => None,
            Self::Binary => Some(HeaderValue::from_static("binary.k8s.io")),
            Self::Base64 => Some(HeaderValue::from_static("base64.binary.k8s.io")),
        }
    }

    fn message(self, bytes: Bytes) -> Message {
        match self {
            Self::Unnamed | Self::Binary => Message::Binary(bytes),
            Self::Base64 => Message::text(STANDARD.encode(bytes)),
        }
    }
}

/// Whether the client wants to speak this protocol on its connection.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    tunnel::is_wanted(headers)
        && upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Agrees, and sends the body on the connection once it is the client's and ours.
pub(crate) fn send(call: &mut Call, body: Body) -> Answer<Response> {
    let protocol = choose(&call.headers)?;
    let text = |name| call.headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(Status::bad_request("the WebSocket version has to be 13"));
    }
    let key = text(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Status::bad_request("a WebSocket needs the header Sec-WebSocket-Key"))?;
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accepted = accepted.map_err(Status::internal)?;
    let client = call
        .upgrade
        .take()
        .ok_or_else(|| Status::bad_request("this connection cannot become a WebSocket"))?;
    let ends = call.ends.clone();
    call.server.tunnels.spawn(async move {
        let work = async {
            let upgraded = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, client).await;
            let Ok(Ok(upgraded)) = upgraded else {
                return tracing::debug!("a connection did not become a WebSocket");
            };
            let config = WebSocketConfig::default()
                .max_message_size(Some(CLIENT_MESSAGE_BYTES))
                .max_frame_size(Some(CLIENT_MESSAGE_BYTES));
            let stream = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            if let Err(error) = forward(socket, body, protocol).await {
                tracing::debug!(%error, "a WebSocket ended");
            }
        };
        ends.run_until_cancelled(work).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if let Some(name) = protocol.name() {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(response)
}

/// The first of the client's protocols that we speak.
fn choose(headers: &HeaderMap) -> Answer<Protocol> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let named = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut named = named.map(str::trim).filter(|name| !name.is_empty()).peekable();
    if named.peek().is_none() {
        return Ok(Protocol::Unnamed);
    }
    named.find_map(Protocol::named).ok_or_else(|| {
        Status::bad_request(
            "none of the WebSocket protocols is known: binary.k8s.io and base64.binary.k8s.io are",
        )
    })
}

/// Sends until the body or the client ends.
async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    mut body: Body,
    protocol: Protocol,
) -> Result<(), Error> {
    let (mut said, mut heard) = socket.split();
    said.send(protocol.message(Bytes::new())).await?;
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        said.send(protocol.message(bytes)).await?;
                    }
                }
                Some(Err(_)) | None => return said.close().await,
            },
            heard = heard.next() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => (),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_that_is_known_is_spoken() {
        let check = |offered: Option<&'static str>, expected: Result<Protocol, u16>| {
            let mut headers = HeaderMap::new();
            if let Some(offered) = offered {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
            }
            let found = choose(&headers).map_err(|status| status.code);
            assert_eq!(found, expected, "{offered:?}");
        };
        check(None, Ok(Protocol::Unnamed));
        check(Some("binary.k8s.io"), Ok(Protocol::Binary));
        check(Some("v9.mine, base64.binary.k8s.io"), Ok(Protocol::Base64));
        check(Some("v9.mine"), Err(400));
    }
}
