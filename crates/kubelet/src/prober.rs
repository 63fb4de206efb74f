//! Asks a container how it is: HTTP and TCP, for probes and lifecycle hooks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::probe::timeout;

/// What upstream reads of an answer, to show it when it says no.
const BODY_BYTES: usize = 10 * 1024;
/// Redirects that are followed on the same host; upstream's bound.
const REDIRECTS: usize = 10;
/// How long a hook may talk to its container when nothing else bounds it.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one probe once. An error is what the Event says after `Readiness probe failed: `.
pub(crate) async fn probe(probe: &Probe, container: &Container, ip: IpAddr) -> Result<(), String> {
    let timeout = timeout(probe);
    if let Some(http) = &probe.http_get {
        return get(http, container, ip, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp
            .host
            .as_deref()
            .filter(|host| !host.is_empty())
            .map_or_else(|| ip.to_string(), str::to_owned);
        let port = port(&tcp.port, container)?;
        return connect(&host, port, timeout).await.map(drop);
    }
    if probe.exec.is_some() {
        return Err("this container's engine cannot run a command in it: use an httpGet, tcpSocket or grpc probe".to_owned());
    }
    if let Some(grpc) = &probe.grpc {
        let port =
            u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
        return crate::grpc::check(ip, port, grpc.service.as_deref().unwrap_or_default(), timeout)
            .await;
    }
    Err("missing probe handler".to_owned())
}

/// Runs a lifecycle hook.
pub(crate) async fn hook(
    handler: &LifecycleHandler,
    container: &Container,
    ip: IpAddr,
) -> Result<(), String> {
    if let Some(http) = &handler.http_get {
        return get(http, container, ip, HOOK_TIMEOUT).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    if handler.exec.is_some() {
        return Err(
            "this container's engine cannot run a command in it: use an httpGet or sleep hook"
                .to_owned(),
        );
    }
    Err("invalid handler: must specify one of exec, httpGet, sleep".to_owned())
}

async fn get(
    action: &HTTPGetAction,
    container: &Container,
    ip: IpAddr,
    timeout: Duration,
) -> Result<(), String> {
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = action
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .map_or_else(|| ip.to_string(), str::to_owned);
    let port = port(&action.port, container)?;
    let mut target = Target { secure: scheme == "https", host, port, path: path(action) };
    let url = target.url();
    let work = async move {
        for _ in 0..=REDIRECTS {
            match ask(&target, action, timeout).await? {
                Answer::Fine => return Ok(()),
                Answer::Bad(status) => {
                    return Err(format!("HTTP probe failed with statuscode: {status}"));
                }
                Answer::Moved(to) => match target.redirected(&to) {
                    Some(next) => target = next,
                    // It leads elsewhere: what runs there says nothing about this container.
                    None => return Ok(()),
                },
            }
        }
        Err(format!("Get \"{}\": stopped after {REDIRECTS} redirects", target.url()))
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
    })
}

fn path(action: &HTTPGetAction) -> String {
    let path = action.path.as_deref().unwrap_or("/");
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[derive(Clone)]
struct Target {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

enum Answer {
    Fine,
    Bad(u16),
    Moved(String),
}

impl Target {
    fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Where a `Location` of this host leads.
    fn redirected(&self, location: &str) -> Option<Self> {
        if location.starts_with('/') {
            return Some(Self { path: location.to_owned(), ..self.clone() });
        }
        let uri: http::Uri = location.parse().ok()?;
        if uri.host()?.trim_matches(['[', ']']) != self.host {
            return None;
        }
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { secure, host: self.host.clone(), port, path })
    }
}

async fn ask(target: &Target, action: &HTTPGetAction, timeout: Duration) -> Result<Answer, String> {
    let stream = connect(&target.host, target.port, timeout)
        .await
        .map_err(|cause| format!("Get \"{}\": {cause}", target.url()))?;
    if !target.secure {
        return exchange(stream, target, action).await;
    }
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| format!("Get \"{}\": {error}", target.url()))?;
    let connector = tokio_rustls::TlsConnector::from(trusting()?);
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| format!("Get \"{}\": {error}", target.url()))?;
    exchange(stream, target, action).await
}

async fn exchange<S>(stream: S, target: &Target, action: &HTTPGetAction) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &dyn std::fmt::Display| format!("Get \"{}\": {error}", target.url());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let given = |name: &str| headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    let mut request = http::Request::get(&target.path).header("connection", "close");
    if !given("host") {
        request = request.header("host", target.authority());
    }
    if !given("user-agent") {
        request = request.header("user-agent", "kube-probe/1.37");
    }
    if !given("accept") {
        request = request.header("accept", "*/*");
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let talk = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let location =
            answer.headers().get("location").and_then(|to| to.to_str().ok()).map(str::to_owned);
        // Read what there is, so that a server is not cut off while it writes; too much is no failure.
        let _ = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
        Ok(match (status.as_u16(), location) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => Answer::Moved(location),
            (200..400, _) => Answer::Fine,
            (status, _) => Answer::Bad(status),
        })
    };
    tokio::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        // The connection ends when the answer is complete; what it said is in `talk`.
        _ = connection => talk.await,
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let shown =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {shown}: connect: {}", spelled(&error))),
        Err(_) => Err(format!("dial tcp {shown}: i/o timeout")),
    }
}

/// The system's words without Rust's number.
fn spelled(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// The port's number; a name is looked up among the container's ports.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named =
                container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.ok_or_else(|| {
        let IntOrString::String(name) = port else { return String::new() };
        format!("couldn't find port: {name} in the ports of container {}", container.name)
    })?;
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

/// Probes see the container's own certificate, which no authority knows: upstream does not verify it either.
fn trusting() -> Result<Arc<rustls::ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
