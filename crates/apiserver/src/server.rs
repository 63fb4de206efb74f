//! The server: what handlers share, and how it is started, called in memory and served over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use coracle_api::status::Status;
use coracle_store::Store;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::admission::Admission;
use crate::admission::policies::{self, Policies};
use crate::admission::webhooks::Webhooks;
use crate::aggregation::{self, Aggregator};
use crate::audit::AuditLog;
use crate::authn::oidc::Oidc;
use crate::authn::{Authenticator, RequestHeaderFlags, RequestHeaders};
use crate::authz::Authorizer;
use crate::custom_resources::Registry;
use crate::discovery::Discovery;
use crate::extension::ExtensionClient;
use crate::fairness::{self, Fairness};
use crate::handlers::encoded::Encoded;
use crate::identity::User;
use crate::kubelet_client::KubeletClient;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::pki::{Pki, PkiError};
use crate::resource_metrics::Usages;
use crate::reviews::Reviews;
use crate::router::InMemory;
use crate::service_addresses::{Cidr, ServiceAddresses, keep_ranges};
use crate::tokens::TokenIssuer;
use crate::turns::Turns;
use crate::{authz, bootstrap, custom_resources, quota, router, serve, upkeep};

/// What an API server is made of.
pub struct Config {
    /// The cluster's state. Opened with [`crate::store_options`].
    pub store: Store,
    /// The cluster's certificates and keys.
    pub pki: Arc<Pki>,
    /// Where clients find this server: what discovery and the `kubernetes` Service say.
    pub advertise: SocketAddr,
    /// Where the addresses of Services come from.
    pub service_cidr: Cidr,
}

/// What an API server may have beside.
#[derive(Default)]
pub struct Extras {
    /// Where requests are recorded.
    pub audit: Option<Arc<AuditLog>>,
    /// Whose tokens are good beside our own.
    pub oidc: Option<Arc<Oidc>>,
    /// Which front proxies are believed beside our own.
    pub request_header: RequestHeaderFlags,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys or certificates cannot be used.
    #[error("cannot use the cluster's keys")]
    Pki(#[from] PkiError),
    /// The store holds what cannot be read, or refuses what must be in every cluster.
    #[error("cannot bring in {what}: {status}")]
    Bootstrap {
        /// The object.
        what: String,
        /// Why.
        status: Box<Status>,
    },
}

/// What every request may need.
pub(crate) struct Server {
    pub(crate) store: Store,
    /// The kinds that are served at the moment.
    pub(crate) kinds: Arc<Registry>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) admission: Admission,
    pub(crate) tokens: Arc<TokenIssuer>,
    pub(crate) reviews: Reviews,
    pub(crate) addresses: Arc<ServiceAddresses>,
    /// Who serves group-versions instead of us.
    pub(crate) aggregator: Aggregator,
    pub(crate) turns: Turns,
    /// Watch events that were just sent.
    pub(crate) encoded: Arc<Encoded>,
    pub(crate) kubelets: KubeletClient,
    /// What nodes and pods use.
    pub(crate) usages: Usages,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) metrics: Metrics,
    pub(crate) fairness: Fairness,
    pub(crate) advertise: SocketAddr,
    pub(crate) audit: Option<Arc<AuditLog>>,
    /// Whether the objects that every cluster has are there.
    pub(crate) ready: AtomicBool,
    /// Connections that were handed on.
    pub(crate) tunnels: TaskTracker,
    /// Ends watches and everything else that would go on for ever.
    pub(crate) shutdown: CancellationToken,
}

/// A running API server. It lives as long as somebody holds it, serves it or is a client of it.
pub struct ApiServer {
    pub(crate) server: Arc<Server>,
    pub(crate) router: Router,
    pki: Arc<Pki>,
    /// Upkeep, which ends with its owner.
    upkeep: Mutex<JoinSet<()>>,
}

impl ApiServer {
    /// Starts the server and installs what every cluster has: namespaces, roles, priority classes, the `kubernetes` Service.
    ///
    /// # Errors
    /// When the keys cannot be used, or the store refuses those objects.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        Self::start_with(config, Extras::default()).await
    }

    /// [`ApiServer::start`], with what is not in every server.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(config: Config, extras: Extras) -> Result<Arc<Self>, StartError> {
        let Config { store, pki, advertise, service_cidr } = config;
        let tokens = Arc::new(TokenIssuer::new(&pki, store.clone())?);
        let authenticator = Authenticator::new(&pki, tokens.clone(), store.clone())?;
        let proxies = RequestHeaders::new(&pki, &extras.request_header)?;
        let authenticator = Arc::new(authenticator.trusting(extras.oidc).behind(proxies));
        let authorizer = Authorizer::new(&store);
        let addresses = ServiceAddresses::load(service_cidr, &store).map_err(|status| {
            StartError::Bootstrap {
                what: "the Services' addresses".to_owned(),
                status: Box::new(status),
            }
        })?;
        let extensions = Arc::new(ExtensionClient::new(store.clone(), &pki));
        let kinds = Arc::new(Registry::new(extensions.clone()));
        let metrics = Metrics::default();
        let (counters, client) = (metrics.admission.clone(), extensions.clone());
        let policies =
            Policies::new(store.clone(), authorizer.clone(), kinds.clone(), counters.clone());
        let webhooks =
            Webhooks::new(store.clone(), authorizer.clone(), kinds.clone(), client, counters);
        let admission = Admission::new(store.clone(), authorizer.clone(), kinds.clone())
            .with_policies(policies)
            .with_webhooks(webhooks);
        let server = Arc::new(Server {
            admission,
            reviews: Reviews::new(authenticator.clone(), authorizer.clone()),
            kubelets: KubeletClient::new(pki.kubelet_client_config()?)
                .with_unverified(Pki::unverified_client_config()?),
            kinds,
            usages: Usages::default(),
            discovery: Discovery::new(advertise),
            openapi: OpenApi::default(),
            metrics,
            fairness: Fairness::new(&store),
            turns: Turns::default(),
            encoded: Arc::default(),
            ready: AtomicBool::new(false),
            tunnels: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            store,
            authenticator,
            authorizer,
            tokens,
            addresses: Arc::new(addresses),
            aggregator: Aggregator::new(extensions),
            advertise,
            audit: extras.audit,
        });
        let router = router::router(server.clone());
        let started = Arc::new(Self { router, server, pki, upkeep: Mutex::default() });
        let client = started.client(User::new("system:apiserver", &["system:masters"]));
        let mut definitions = custom_resources::Upkeep::default();
        definitions.reconcile(&started.server).await;
        bootstrap::install(&started.server, &client, &started.pki).await?;
        started.server.fairness.reload(&started.server.store);
        aggregation::begin(&started.server);
        started.start_upkeep(&client, definitions);
        started.server.ready.store(true, Ordering::Release);
        Ok(started)
    }

    fn start_upkeep(&self, client: &kube::Client, definitions: custom_resources::Upkeep) {
        let (server, ends) = (&self.server, &self.server.shutdown);
        let mut upkeep = self.upkeep.lock();
        upkeep.spawn(upkeep::expire_events(server.clone(), ends.clone()));
        upkeep.spawn(definitions.run(server.clone(), client.clone(), ends.clone()));
        upkeep.spawn(aggregation::keep_registered(server.clone(), client.clone(), ends.clone()));
        upkeep.spawn(aggregation::keep_available(server.clone(), client.clone(), ends.clone()));
        upkeep.spawn(fairness::keep(server.clone(), client.clone(), ends.clone()));
        upkeep.spawn(keep_ranges(server.clone(), client.clone(), ends.clone()));
        let quotas = server.admission.quotas();
        upkeep.spawn(quota::keep_status(quotas, client.clone(), ends.clone()));
        let (kinds, store) = (server.kinds.clone(), server.store.clone());
        upkeep.spawn(policies::keep_status(store, kinds, client.clone(), ends.clone()));
        let aggregation = self.client(User::role_aggregation());
        upkeep.spawn(authz::follow_aggregation(aggregation, server.store.clone(), ends.clone()));
        for resource in ["services", "endpoints", "endpointslices.discovery.k8s.io"] {
            upkeep.spawn(upkeep::keep_kubernetes_service(
                server.clone(),
                client.clone(),
                resource,
                ends.clone(),
            ));
        }
    }

    /// A client in this process: its requests go to the router without a socket, and are authorized as this user's.
    pub fn client(&self, user: User) -> kube::Client {
        let router = self.router.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let mut router = router.clone();
            let user = user.clone();
            async move {
                let mut request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(InMemory(user));
                router.call(request).await
            }
        });
        kube::Client::new(service, "default")
    }

    /// Serves clients over TLS until `shutdown`; then ends watches, and returns when open requests are answered or their grace is over.
    ///
    /// # Errors
    /// When the serving certificate cannot be used.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), PkiError> {
        let tls = self.pki.server_config(self.server.authenticator.proxies().authorities_pem())?;
        serve::serve(&self, tls, listener, shutdown).await;
        Ok(())
    }

    /// Ends all watches and follows, of clients in memory too, and the server's own upkeep. The store stays open.
    pub async fn shutdown(&self) {
        self.server.shutdown.cancel();
        let mut upkeep = std::mem::take(&mut *self.upkeep.lock());
        while upkeep.join_next().await.is_some() {}
        self.server.tunnels.close();
        self.server.tunnels.wait().await;
        if let Some(audit) = &self.server.audit {
            audit.close().await;
        }
    }
}
