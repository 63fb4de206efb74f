//! An operator of a kind of its own, written with kube-rs: it works, goes on after the server was killed, and hands over.

mod door;

use std::time::Duration;

use coracle_tests::Cluster;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, Config, CustomResourceExt as _};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use coracle_operator_story::{Fleet, NAMESPACE, operate};
use door::Door;

const DEADLINE: Duration = Duration::from_secs(60);

/// What the operator may do, and nothing else.
const RIGHTS: &str = "\
apiVersion: v1
kind: ServiceAccount
metadata: {name: fleet-operator}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: fleet-operator}
rules:
- {apiGroups: [harbour.example.com], resources: [fleets], verbs: [get, list, watch, patch]}
- {apiGroups: [harbour.example.com], resources: [fleets/status], verbs: [patch]}
- {apiGroups: [''], resources: [configmaps], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: fleet-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: fleet-operator}
subjects: [{kind: ServiceAccount, name: fleet-operator}]
";

/// The story's cluster, and how its clients reach it.
struct Harbour {
    cluster: Cluster,
    runtime: Runtime,
    door: Door,
    admin: Client,
}

impl Harbour {
    fn open() -> Self {
        let cluster = Cluster::start();
        let runtime = Runtime::new().expect("a runtime");
        let door = runtime.block_on(Door::open(port(&cluster)));
        let admin = runtime.block_on(client(&cluster, &door, None));
        Self { cluster, runtime, door, admin }
    }

    /// A client with the operator's own token.
    fn operator(&self) -> Client {
        let token = self.cluster.kubectl(&["create", "token", "fleet-operator"]);
        self.runtime.block_on(client(&self.cluster, &self.door, Some(token.trim())))
    }

    /// Kills the server as a power cut would, and starts it again.
    fn lose_power(&mut self) {
        self.cluster.kill();
        self.cluster.run();
        self.door.lead_to(port(&self.cluster));
    }

    #[track_caller]
    fn until<K>(&self, name: &str, what: &str, condition: impl Condition<K>) -> Option<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug,
        K: serde::de::DeserializeOwned + Send + 'static,
        K::DynamicType: Default,
    {
        let objects: Api<K> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let waiting = await_condition(objects, name, condition);
        match self.runtime.block_on(async { timeout(DEADLINE, waiting).await }) {
            Ok(found) => found.unwrap_or_else(|error| panic!("{what}: {error}")),
            Err(_) => panic!("not in time: {what}\n{}", self.cluster.log()),
        }
    }

    #[track_caller]
    fn until_boats(&self, boats: u32, admiral: &'static str) {
        let what = format!("{boats} boats under {admiral}");
        self.until("north", &what, move |fleet: Option<&Fleet>| {
            fleet.and_then(|fleet| fleet.status.as_ref()).is_some_and(|status| {
                status.boats == boats && status.admiral == admiral && status.observed_generation > 0
            })
        });
        let names = self.cluster.kubectl(&["get", "configmaps", "-l", "fleet=north", "-o", "name"]);
        let expected: Vec<String> =
            (0..boats).map(|number| format!("configmap/north-{number}")).collect();
        assert_eq!(names.lines().collect::<Vec<_>>(), expected);
    }
}

fn kubeconfig(cluster: &Cluster) -> Kubeconfig {
    Kubeconfig::read_from(cluster.kubeconfig()).expect("the kubeconfig can be read")
}

fn port(cluster: &Cluster) -> u16 {
    let kubeconfig = kubeconfig(cluster);
    let server = kubeconfig.clusters[0].cluster.as_ref().and_then(|it| it.server.clone());
    server.and_then(|server| server.rsplit(':').next()?.parse().ok()).expect("a URL with a port")
}

/// A client that knocks at the door: the administrator's, or one with a token.
async fn client(cluster: &Cluster, door: &Door, token: Option<&str>) -> Client {
    let mut kubeconfig = kubeconfig(cluster);
    for named in &mut kubeconfig.clusters {
        let cluster = named.cluster.as_mut().expect("a cluster");
        cluster.server = Some(format!("https://{}", door.address));
    }
    if let Some(token) = token {
        let own = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
        kubeconfig.auth_infos[0].auth_info = Some(own);
    }
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a config");
    Client::try_from(config).expect("a client")
}

fn define(harbour: &Harbour) {
    let definitions: Api<CustomResourceDefinition> = Api::all(harbour.admin.clone());
    let applying = PatchParams::apply("story");
    harbour.runtime.block_on(async {
        let definition = Patch::Apply(Fleet::crd());
        let applied = definitions.patch(Fleet::crd_name(), &applying, &definition);
        applied.await.expect("the definition is accepted");
        let established = conditions::is_crd_established();
        let waiting = await_condition(definitions, Fleet::crd_name(), established);
        timeout(DEADLINE, waiting).await.expect("established in time").expect("it can be watched");
    });
}

fn check(watching: watcher::Config) {
    let mut harbour = Harbour::open();
    define(&harbour);
    harbour.cluster.apply(RIGHTS);
    let first = harbour.runtime.spawn(operate(harbour.operator(), "first", watching.clone()));
    harbour.cluster.apply(
        "{apiVersion: harbour.example.com/v1, kind: Fleet, metadata: {name: north}, spec: {boats: 3}}",
    );
    harbour.until_boats(3, "first");
    let boat = harbour.cluster.json(&["configmap", "north-1"]);
    assert_eq!(boat["metadata"]["ownerReferences"][0]["kind"], "Fleet", "{boat}");
    assert_eq!(boat["data"]["colour"], "brown", "{boat}");

    harbour.cluster.kubectl(&["delete", "configmap", "north-1"]);
    harbour.until("north-1", "the lost boat is replaced", conditions::is_created::<ConfigMap>());
    harbour.cluster.kubectl(&["scale", "fleet/north", "--replicas=5"]);
    harbour.until_boats(5, "first");

    harbour.lose_power();
    harbour.cluster.kubectl(&["scale", "fleet/north", "--replicas=2"]);
    harbour.until_boats(2, "first");

    first.abort();
    let second = harbour.runtime.spawn(operate(harbour.operator(), "second", watching));
    harbour.cluster.kubectl(&["scale", "fleet/north", "--replicas=4"]);
    harbour.until_boats(4, "second");
    let shown = harbour.cluster.kubectl(&["describe", "fleet", "north"]);
    assert!(shown.contains("Sails") && shown.contains("with 4 boats"), "{shown}");

    // Deleted in the foreground: the operator signs off, then the boats go.
    harbour.cluster.kubectl(&["delete", "fleet", "north", "--cascade=foreground", "--timeout=60s"]);
    let logbook = harbour.cluster.json(&["configmap", "logbook"]);
    assert_eq!(logbook["data"]["north"], "signed off");
    let left = harbour.cluster.kubectl(&["get", "configmaps", "-l", "fleet=north", "-o", "name"]);
    assert_eq!(left, "");
    second.abort();
}

#[test]
fn an_operator_lists_and_watches() {
    check(watcher::Config::default());
}

#[test]
fn an_operator_streams_its_lists() {
    check(watcher::Config::default().streaming_lists());
}
