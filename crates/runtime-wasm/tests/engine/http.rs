//! Guests that answer HTTP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_runtime::{ContainerSpec, ExitReason, StartError};
use coracle_runtime_wasm::NotTaken;
use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Pod, end, engine, get, get_with, http_client, stop};

const REUSE: &str = "wasm.coracle.dev/instance-reuse";

async fn serve(change: impl FnOnce(&mut ContainerSpec)) -> (Pod, ContainerSpec) {
    let pod = Pod::new().await;
    let mut spec = pod.spec("web", &[]);
    change(&mut spec);
    pod.start(&spec).await.unwrap();
    (pod, spec)
}

async fn counts(pod: &Pod, requests: usize) -> Vec<String> {
    let client = http_client();
    let mut counts = Vec::new();
    for _ in 0..requests {
        counts.push(get_with(&client, pod.at(8080), "/count").await.1);
    }
    counts
}

#[tokio::test]
async fn each_request_has_a_fresh_instance() {
    let (pod, spec) = serve(|spec| spec.env = vec![("NAME".into(), "value".into())]).await;
    assert_eq!(counts(&pod, 4).await, ["0", "0", "0", "0"]);
    assert_eq!(pod.get("/env?NAME").await, (200, "value".to_owned()));
    assert_eq!(pod.get("/print?one").await.0, 200);
    let ended = stop(&spec, Duration::from_secs(10)).await;
    assert_eq!((ended.code, ended.reason), (0, ExitReason::Completed));
    assert_eq!(ended.lines, ["one"]);
}

#[tokio::test]
async fn an_instance_is_reused_as_often_as_the_annotation_says_and_never_after_a_trap() {
    let (pod, spec) = serve(|spec| {
        spec.annotations.insert(REUSE.to_owned(), "3".to_owned());
    })
    .await;
    assert_eq!(counts(&pod, 7).await, ["0", "1", "2", "0", "1", "2", "0"]);
    assert_eq!(pod.get("/trap").await.0, 500);
    assert_eq!(counts(&pod, 2).await, ["0", "1"]);
    stop(&spec, Duration::ZERO).await;

    let pod = Pod::new().await;
    let mut spec = pod.spec("web", &[]);
    spec.annotations.insert(REUSE.to_owned(), "often".to_owned());
    let error = pod.start(&spec).await.unwrap_err();
    assert!(matches!(error, StartError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_guest_that_fails_harms_only_its_own_request() {
    let (pod, spec) = serve(|_| ()).await;
    for path in ["/trap", "/silence", "/unknown"] {
        assert_eq!(pod.get(path).await.0, 500, "{path}");
    }
    assert_eq!(pod.get("/late-trap").await, (200, "sent".to_owned()));
    assert_eq!(pod.get("/").await, (200, "hello\n".to_owned()));
    let ended = stop(&spec, Duration::ZERO).await;
    let told = ended.lines.iter().filter(|line| line.contains("`unreachable`")).count();
    assert_eq!(told, 2, "{:?}", ended.lines);
}

#[tokio::test]
async fn bodies_of_any_size_pass_both_ways() {
    let (pod, spec) = serve(|_| ()).await;
    let (status, text) = pod.get("/large?5000000").await;
    assert_eq!((status, text.len()), (200, 5_000_000));
    let (_, text) = pod.get("/stream?20").await;
    assert_eq!(text.lines().count(), 20);
    assert!(text.ends_with("line 19\n"));
    let sent = "z".repeat(3_000_000);
    let request = http::Request::post(format!("http://{}/echo", pod.at(8080)))
        .body(http_body_util::Full::new(Bytes::from(sent.clone())))
        .unwrap();
    let answer = http_client().request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), sent.len());
    stop(&spec, Duration::ZERO).await;
}

#[tokio::test]
async fn requests_under_way_are_answered_before_a_server_ends() {
    let (pod, spec) = serve(|_| ()).await;
    let address = pod.at(8080);
    let slow: Vec<_> =
        (0..5).map(|_| tokio::spawn(async move { get(address, "/sleep?500").await })).collect();
    let idle = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ended = stop(&spec, Duration::from_secs(30)).await;
    assert_eq!((ended.code, ended.reason), (0, ExitReason::Completed));
    for answer in slow {
        assert_eq!(answer.await.unwrap(), (200, "slept".to_owned()));
    }
    assert!(TcpStream::connect(address).await.is_err(), "it listens no more");
    drop(idle);

    let (pod, spec) = serve(|_| ()).await;
    let address = pod.at(8080);
    let spinning = tokio::spawn(async move { TcpStream::connect(address).await.unwrap() });
    let lost = tokio::spawn(async move {
        http_client().get(format!("http://{address}/spin").parse().unwrap()).await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let ended = stop(&spec, Duration::from_millis(300)).await;
    assert_eq!((ended.code, ended.reason), (137, ExitReason::Error));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(lost.await.unwrap().is_err());
    drop(spinning);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_a_server_ends_under_load() {
    let (pod, spec) = serve(|_| ()).await;
    let address = pod.at(8080);
    let client = move |_: i32| {
        tokio::spawn(async move {
            let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(stream).await.unwrap();
            tokio::spawn(connection);
            let mut answers = 0;
            loop {
                sender.ready().await.unwrap();
                let request = http::Request::get("/count").header("host", "x").body(Empty::new());
                let answer = sender.send_request(request.unwrap()).await.expect("an answer");
                assert_eq!(answer.status(), 200);
                answers += 1;
                let last = answer.headers().get("connection").is_some_and(|value| value == "close");
                answer.into_body().collect().await.expect("a whole body");
                if last {
                    return answers;
                }
            }
        })
    };
    let clients: Vec<_> = (0..16).map(client).collect();
    // Under load, then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ended = stop(&spec, Duration::from_secs(30)).await;
    assert_eq!((ended.code, ended.reason), (0, ExitReason::Completed));
    for client in clients {
        assert!(client.await.expect("no request is lost") > 0);
    }
}

#[tokio::test]
async fn a_connection_that_came_before_the_end_is_answered_when_its_request_comes_late() {
    let (pod, spec) = serve(|_| ()).await;
    let address = pod.at(8080);
    let mut new = TcpStream::connect(address).await.unwrap();
    let mut kept = TcpStream::connect(address).await.unwrap();
    let first = ask(&mut kept).await;
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("connection: close"), "{first}");
    let stopped = tokio::spawn(async move { stop(&spec, Duration::from_secs(30)).await });
    // Longer than those who send here take to hear of the end.
    tokio::time::sleep(Duration::from_millis(600)).await;
    for (name, stream) in [("kept", &mut kept), ("new", &mut new)] {
        let answer = ask(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
        assert!(answer.contains("connection: close"), "{name}: {answer}");
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "{name}: it is closed");
    }
    let ended = stopped.await.unwrap();
    assert_eq!((ended.code, ended.reason), (0, ExitReason::Completed));
}

/// Sends a request on an open connection, and reads its answer's first piece, in which the whole of it fits.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn an_accepted_connection_is_handed_over() {
    let (pod, spec) = serve(|_| ()).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let virtual_address = proxy.local_addr().unwrap();
    let target = pod.at(8080);
    let handed = tokio::spawn(async move {
        let (stream, _) = proxy.accept().await.unwrap();
        engine().runtime.deliver(target, stream).expect("somebody serves there");
    });
    assert_eq!(get(virtual_address, "/").await, (200, "hello\n".to_owned()));
    handed.await.unwrap();
    stop(&spec, Duration::ZERO).await;
    let (_, stream) = connection().await;
    let back = engine().runtime.deliver(target, stream);
    assert!(matches!(back, Err(NotTaken::NotHere(_))), "{back:?}");
}

#[tokio::test]
async fn a_server_that_is_about_to_end_takes_only_what_nobody_else_does() {
    let (pod, spec) = serve(|_| ()).await;
    let target = pod.at(8080);
    // It has to wait for this one, so that it ends no sooner than we are done.
    let mut open = TcpStream::connect(target).await.unwrap();
    ask(&mut open).await;
    let stopped = tokio::spawn(async move { stop(&spec, Duration::from_secs(30)).await });
    let began = Instant::now();
    let back = loop {
        let (_client, stream) = connection().await;
        if let Err(back) = engine().runtime.deliver(target, stream) {
            break back;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it is asked to end");
        tokio::task::yield_now().await;
    };
    assert!(matches!(back, NotTaken::Ending(_)), "{back:?}");
    let (mut client, stream) = connection().await;
    engine().runtime.deliver_even_if_ending(target, stream).expect("it is still there");
    let answer = ask(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(ask(&mut open).await.starts_with("HTTP/1.1 200"));
    let ended = stopped.await.unwrap();
    assert_eq!((ended.code, ended.reason), (0, ExitReason::Completed));
}

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn a_memory_limit_bounds_all_instances_and_kills_one_that_exceeds_it_alone() {
    let (pod, spec) = serve(|spec| spec.memory_limit_bytes = Some(16 << 20)).await;
    let client = http_client();
    let many = join_all((0..100).map(|_| get_with(&client, pod.at(8080), "/sleep?20"))).await;
    let failed = many.iter().filter(|(status, _)| *status != 200).count();
    assert_eq!(failed, 0, "requests wait for memory instead of failing");
    assert_eq!(pod.get("/allocate?40").await.0, 500);
    let ended = end(&spec).await;
    assert_eq!((ended.code, ended.reason), (137, ExitReason::OomKilled));
}

#[tokio::test]
async fn a_port_taken_is_refused_and_given_back() {
    let (pod, spec) = serve(|_| ()).await;
    let second = pod.spec("web", &[]);
    let error = pod.start(&second).await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on"), "{error}");
    stop(&spec, Duration::ZERO).await;
    pod.start(&second).await.unwrap();
    assert_eq!(pod.get("/").await.0, 200);
    stop(&second, Duration::ZERO).await;
}
