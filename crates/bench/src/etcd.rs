//! etcd, and as much of its gRPC as a put needs: a message of two fields is not worth a code generator.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::process::Process;

/// How often a starting etcd is asked.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take to start.
const DEADLINE: Duration = Duration::from_secs(30);
/// The wire type of protobuf's length-delimited fields.
const DELIMITED: u8 = 2;

/// A running etcd with one member.
pub struct Etcd {
    process: Process,
    address: SocketAddr,
}

impl Etcd {
    /// Starts etcd with its defaults in this directory, and returns when it takes writes.
    pub async fn start(folder: &Path) -> Result<Self> {
        let (clients, peers) = (free_address()?, free_address()?);
        let (client_url, peer_url) = (format!("http://{clients}"), format!("http://{peers}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.join("etcd"));
        command.args(["--name", "bench", "--listen-client-urls", &client_url]);
        command.args(["--advertise-client-urls", &client_url, "--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("bench={peer_url}")]);
        let process = Process::start(&mut command, &folder.join("etcd.log"))?;
        let mut etcd = Self { process, address: clients };
        timeout(DEADLINE, etcd.until_ready()).await.context("etcd does not start")??;
        Ok(etcd)
    }

    /// One more connection.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::plain(self.address).await
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        self.process.kill().await
    }

    async fn until_ready(&mut self) -> Result<()> {
        loop {
            self.process.check()?;
            if let Ok(connection) = self.connect().await
                && put(&connection, put_request("ready", b"yes")).await.is_ok()
            {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }
}

/// A framed `etcdserverpb.PutRequest`.
pub fn put_request(key: &str, value: &[u8]) -> Bytes {
    let mut message = BytesMut::new();
    put_field(&mut message, 1, key.as_bytes());
    put_field(&mut message, 2, value);
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0); // not compressed
    frame.put_u32(u32::try_from(message.len()).expect("a request of a few KiB"));
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// Puts, and returns when etcd says that it is durable.
pub async fn put(connection: &Connection, request: Bytes) -> Result<()> {
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let answer = connection.send(Method::POST, "/etcdserverpb.KV/Put", &headers, request).await?;
    let head = answer.headers().get("grpc-status").cloned();
    let body = answer.into_body().collect().await?;
    let status = head.or_else(|| body.trailers()?.get("grpc-status").cloned());
    if status.as_ref().is_none_or(|status| status != "0") {
        bail!("etcd answers grpc-status {status:?}");
    }
    Ok(())
}

fn put_field(message: &mut BytesMut, number: u8, bytes: &[u8]) {
    message.put_u8(number << 3 | DELIMITED);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.extend_from_slice(bytes);
}

/// An address that was free a moment ago: for programs that cannot say which port they took.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_and_protobuf_want_it() {
        let put = put_request("k", &[7; 200]);
        assert_eq!(put[..8], [0, 0, 0, 0, 206, 0x0a, 1, b'k']);
        assert_eq!(put[8..12], [0x12, 0xc8, 0x01, 7]);
        assert_eq!(put.len(), 5 + 206);
    }
}
