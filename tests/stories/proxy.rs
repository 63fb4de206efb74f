//! What runs in the cluster is reached through the API server: by `kubectl get --raw`, and by `kubectl proxy` from other programs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use coracle_tests::{Cluster, examples, get, kubectls};

/// `kubectl proxy`, ended with its story.
struct Proxy {
    child: Child,
    /// What it said that it serves on.
    place: String,
}

impl Proxy {
    fn start(cluster: &Cluster, flag: &str) -> Self {
        let mut command = cluster.kubectl_command(&["proxy", flag]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("Starting to serve on ").expect(&line).to_owned();
        Self { child, place }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        assert!(ended.is_ok(), "kubectl proxy did not end: {ended:?}");
    }
}

#[test]
fn pods_services_and_nodes_answer_through_the_api_server() {
    for kubectl in kubectls() {
        let cluster = Cluster::start().with_kubectl(&kubectl);
        cluster.import(&examples("hello").join("hello.wasm"), "hello.wasm");
        cluster.kubectl(&["apply", "-f", examples("hello").to_str().unwrap()]);
        cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"]);
        let pods = cluster.kubectl(&["get", "pods", "-l", "app=hello", "-o", "name"]);
        let pod = pods.lines().next().unwrap().trim_start_matches("pod/");
        let below = "/api/v1/namespaces/default";
        cluster.until("the service has endpoints", |cluster| {
            let path = format!("{below}/services/hello/proxy/");
            cluster.try_kubectl(&["get", "--raw", &path]).code == Some(0)
        });
        for path in [
            format!("{below}/services/hello:80/proxy/"),
            format!("{below}/services/http:hello:80/proxy/"),
            format!("{below}/pods/{pod}/proxy/"),
            format!("{below}/pods/http:{pod}:8080/proxy/"),
        ] {
            let answer = cluster.kubectl(&["get", "--raw", &path]);
            assert!(answer.contains("pod: hello-"), "{path}: {answer}");
        }
        let node = cluster.kubectl(&["get", "nodes", "-o", "name"]);
        let node = node.trim().trim_start_matches("node/");
        let healthy = format!("/api/v1/nodes/{node}/proxy/healthz");
        assert_eq!(cluster.kubectl(&["get", "--raw", &healthy]).trim(), "ok");
        let nobody =
            cluster.kubectl_refused(&["get", "--raw", &format!("{below}/services/none/proxy/")]);
        assert!(nobody.contains("services \"none\" not found"), "{nobody}");

        let proxy = Proxy::start(&cluster, "--port=0");
        let address: SocketAddr = proxy.place.parse().unwrap();
        assert!(get(address, "/api/").unwrap().body.contains("\"APIVersions\""));
        let answer = get(address, &format!("{below}/services/hello:80/proxy/")).unwrap();
        assert!(answer.body.contains("pod: hello-"), "{answer:?}");
        let socket = cluster.data_dir().join("proxy.sock");
        let proxy = Proxy::start(&cluster, &format!("--unix-socket={}", socket.display()));
        let mut stream = UnixStream::connect(&proxy.place).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /api/ HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"APIVersions\""), "{answer}");
    }
}
