//! The gRPC health protocol (`grpc.health.v1.Health/Check`), as much of it as a probe says and hears.
//!
//! One request with one short field and one answer with one number: written out by hand, it needs no gRPC library.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// An answer is seven bytes; whoever sends more speaks something else.
const ANSWER_BYTES: usize = 1024;

/// Asks once. An error is what the Event says after `Readiness probe failed: `.
pub(crate) async fn check(
    ip: IpAddr,
    port: u16,
    service: &str,
    timeout: Duration,
) -> Result<(), String> {
    let address = SocketAddr::new(ip, port);
    match tokio::time::timeout(timeout, ask(address, service)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("timeout: health rpc did not complete within {timeout:?}")),
    }
}

async fn ask(address: SocketAddr, service: &str) -> Result<(), String> {
    let unreachable =
        |error: String| format!("error: failed to connect service at \"{address}\": {error}");
    let stream =
        TcpStream::connect(address).await.map_err(|error| unreachable(error.to_string()))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
    let failed = |error: String| format!("error: health rpc probe failed: {error}");
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(Bytes::from(request(service))))
        .map_err(|error| failed(error.to_string()))?;
    let talk = async {
        let answer =
            sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        let code = |headers: &http::HeaderMap| {
            let code = headers.get("grpc-status")?.to_str().ok()?.parse::<u32>().ok()?;
            let message = headers.get("grpc-message").and_then(|text| text.to_str().ok());
            Some((code, message.unwrap_or_default().to_owned()))
        };
        let early = code(answer.headers());
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?;
        let late = body.trailers().and_then(code);
        match early.or(late) {
            Some((0, _)) | None => serving(&body.to_bytes()),
            Some((12, message)) => Err(format!(
                "error: this server does not implement the grpc health protocol \
                 (grpc.health.v1.Health): {message}"
            )),
            Some((code, message)) => {
                Err(failed(format!("rpc error: code = {code} desc = {message}")))
            }
        }
    };
    tokio::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The connection may end with the answer; what it said is in `talk`.
        _ = connection => talk.await,
    }
}

/// A gRPC frame with `HealthCheckRequest { service }`.
fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, a string.
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Reads a gRPC frame with `HealthCheckResponse { status }`.
fn serving(frame: &[u8]) -> Result<(), String> {
    // After the head of five bytes: field 1, a number; without it the number is 0.
    let status = match frame.get(5..) {
        Some([0x08, status, ..]) => *status,
        Some(_) | None => 0,
    };
    let word = match status {
        1 => return Ok(()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Err(format!("service unhealthy (responded with \"{word}\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_as_protobuf_has_them() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(200));
        assert_eq!(long[5..8], [0x0a, 0xc8, 0x01]);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        let not = Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned());
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), not);
        let unknown = Err("service unhealthy (responded with \"UNKNOWN\")".to_owned());
        assert_eq!(serving(&[0, 0, 0, 0, 0]), unknown);
    }
}
