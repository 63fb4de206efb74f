//! A whole cluster in this process: the parts, who talks to whom, and the order in which they end.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_api::services::ServiceTable;
use coracle_apiserver::audit::{AuditLog, LogFile};
use coracle_apiserver::authn::RequestHeaderFlags;
use coracle_apiserver::authn::oidc::{Oidc, OidcFlags};
use coracle_apiserver::encryption::Encryption;
use coracle_apiserver::identity::User;
use coracle_apiserver::pki::{Pki, Sans};
use coracle_apiserver::{ApiServer, Cidr, Config, Extras};
use coracle_controllers::SigningCa;
use coracle_network::{NotTaken, Offer};
use coracle_runtime::Runtime;
use coracle_runtime_wasm::{PodNet, WasmRuntime};
use coracle_store::Store;
use kube::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::cli::Security;
use crate::data_dir::{DataDir, Networks};

/// Upstream's port for the API server.
const STANDARD_PORT: u16 = 6443;
/// How long the API may take to answer whether it is ready, when we look for a running cluster.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How long one group of parts may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(45);

/// Every part of this issue lives on one machine, and reaches the node by loopback.
pub const NODE_IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long containers get to end when the node stops.
const NODE_GRACE: Duration = Duration::from_secs(20);

/// What a cluster is started with.
pub struct Options {
    pub data_dir: DataDir,
    pub bind_address: IpAddr,
    pub port: Port,
    /// `sqlite://PATH`; `None` means the file in the data directory.
    pub datastore_endpoint: Option<String>,
    /// What the security flags say.
    pub security: Security,
    /// The Node's name; `None` means the host's.
    pub node_name: Option<String>,
    /// How pods are placed, if not as by default.
    pub scheduler: Option<coracle_scheduler::Configuration>,
}

/// Which port the API server takes.
#[derive(Debug, Clone, Copy)]
pub enum Port {
    /// This one; 0 means any free one.
    Exactly(u16),
    /// 6443, or any free one when that is taken.
    PreferablyStandard,
}

/// The control plane: the API server and what it needs.
pub struct ControlPlane {
    pub api: Arc<ApiServer>,
    pub pki: Arc<Pki>,
    pub networks: Networks,
    pub address: SocketAddr,
    store: Store,
    serving: Part,
}

/// A control plane and one node.
pub struct Cluster {
    plane: ControlPlane,
    client: Client,
    /// What acts on the cluster: ends before what it acts through.
    node: Vec<Part>,
    controllers: Vec<Part>,
    runtime: Arc<WasmRuntime>,
}

/// One running part, and how to end it.
struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Part {
    fn start<F, E>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let stop = CancellationToken::new();
        let running = run(stop.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = running.await {
                error!(part = name, error = %anyhow::Error::from(error).to_string(), "part ended");
            }
        });
        Self { name, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_DEADLINE, self.task).await.is_err() {
            error!(part = self.name, "part did not end in time");
        }
    }
}

async fn end_all(parts: Vec<Part>) {
    futures::future::join_all(parts.into_iter().map(Part::end)).await;
}

impl ControlPlane {
    /// Opens the state, serves the API, and writes the kubeconfig once clients may use it.
    pub async fn start(options: &Options) -> Result<Self> {
        let data_dir = &options.data_dir;
        let networks = data_dir.claim_networks()?;
        let store = open_store(options).await?;
        let listener = bind(options.bind_address, options.port).await?;
        let address = listener.local_addr()?;
        let advertised = SocketAddr::new(advertised(options.bind_address), address.port());
        let service_cidr = Cidr::new(IpAddr::V4(networks.services()), 16);
        let sans = Sans {
            names: host_name().into_iter().collect(),
            addresses: vec![options.bind_address, advertised.ip(), service_cidr.first_address()],
        };
        let pki = Arc::new(Pki::open_or_create(&data_dir.pki(), &sans)?);
        let config = Config {
            store: store.clone(),
            pki: Arc::clone(&pki),
            advertise: advertised,
            service_cidr,
        };
        let extras = Extras {
            audit: open_audit(&options.security)?,
            oidc: open_oidc(&options.security)?,
            request_header: request_header(&options.security)?,
        };
        let api = ApiServer::start_with(config, extras).await?;
        let url = format!("https://{advertised}");
        let kubeconfig = pki.kubeconfig(&url, &User::admin())?;
        DataDir::write_private(&data_dir.kubeconfig(), kubeconfig.as_bytes())?;
        let server = Arc::clone(&api);
        let serving = Part::start("apiserver", |stop| server.serve(listener, stop));
        info!(%url, kubeconfig = %data_dir.kubeconfig().display(), "API server serves");
        Ok(Self { api, pki, networks, address: advertised, store, serving })
    }

    /// Ends the API server, then closes the store.
    pub async fn stop(self) {
        self.serving.end().await;
        self.api.shutdown().await;
        self.store.close().await;
    }
}

impl Cluster {
    /// Starts every part and returns when the API is ready.
    pub async fn start(options: Options) -> Result<Self> {
        let plane = ControlPlane::start(&options).await?;
        let client = plane.api.client(User::admin());
        let services = Arc::new(ServiceTable::default());
        let runtime = Arc::new(open_runtime(&options.data_dir, &plane.networks, &services)?);
        let identity = candidate_name(&options.data_dir.identity()?);
        let controllers = start_controllers(&plane, &identity, options.scheduler.as_ref())?;
        let node = start_node(&options, &plane, &services, &runtime).await?;
        Ok(Self { plane, client, node, controllers, runtime })
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends the node first, so that its last words reach the API; then the controllers; then the API.
    pub async fn stop(self) -> Result<()> {
        end_all(self.node).await;
        self.runtime.shutdown(Duration::from_secs(1)).await;
        end_all(self.controllers).await;
        drop(self.client);
        self.plane.stop().await;
        Ok(())
    }
}

/// Under which name a part of this host asks for leadership; upstream's is the host's with a unique suffix.
pub fn candidate_name(unique: &str) -> String {
    format!("{}_{unique}", host_name().unwrap_or_else(|| "coracle".to_owned()))
}

fn start_controllers(
    plane: &ControlPlane,
    identity: &str,
    scheduling: Option<&coracle_scheduler::Configuration>,
) -> Result<Vec<Part>> {
    let manager = plane.api.client(User::controller_manager());
    let ca = SigningCa::new(plane.pki.ca_pem(), &plane.pki.ca_key_pem())?;
    let options = coracle_controllers::Options::new(plane.pki.ca_pem())
        .signing_with(ca)
        .identified_as(identity.to_owned());
    let scheduler = plane.api.client(User::scheduler());
    let mut placing = coracle_scheduler::Options {
        identity: identity.to_owned(),
        ..coracle_scheduler::Options::default()
    };
    if let Some(found) = scheduling {
        (placing.profiles, placing.backoff) = (found.profiles.clone(), found.backoff);
    }
    Ok(vec![
        Part::start("controller-manager", |stop| coracle_controllers::run(manager, options, stop)),
        Part::start("scheduler", |stop| coracle_scheduler::run(scheduler, placing, stop)),
    ])
}

async fn start_node(
    options: &Options,
    plane: &ControlPlane,
    services: &Arc<ServiceTable>,
    runtime: &Arc<WasmRuntime>,
) -> Result<Vec<Part>> {
    let node_name = match &options.node_name {
        Some(name) => name.clone(),
        None => host_name().unwrap_or_else(|| "coracle".to_owned()),
    };
    let node_ip = NODE_IP;
    let tls = plane.pki.kubelet_server_config(&node_name, &[node_ip])?;
    let data_dir = options.data_dir.kubelet();
    let kubelet =
        kubelet_options(node_name.clone(), data_dir, Arc::clone(runtime) as _, tls).await?;
    let kubelet_client = plane.api.client(User::node(&node_name));
    let deliver = Arc::clone(runtime);
    let proxy = coracle_network::Options {
        table: Arc::clone(services),
        node_addresses: vec![node_ip],
        deliver: Arc::new(move |address, stream, offer| offered(&deliver, address, stream, offer)),
    };
    let proxy_client = plane.api.client(User::proxy());
    Ok(vec![
        Part::start("kubelet", |stop| coracle_kubelet::run(kubelet_client, kubelet, stop)),
        Part::start("proxy", |stop| coracle_network::run(proxy_client, proxy, stop)),
    ])
}

/// The proxy's short way to the engine of this process.
fn offered(
    runtime: &WasmRuntime,
    address: SocketAddr,
    stream: TcpStream,
    offer: Offer,
) -> Result<(), NotTaken> {
    let outcome = match offer {
        Offer::ToStaying => runtime.deliver(address, stream),
        Offer::ToAny => runtime.deliver_even_if_ending(address, stream),
    };
    outcome.map_err(|back| match back {
        coracle_runtime_wasm::NotTaken::NotHere(stream) => NotTaken::NotHere(stream),
        coracle_runtime_wasm::NotTaken::Ending(stream) => NotTaken::Ending(stream),
    })
}

/// What the kubelet of this machine is started with.
pub async fn kubelet_options(
    node_name: String,
    data_dir: PathBuf,
    runtime: Arc<dyn Runtime>,
    tls: Arc<rustls::ServerConfig>,
) -> Result<coracle_kubelet::Options> {
    let listener =
        TcpListener::bind((NODE_IP, 0)).await.context("cannot listen for the kubelet")?;
    Ok(coracle_kubelet::Options {
        node_name,
        node_ip: NODE_IP,
        data_dir,
        runtime,
        listener,
        tls,
        capacity: coracle_kubelet::Options::machine_capacity(),
        labels: BTreeMap::new(),
        pod_cidr: None,
        shutdown_grace: NODE_GRACE,
    })
}

/// The Wasm engine of this node.
pub fn open_runtime(
    data_dir: &DataDir,
    networks: &Networks,
    services: &Arc<ServiceTable>,
) -> Result<WasmRuntime> {
    let pods = PodNet::new(networks.pods(), 16)?;
    let options = coracle_runtime_wasm::Options::new(data_dir.wasm(), pods, Arc::clone(services));
    WasmRuntime::new(options).context("cannot start the Wasm engine")
}

/// A client of the cluster that runs on this data directory, when one does and is ready.
pub async fn running(data_dir: &DataDir) -> Option<Client> {
    let client = client_from(&data_dir.kubeconfig()).await.ok()?;
    let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
    let answer = tokio::time::timeout(PROBE_DEADLINE, client.request_text(request)).await;
    matches!(answer, Ok(Ok(_))).then_some(client)
}

/// A client as a kubeconfig says.
pub async fn client_from(kubeconfig: &Path) -> Result<Client> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    Ok(Client::try_from(config)?)
}

/// Which front proxies are believed, as the flags say.
fn request_header(flags: &Security) -> Result<RequestHeaderFlags> {
    Ok(RequestHeaderFlags {
        client_ca_pem: flags.requestheader_client_ca_file.as_ref().map(read).transpose()?,
        allowed_names: flags.requestheader_allowed_names.clone(),
        username_headers: flags.requestheader_username_headers.clone(),
        uid_headers: flags.requestheader_uid_headers.clone(),
        group_headers: flags.requestheader_group_headers.clone(),
        extra_headers_prefix: flags.requestheader_extra_headers_prefix.clone(),
    })
}

fn read(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Who issues tokens beside us, if the flags say so.
fn open_oidc(flags: &Security) -> Result<Option<Arc<Oidc>>> {
    if let Some(path) = &flags.authentication_config {
        return Ok(Some(Oidc::from_yaml(&read(path)?)?));
    }
    let (Some(issuer), Some(client)) = (&flags.oidc_issuer_url, &flags.oidc_client_id) else {
        return Ok(None);
    };
    let flags = OidcFlags {
        issuer_url: issuer.clone(),
        client_id: client.clone(),
        ca_pem: flags.oidc_ca_file.as_ref().map(read).transpose()?,
        username_claim: flags.oidc_username_claim.clone(),
        username_prefix: flags.oidc_username_prefix.clone(),
        groups_claim: flags.oidc_groups_claim.clone(),
        groups_prefix: flags.oidc_groups_prefix.clone(),
        required_claims: flags.oidc_required_claim.clone(),
    };
    Ok(Some(Oidc::from_flags(&flags)?))
}

/// The audit log, if the flags want one.
fn open_audit(flags: &Security) -> Result<Option<Arc<AuditLog>>> {
    let (Some(policy), Some(path)) = (&flags.audit_policy_file, &flags.audit_log_path) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(policy)
        .with_context(|| format!("cannot read {}", policy.display()))?;
    let file = LogFile {
        path: path.clone(),
        max_megabytes: flags.audit_log_maxsize,
        max_backups: flags.audit_log_maxbackup,
        max_days: flags.audit_log_maxage,
    };
    Ok(Some(AuditLog::open(&text, file)?))
}

/// How objects are encrypted on disk: as the file says, which is made at the first start.
fn open_encryption(options: &Options) -> Result<Encryption> {
    let path = match &options.security.encryption_provider_config {
        Some(path) => path.clone(),
        None => {
            let path = options.data_dir.encryption();
            if !path.exists() {
                DataDir::write_private(&path, Encryption::generate()?.as_bytes())?;
            }
            path
        }
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Encryption::from_yaml(&text).with_context(|| format!("cannot use {}", path.display()))
}

async fn open_store(options: &Options) -> Result<Store> {
    let path = match options.datastore_endpoint.as_deref() {
        None => options.data_dir.database(),
        Some(url) => match url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() => path.into(),
            _ => anyhow::bail!("--datastore-endpoint {url}: only sqlite://PATH is supported"),
        },
    };
    let encryption = Arc::new(open_encryption(options)?);
    let sealed = coracle_apiserver::store_options(path.clone()).sealed_with(encryption.clone());
    let store = Store::open(sealed)
        .await
        .with_context(|| format!("cannot open the state in {}", path.display()))?;
    let rewritten = encryption.rewrite_stale(&store).await.context("cannot encrypt the state")?;
    if rewritten > 0 {
        info!(objects = rewritten, "encrypted with the first key of the configuration");
    }
    Ok(store)
}

async fn bind(address: IpAddr, port: Port) -> Result<TcpListener> {
    let listen = async |port: u16| {
        TcpListener::bind((address, port))
            .await
            .with_context(|| format!("cannot listen on {address}:{port}"))
    };
    match port {
        Port::Exactly(port) => listen(port).await,
        Port::PreferablyStandard => match listen(STANDARD_PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => listen(0).await,
        },
    }
}

/// The address that clients on this machine use.
fn advertised(bind_address: IpAddr) -> IpAddr {
    if bind_address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bind_address }
}

/// The host's name, as a Node may be called.
pub fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    (!name.is_empty() && name != "(none)").then_some(name)
}
