//! Connections that are handed on: after `101 Switching Protocols`, bytes both ways until one side ends.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits;

/// Whether the client wants to speak another protocol on its connection.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && listed(headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// What `Connection` lists: names of headers that are for the next hop alone.
pub(crate) fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Answers the client as the other side did, and joins the two connections once both are upgraded. The task belongs to `tunnels`,
/// and ends with `ends`.
pub(crate) fn join(
    tunnels: &TaskTracker,
    ends: CancellationToken,
    client: OnUpgrade,
    mut response: Response,
) -> Response {
    let other = hyper::upgrade::on(&mut response);
    // The body holds the connection to the other side until that is ours.
    let (parts, held) = response.into_parts();
    tunnels.spawn(async move {
        let both = async { tokio::try_join!(client, other) };
        let upgraded = tokio::select! {
            upgraded = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, both) => upgraded,
            () = ends.cancelled() => return,
        };
        drop(held);
        let (client, other) = match upgraded {
            Ok(Ok((client, other))) => (client, other),
            Ok(Err(error)) => return tracing::debug!(%error, "a connection was not upgraded"),
            Err(_) => return tracing::debug!("a connection was not upgraded in time"),
        };
        let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
        tokio::select! {
            joined = tokio::io::copy_bidirectional(&mut client, &mut other) => {
                if let Err(error) = joined {
                    tracing::debug!(%error, "an upgraded connection ended");
                }
            }
            () = ends.cancelled() => (),
        }
    });
    Response::from_parts(parts, Body::empty())
}
