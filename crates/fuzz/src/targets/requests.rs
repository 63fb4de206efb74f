//! Whole requests to a whole API server in memory: queries, continue tokens, bodies in JSON, YAML and protobuf.
//!
//! An input is `METHOD PATH?QUERY`, the content type and the accepted one, each on a line, then the body.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coracle_apiserver::authn::Authenticator;
use coracle_apiserver::identity::User;
use coracle_apiserver::pki::{Pki, Sans};
use coracle_apiserver::tokens::TokenIssuer;
use coracle_apiserver::{ApiServer, Config, store_options};
use coracle_store::Store;
use http::{HeaderMap, HeaderValue, Request};
use kube::client::Body;
use rustls::pki_types::CertificateDer;
use tokio::runtime::Runtime;

/// An answer that takes longer is a hang.
const DEADLINE: Duration = Duration::from_secs(10);

struct World {
    runtime: Runtime,
    client: kube::Client,
    authenticator: Authenticator,
    certificate: Vec<u8>,
    _api: Arc<ApiServer>,
    _state: tempfile::TempDir,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD
        .get_or_init(|| World::new().unwrap_or_else(|error| panic!("no server to fuzz: {error:#}")))
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let state = tempfile::tempdir()?;
        let advertise = SocketAddr::from(([127, 0, 0, 1], 6443));
        let sans = Sans { names: Vec::new(), addresses: vec![advertise.ip()] };
        let pki = Arc::new(Pki::open_or_create(&state.path().join("pki"), &sans)?);
        let own = pki.client_certificate("fuzz", &["fuzzers"])?;
        let certificate =
            coracle_api::certificates::pem_blocks(own.certificate.as_bytes()).swap_remove(0).der;
        let (api, authenticator) = runtime.block_on(async {
            let store = Store::open(store_options(state.path().join("state.db"))).await?;
            let tokens = Arc::new(TokenIssuer::new(&pki, store.clone())?);
            let authenticator = Authenticator::new(&pki, tokens, store.clone())?;
            let service_cidr = "10.96.0.0/16".parse()?;
            let config = Config { store, pki, advertise, service_cidr };
            anyhow::Ok((ApiServer::start(config).await?, authenticator))
        })?;
        let client = runtime.block_on(async { api.client(User::new("fuzz", &["system:masters"])) });
        Ok(Self { runtime, client, authenticator, certificate, _api: api, _state: state })
    }

    fn send(&self, request: Request<Body>) -> Option<(u16, Vec<u8>)> {
        let watching = request.uri().query().is_some_and(|query| query.contains("watch"));
        self.runtime.block_on(async {
            let answering = tokio::time::timeout(DEADLINE, self.client.send(request)).await;
            let answer = answering.unwrap_or_else(|_| panic!("no answer")).ok()?;
            let code = answer.status().as_u16();
            // A watch goes on for ever: that it begins is enough.
            let bytes = if watching {
                Vec::new()
            } else {
                answer.into_body().collect_bytes().await.ok()?.to_vec()
            };
            Some((code, bytes))
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Request<Body>> {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || std::str::from_utf8(parts.next()?).ok();
    let (method, target) = line()?.split_once(' ')?;
    let (content_type, accept) = (line()?, line()?);
    let body = parts.next()?.to_vec();
    // These would reach out of this process.
    if ["proxy", "webhook", "apiservice", "crd", "customresource"]
        .iter()
        .any(|word| target.contains(word))
    {
        return None;
    }
    let request =
        Request::builder().method(method).uri(target).header("content-type", content_type);
    request.header("accept", accept).body(Body::from(body)).ok()
}

/// Every request is answered, and never by what only a fault of the server's own explains.
pub fn run(bytes: &[u8]) {
    let Some(request) = parse(bytes) else { return };
    let shown = format!("{} {}", request.method(), request.uri());
    if let Some((code, body)) = world().send(request) {
        let said = String::from_utf8_lossy(&body);
        // Upstream answers 500 to some mistakes of clients too, without this reason.
        assert!(code != 500 || !said.contains("InternalError"), "{shown}: {said}");
    }
}

/// Credentials of any form name somebody or are refused.
pub fn run_credentials(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert("authorization", value);
    }
    let world = world();
    let _ = world.authenticator.authenticate(None, &headers);
    let certificates = [CertificateDer::from(bytes.to_vec())];
    let peer = world.authenticator.peer(Some(&certificates));
    let _ = world.authenticator.authenticate(peer.as_ref(), &HeaderMap::new());
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn seed(first: &str, content_type: &str, accept: &str, body: &[u8]) -> Vec<u8> {
    [format!("{first}\n{content_type}\n{accept}\n").as_bytes(), body].concat()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let map = br#"{"metadata":{"name":"m","labels":{"a":"b"}},"data":{"k":"v"}}"#;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut seeds = vec![
        seed(&format!("POST {MAPS}"), JSON, JSON, map),
        seed(&format!("PUT {MAPS}/m?fieldValidation=Strict&dryRun=All"), JSON, PROTOBUF, map),
        seed(&format!("PATCH {MAPS}/m?fieldManager=f&force=true"), "application/apply-patch+yaml", JSON, b"apiVersion: v1\nkind: ConfigMap\ndata: {a: 'b'}\n"),
        seed(&format!("PATCH {MAPS}/m"), "application/strategic-merge-patch+json", JSON, br#"{"data":{"k":null}}"#),
        seed(&format!("PATCH {MAPS}/m"), "application/json-patch+json", JSON, br#"[{"op":"add","path":"/data/x","value":"y"}]"#),
        seed(&format!("DELETE {MAPS}/m?propagationPolicy=Orphan&gracePeriodSeconds=1"), JSON, JSON, br#"{"preconditions":{"uid":"u"}}"#),
        seed(&format!("GET {MAPS}?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTAsInN0YXJ0IjoiYVx1MDAwMCJ9"), "", table, b""),
        seed(&format!("GET {MAPS}?watch=true&resourceVersion=1&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), "", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", b""),
        seed("GET /api/v1/pods?labelSelector=a%20in%20(b)&fieldSelector=spec.nodeName%3Dn&resourceVersion=0", "", PROTOBUF, b""),
        seed("POST /api/v1/namespaces/default/pods", "application/yaml", JSON, b"metadata: {name: p, generateName: q-}\nspec:\n  containers:\n  - {name: c, image: 'i:1', env: [{name: A, value: \"$(B)\"}], resources: {limits: {cpu: 1}}}\n  volumes: [{name: v, projected: {sources: []}}]\n"),
        seed("POST /apis/apps/v1/namespaces/default/deployments", JSON, JSON, br#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#),
        seed("PUT /apis/apps/v1/namespaces/default/deployments/d/scale", JSON, JSON, br#"{"metadata":{"name":"d"},"spec":{"replicas":3}}"#),
        seed("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", JSON, JSON, br#"{"spec":{"user":"u","resourceAttributes":{"verb":"get","resource":"pods","fieldSelector":{"rawSelector":"a=b"}}}}"#),
        seed("POST /apis/certificates.k8s.io/v1/certificatesigningrequests", JSON, JSON, br#"{"metadata":{"name":"c"},"spec":{"request":"LS0tLS0=","signerName":"kubernetes.io/kube-apiserver-client","usages":["client auth"]}}"#),
        seed("GET /openapi/v3/apis/apps/v1?hash=x", "", JSON, b""),
        seed("GET /apis", "", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", b""),
    ];
    // The server's own protobuf is the best there is to begin with.
    for path in [
        "/api/v1/namespaces/default",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/view",
        "/api/v1/namespaces/default/services/kubernetes",
    ] {
        let Ok(request) = Request::get(path).header("accept", PROTOBUF).body(Body::empty()) else {
            continue;
        };
        if let Some((200, body)) = world().send(request) {
            let (collection, _) = path.rsplit_once('/').unwrap_or_default();
            seeds.push(seed(&format!("PUT {path}"), PROTOBUF, PROTOBUF, &body));
            seeds.push(seed(&format!("POST {collection}"), PROTOBUF, JSON, &body));
        }
    }
    seeds
}

pub fn credential_seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::texts(&[
        "Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMuY2x1c3Rlci5sb2NhbCIsInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDphOmIiLCJhdWQiOlsiYSJdLCJleHAiOjk5OTk5OTk5OTl9.AAAA",
        "Bearer abcdef.0123456789abcdef",
        "Basic YTpi",
        "Bearer  a b",
    ]);
    seeds.push(world().certificate.clone());
    seeds
}
