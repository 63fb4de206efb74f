//! A node whose pods need nothing does nothing. Alone in its file: it measures the whole process.

#[expect(dead_code, reason = "the stories in pods.rs use the rest")]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::TestNode;

/// Far above what leases and timers need, far below what any loop without a wait would burn.
const ALLOWED: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_node_does_nothing() {
    let node = TestNode::start().await;
    let main = |image: &str| json!({ "containers": [{ "name": "main", "image": image }] });
    for at in 0..50 {
        node.pod(&format!("web-{at}"), main("serve:1"));
    }
    node.pod("crash", main("exit-1:1"));
    node.pod("pull", main("missing/app:1"));
    node.pod("import", main("import:1"));
    let mut done = main("exit-0:1");
    done["restartPolicy"] = json!("Never");
    node.pod("done", done);
    let mut mount = main("serve:1");
    mount["volumes"] = json!([{ "name": "v", "configMap": { "name": "none" } }]);
    node.pod("mount", mount);

    for at in 0..50 {
        node.until_ready(&format!("web-{at}")).await;
    }
    let waits = |reason: &'static str| {
        move |pod: &Value| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
        }
    };
    node.until("crash", waits("CrashLoopBackOff")).await;
    node.until("pull", waits("ImagePullBackOff")).await;
    node.until("done", |pod| pod["status"]["phase"] == "Succeeded").await;

    let before = cpu_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu_time() - before;
    println!("a quiet node used {used:?} of processor time in two seconds");
    assert!(used < ALLOWED, "{used:?}");

    // And it is awake at once when something comes.
    let mut took: Vec<Duration> = Vec::new();
    for at in 0..20 {
        let begun = Instant::now();
        node.pod(&format!("fast-{at}"), main("serve:1"));
        node.until_ready(&format!("fast-{at}")).await;
        took.push(begun.elapsed());
    }
    took.sort();
    println!("a pod was ready {:?} after it was bound (median of 20)", took[10]);
    assert!(took[10] < Duration::from_millis(100), "{took:?}");
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}
