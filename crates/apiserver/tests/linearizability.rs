//! Many clients write, read, list and watch a few objects over TLS, and one order of all writes explains what they saw.

mod harness;
mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_apiserver::identity::User;
use futures::StreamExt as _;
use harness::{Answer, Harness};
use history::{Action, Event, EventKind, Freshness, History, Operation, Revision, Seen, Watch};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/history/configmaps";
/// Few, so that clients meet.
const KEYS: [&str; 3] = ["a", "b", "c"];
const CLIENTS: usize = 8;
const REQUESTS: usize = 400;
/// Written when everybody is done: watches end with it.
const END: &str = "end";
/// After so many events a watch is dropped and resumed.
const EVENTS_PER_WATCH: usize = 40;
const DEADLINE: Duration = Duration::from_secs(60);

fn revision(text: &Value) -> Revision {
    text.as_str().unwrap().parse().unwrap()
}

fn key(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn seen(object: &Value) -> Seen {
    Seen {
        revision: revision(&object["metadata"]["resourceVersion"]),
        uid: object["metadata"]["uid"].as_str().unwrap().to_owned(),
        value: object["data"]["value"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Where the clients knock, and the clock that they share.
struct Scene {
    kubeconfig: String,
    start: Instant,
}

impl Scene {
    async fn client(&self) -> kube::Client {
        let file = Kubeconfig::from_yaml(&self.kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }
}

/// One client: what it does next, and what it was answered.
struct Actor {
    number: usize,
    scene: Arc<Scene>,
    client: kube::Client,
    choice: StdRng,
    /// The versions that it saw last.
    known: BTreeMap<String, Seen>,
    operations: Vec<Operation>,
}

impl Actor {
    async fn new(number: usize, scene: Arc<Scene>) -> Self {
        let client = scene.client().await;
        let choice = StdRng::seed_from_u64(u64::try_from(number).unwrap());
        Self { number, scene, client, choice, known: BTreeMap::new(), operations: Vec::new() }
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body);
        harness::send(&self.client, request.unwrap()).await
    }

    /// Sends one request and notes when it was under way and what came of it.
    async fn act(&mut self) {
        let key = KEYS[self.choice.random_range(0..KEYS.len())].to_owned();
        let began = self.scene.now();
        let (freshness, action) = match self.choice.random_range(0..10) {
            0..2 => (Freshness::Latest, self.create(key).await),
            2..5 => (Freshness::Latest, self.update(key).await),
            5 => (Freshness::Latest, self.delete(key).await),
            6 => (Freshness::Latest, self.read(key, "").await),
            7 => (Freshness::Any, self.read(key, "?resourceVersion=0").await),
            8 => (Freshness::Latest, self.list("").await),
            _ => self.list_otherwise().await,
        };
        let ended = self.scene.now();
        match &action {
            Action::Created { key, object }
            | Action::Updated { key, object, .. }
            | Action::Read { key, object } => {
                self.known.insert(key.clone(), object.clone());
            }
            Action::Listed { objects, .. } => self.known.extend(objects.clone()),
            _ => {}
        }
        let client = self.number;
        self.operations.push(Operation { client, began, ended, freshness, action });
    }

    fn value(&self) -> String {
        format!("{} of {}", self.operations.len(), self.number)
    }

    async fn create(&self, key: String) -> Action {
        let body = json!({ "metadata": { "name": key }, "data": { "value": self.value() } });
        let answer = self.send(Method::POST, MAPS, body).await;
        match answer.code {
            409 => Action::Exists { key },
            _ => Action::Created { key, object: seen(&answer.expect(201)) },
        }
    }

    /// Replaces the version that this client saw last.
    async fn update(&self, key: String) -> Action {
        let Some(known) = self.known.get(&key) else {
            return self.create(key).await;
        };
        let (from, uid) = (known.revision, known.uid.clone());
        let metadata = json!({ "name": key, "uid": uid, "resourceVersion": from.to_string() });
        let body = json!({ "metadata": metadata, "data": { "value": self.value() } });
        let answer = self.send(Method::PUT, &format!("{MAPS}/{key}"), body).await;
        match answer.code {
            404 => Action::Missing { key },
            409 => Action::Conflict { key, from },
            _ => Action::Updated { key, from, object: seen(&answer.expect(200)) },
        }
    }

    async fn delete(&self, key: String) -> Action {
        let answer = self.send(Method::DELETE, &format!("{MAPS}/{key}"), Value::Null).await;
        match answer.code {
            404 => Action::Missing { key },
            _ => {
                let status = answer.expect(200);
                Action::Deleted { key, uid: status["details"]["uid"].as_str().unwrap().to_owned() }
            }
        }
    }

    async fn read(&self, key: String, query: &str) -> Action {
        let answer = self.send(Method::GET, &format!("{MAPS}/{key}{query}"), Value::Null).await;
        match answer.code {
            404 => Action::Missing { key },
            _ => Action::Read { key, object: seen(&answer.expect(200)) },
        }
    }

    async fn list(&self, query: &str) -> Action {
        let path = format!("{MAPS}{query}");
        listed(&self.send(Method::GET, &path, Value::Null).await.expect(200))
    }

    /// From the cache, or exactly as it was at a revision that this client saw.
    async fn list_otherwise(&mut self) -> (Freshness, Action) {
        let seen = self.known.values().map(|object| object.revision).max();
        match seen.filter(|_| self.choice.random_bool(0.5)) {
            None => (Freshness::Any, self.list("?resourceVersion=0").await),
            Some(revision) => {
                let exactly =
                    format!("?limit=9&resourceVersionMatch=Exact&resourceVersion={revision}");
                (Freshness::Exactly(revision), self.list(&exactly).await)
            }
        }
    }
}

fn listed(list: &Value) -> Action {
    let items = list["items"].as_array().unwrap().iter();
    Action::Listed {
        revision: revision(&list["metadata"]["resourceVersion"]),
        objects: items.map(|item| (key(item), seen(item))).collect(),
    }
}

/// Watches from a revision to the end, in several pieces.
async fn watch(scene: Arc<Scene>, from: Revision) -> Watch {
    let client = scene.client().await;
    let mut events: Vec<Event> = Vec::new();
    loop {
        let since = events.last().map_or(from, |event| event.object.revision);
        let path = format!("{MAPS}?watch=true&resourceVersion={since}");
        let mut stream = harness::watch_as(&client, &path).await;
        for _ in 0..EVENTS_PER_WATCH {
            let event = stream.next().await.expect("the watch goes on");
            let object = &event["object"];
            if key(object) == END {
                return Watch { from, events };
            }
            let kind = match event["type"].as_str().unwrap() {
                "ADDED" => EventKind::Added,
                "MODIFIED" => EventKind::Modified,
                "DELETED" => EventKind::Deleted,
                other => panic!("a watch says {other}: {event}"),
            };
            events.push(Event { kind, key: key(object), object: seen(object) });
        }
    }
}

/// Lists, and watches from there on.
async fn list_and_watch(scene: Arc<Scene>) -> Watch {
    let client = scene.client().await;
    let answer = harness::send(&client, Request::get(MAPS).body(Vec::new()).unwrap()).await;
    let from = revision(&answer.expect(200)["metadata"]["resourceVersion"]);
    watch(scene, from).await
}

async fn play(scene: Arc<Scene>, client: &kube::Client, from: Revision) -> History {
    let mut watches = JoinSet::new();
    watches.spawn(watch(scene.clone(), from));
    let mut actors = JoinSet::new();
    let (half_done, mut half_time) = mpsc::channel(CLIENTS);
    for number in 0..CLIENTS {
        let (scene, half_done) = (scene.clone(), half_done.clone());
        actors.spawn(async move {
            let mut actor = Actor::new(number, scene).await;
            for request in 0..REQUESTS {
                if request == REQUESTS / 2 {
                    half_done.send(()).await.unwrap();
                }
                actor.act().await;
            }
            actor.operations
        });
    }
    drop(half_done);
    // Other watches begin in the middle.
    while half_time.recv().await.is_some() {
        watches.spawn(list_and_watch(scene.clone()));
    }
    let operations = actors.join_all().await.concat();
    let end = json!({ "metadata": { "name": END } }).to_string().into_bytes();
    let request = Request::post(MAPS).header("content-type", "application/json").body(end);
    harness::send(client, request.unwrap()).await.expect(201);
    let mut watches = watches.join_all().await;
    watches.sort_by_key(|watch| watch.from);
    History { operations, watches }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_order_of_writes_explains_what_everybody_saw() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Harness::start_in(tempfile::tempdir().unwrap(), address).await;
    server.namespace("history").await;
    let stop = CancellationToken::new();
    let (api, stopping) = (server.api.clone(), stop.clone());
    let serving = tokio::spawn(async move { api.serve(listener, stopping).await.unwrap() });
    let admin = User::new("admin", &["system:masters"]);
    let kubeconfig = server.pki.kubeconfig(&format!("https://{address}"), &admin).unwrap();
    let scene = Arc::new(Scene { kubeconfig, start: Instant::now() });

    let list = server.get(MAPS).await.expect(200);
    let from = revision(&list["metadata"]["resourceVersion"]);
    let playing = play(scene, &server.client, from);
    let history = tokio::time::timeout(DEADLINE, playing).await.expect("played in time");
    stop.cancel();
    serving.await.unwrap();

    let writes = history.watches[0].events.len();
    assert!(writes > CLIENTS * REQUESTS / 10, "only {writes} writes");
    let met = |operation: &Operation| matches!(operation.action, Action::Conflict { .. });
    assert!(history.operations.iter().any(met), "no two clients met");
    if let Err(violation) = history::check(&history) {
        panic!("{violation}");
    }
}
