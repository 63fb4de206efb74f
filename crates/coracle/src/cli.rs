//! The command line. Scripts rely on it: names and meanings stay.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Kubernetes that one person can carry: one binary that is a whole cluster.
#[derive(Parser)]
#[command(name = "coracle", version, arg_required_else_help = true)]
pub struct Arguments {
    /// Log more: -v what happens, -vv why, -vvv the wire. CORACLE_LOG takes a full filter.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run manifests and their .wasm files on this machine, and follow their logs.
    Up(Up),
    /// Run a whole cluster: the control plane and a node.
    Server(Server),
    /// Run the control plane's API server alone.
    Apiserver(ApiServer),
    /// Run the controllers alone, against an API server.
    ControllerManager(ControllerManager),
    /// Run the scheduler alone, against an API server.
    Scheduler(Scheduler),
    /// Run the service proxy alone, against an API server.
    Proxy(Component),
    /// Run a kubelet alone, against an API server.
    Kubelet(Kubelet),
    /// Put local modules into the node's image store, or list what is there.
    Image {
        #[command(subcommand)]
        command: Image,
    },
}

#[derive(Args)]
pub struct Up {
    /// Manifests (YAML or JSON), or folders of them.
    #[arg(value_name = "FILE|DIR", required_unless_present = "files")]
    pub paths: Vec<PathBuf>,

    /// The same, as kubectl spells it.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub data_dir: DataDir,
}

#[derive(Args)]
pub struct Server {
    #[command(flatten)]
    pub api: ApiServer,

    /// The name of this machine's Node.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// How pods are placed: a KubeSchedulerConfiguration.
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,
}

#[derive(Args)]
pub struct ApiServer {
    #[command(flatten)]
    pub data_dir: DataDir,

    /// The address to serve on.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// The port to serve on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,

    /// Where state is kept: sqlite://PATH. The default is a file in the data directory.
    #[arg(long, value_name = "URL")]
    pub datastore_endpoint: Option<String>,

    #[command(flatten)]
    pub security: Security,
}

/// The flags of upstream's kube-apiserver about secrets and who is who.
#[derive(Args, Clone, Default)]
pub struct Security {
    /// How Secrets and other objects are encrypted on disk [default: encryption.yaml in the data directory, made at first].
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,

    /// Whose tokens are good beside our own: an AuthenticationConfiguration of apiserver.config.k8s.io/v1.
    #[arg(long, value_name = "FILE", conflicts_with = "oidc_issuer_url")]
    pub authentication_config: Option<PathBuf>,

    /// The OpenID Connect issuer whose tokens are good beside our own: an https URL.
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,

    /// For whom the issuer's tokens must be.
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,

    /// Who signs the issuer's certificate [default: whom this system trusts].
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,

    /// The claim that is the user's name.
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,

    /// What is put before the name; - is nothing [default: the issuer and #, nothing before the claim email].
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub oidc_username_prefix: String,

    /// The claim that holds the user's groups.
    #[arg(long, value_name = "CLAIM", default_value = "")]
    pub oidc_groups_claim: String,

    /// What is put before each group.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub oidc_groups_prefix: String,

    /// A claim that must be so; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub oidc_required_claim: Vec<String>,

    /// Who signs the certificates of front proxies, who say in headers who asks, beside our own authority for them.
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// The names that those certificates may bear [default: any by that file, front-proxy-client by our own authority].
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        requires = "requestheader_client_ca_file"
    )]
    pub requestheader_allowed_names: Vec<String>,

    /// In which headers they say the user's name [default: X-Remote-User].
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,

    /// In which headers they say the user's uid [default: X-Remote-Uid].
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,

    /// In which headers they say the user's groups [default: X-Remote-Group].
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,

    /// What the headers start with in which they say what else is known of the user [default: X-Remote-Extra-].
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,

    /// Which requests are recorded, and how much of them: a Policy of audit.k8s.io/v1.
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,

    /// Where requests are recorded, an event a line; - is the standard output.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,

    /// How large the file grows before another is begun, in megabytes; 0 means 100.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub audit_log_maxsize: u64,

    /// How many old files are kept; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub audit_log_maxbackup: usize,

    /// How many days old files are kept; 0 keeps them for ever.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub audit_log_maxage: u64,
}

#[derive(Args)]
pub struct Component {
    /// How to reach the API server, and as whom.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
}

#[derive(Args)]
pub struct Scheduler {
    /// How to reach the API server, and as whom.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    pub kubeconfig: Option<PathBuf>,

    /// How pods are placed: a KubeSchedulerConfiguration.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Args)]
pub struct ControllerManager {
    #[command(flatten)]
    pub component: Component,

    /// The certificate of the authority that signs approved CertificateSigningRequests.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,

    /// The key of that authority.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Kubelet {
    #[command(flatten)]
    pub component: Component,

    #[command(flatten)]
    pub data_dir: DataDir,

    /// The name of this machine's Node: the one that the kubeconfig's certificate names.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// The certificate that the kubelet's own server shows.
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: PathBuf,

    /// The key of that certificate.
    #[arg(long, value_name = "FILE")]
    pub tls_private_key_file: PathBuf,

    /// Who signs the certificates of the kubelet's clients.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: PathBuf,
}

#[derive(Args, Clone)]
pub struct DataDir {
    /// Where everything is kept [default: /var/lib/coracle for root, ~/.coracle otherwise].
    #[arg(long = "data-dir", value_name = "DIR")]
    pub path: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Image {
    /// Put a .wasm file into the image store under a name.
    Import {
        /// A module or a component.
        file: PathBuf,
        /// The name that manifests use: NAME:TAG.
        name: String,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// List the images of the store.
    List {
        #[command(flatten)]
        data_dir: DataDir,
    },
}

impl Arguments {
    /// The log filter that the flags ask for.
    pub fn log_level(&self) -> &'static str {
        match (self.verbose, &self.command) {
            // `up` talks to a person; what it says itself is enough.
            // A cluster that does not run yet is no error, though the client that asks says so.
            (0, Command::Up(_) | Command::Image { .. }) => "error,kube_client=off",
            (0, _) => "warn,coracle=info",
            (1, _) => "info",
            (2, _) => {
                "debug,hyper=info,h2=info,tower=info,rustls=info,sqlx=info,wasmtime=info,cranelift=info"
            }
            (_, _) => "trace",
        }
    }
}
