//! One part of a cluster by itself: the same code as in one process, over HTTPS.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use coracle_api::services::ServiceTable;
use coracle_apiserver::identity::User;
use coracle_controllers::SigningCa;
use coracle_runtime::Runtime;

use crate::cli;
use crate::cluster::{
    ControlPlane, NODE_IP, Options, Port, candidate_name, client_from, host_name, kubelet_options,
    open_runtime,
};
use crate::data_dir::DataDir;
use crate::shutdown;

/// Runs the API server alone, and writes a kubeconfig for each of the other parts.
pub async fn apiserver(options: cli::ApiServer) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let data_dir = DataDir::open(&options.data_dir)?;
    let plane = ControlPlane::start(&Options {
        data_dir: data_dir.clone(),
        bind_address: options.bind_address,
        port: Port::Exactly(options.secure_port),
        datastore_endpoint: options.datastore_endpoint,
        security: options.security,
        node_name: None,
        scheduler: None,
    })
    .await?;
    write_component_files(&plane, &data_dir)?;
    stop.cancelled().await;
    plane.stop().await;
    Ok(())
}

/// `controller-manager.kubeconfig` and so on, and what a kubelet on this machine needs.
fn write_component_files(plane: &ControlPlane, data_dir: &DataDir) -> Result<()> {
    let url = format!("https://{}", plane.address);
    let node = host_name().unwrap_or_else(|| "coracle".to_owned());
    let users = [
        ("controller-manager", User::controller_manager()),
        ("scheduler", User::scheduler()),
        ("proxy", User::proxy()),
        ("kubelet", User::node(&node)),
    ];
    for (name, user) in users {
        let kubeconfig = plane.pki.kubeconfig(&url, &user)?;
        let path = data_dir.path().join(format!("{name}.kubeconfig"));
        DataDir::write_private(&path, kubeconfig.as_bytes())?;
    }
    let own = plane.pki.serving_certificate(&node, &[NODE_IP])?;
    DataDir::write_private(&data_dir.pki().join("kubelet.crt"), own.certificate.as_bytes())?;
    DataDir::write_private(&data_dir.pki().join("kubelet.key"), own.key.as_bytes())
}

/// Under which name this process asks for leadership.
fn process_name() -> String {
    candidate_name(&uuid::Uuid::new_v4().to_string())
}

/// Runs the controllers alone.
pub async fn controller_manager(options: cli::ControllerManager) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let kubeconfig = &options.component.kubeconfig;
    let client = client_from(kubeconfig).await?;
    let mut wanted =
        coracle_controllers::Options::new(cluster_ca(kubeconfig)?).identified_as(process_name());
    if let (Some(certificate), Some(key)) =
        (&options.cluster_signing_cert_file, &options.cluster_signing_key_file)
    {
        wanted = wanted.signing_with(SigningCa::new(&read(certificate)?, &read(key)?)?);
    }
    Ok(coracle_controllers::run(client, wanted, stop).await?)
}

/// Runs the scheduler alone.
pub async fn scheduler(options: cli::Scheduler) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let mut wanted = coracle_scheduler::Options { identity: process_name(), ..Default::default() };
    let mut kubeconfig = options.kubeconfig;
    if let Some(path) = &options.config {
        let found = scheduler_configuration(path)?;
        (wanted.profiles, wanted.backoff) = (found.profiles, found.backoff);
        kubeconfig = kubeconfig.or(found.kubeconfig.map(PathBuf::from));
    }
    let kubeconfig =
        kubeconfig.context("neither --kubeconfig nor the file says how to reach the API server")?;
    let client = client_from(&kubeconfig).await?;
    Ok(coracle_scheduler::run(client, wanted, stop).await?)
}

/// Reads a KubeSchedulerConfiguration.
pub fn scheduler_configuration(path: &Path) -> Result<coracle_scheduler::Configuration> {
    let text = read(path)?;
    coracle_scheduler::Configuration::parse(&text)
        .with_context(|| format!("cannot use {}", path.display()))
}

/// Runs the service proxy alone.
pub async fn proxy(options: cli::Component) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let client = client_from(&options.kubeconfig).await?;
    let options = coracle_network::Options {
        table: Arc::new(ServiceTable::default()),
        node_addresses: vec![NODE_IP],
        // No server lives in this process.
        deliver: Arc::new(|_, stream, _| Err(coracle_network::NotTaken::NotHere(stream))),
    };
    Ok(coracle_network::run(client, options, stop).await?)
}

/// Runs a kubelet alone. Its guests see Services through a table that it keeps itself.
pub async fn kubelet(options: cli::Kubelet) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let data_dir = DataDir::open(&options.data_dir)?;
    let networks = data_dir.claim_networks()?;
    let client = client_from(&options.component.kubeconfig).await?;
    let services = Arc::new(ServiceTable::default());
    let runtime = Arc::new(open_runtime(&data_dir, &networks, &services)?);
    let node_name =
        options.node_name.or_else(host_name).context("this machine has no name: --node-name")?;
    let tls = coracle_apiserver::pki::kubelet_server_config_from(
        &read(&options.tls_cert_file)?,
        &read(&options.tls_private_key_file)?,
        &read(&options.client_ca_file)?,
    )?;
    let kubelet =
        kubelet_options(node_name, data_dir.kubelet(), Arc::clone(&runtime) as _, tls).await?;
    let table = coracle_network::follow_table(client.clone(), services, stop.clone());
    let (kubelet, table) = tokio::join!(coracle_kubelet::run(client, kubelet, stop), table);
    runtime.shutdown(std::time::Duration::from_secs(1)).await;
    kubelet?;
    Ok(table?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The CA that a kubeconfig trusts: what every pod of the cluster is to trust.
fn cluster_ca(kubeconfig: &Path) -> Result<String> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let clusters = file.clusters.into_iter().filter_map(|named| named.cluster);
    let mut data = clusters.filter_map(|cluster| cluster.certificate_authority_data);
    let encoded = data.next().context("the kubeconfig names no certificate authority")?;
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded.trim())
        .context("the kubeconfig's certificate authority is damaged")?;
    Ok(String::from_utf8(pem)?)
}
