//! A guest for tests that answers HTTP: does what the path says.

use std::env;
use std::io::{Read as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

struct Web;

wasip2::http::proxy::export!(Web);

/// How many requests this instance has seen.
static SEEN: AtomicU64 = AtomicU64::new(0);

impl Guest for Web {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (name, rest) = path.split_once('?').unwrap_or((&path, ""));
        match name {
            "/" => send(answer, "hello\n"),
            "/count" => send(answer, &SEEN.fetch_add(1, Ordering::Relaxed).to_string()),
            "/env" => send(answer, &env::var(rest).unwrap_or_default()),
            "/print" => {
                println!("{rest}");
                send(answer, "printed");
            }
            "/echo" => {
                let mut text = Vec::new();
                let body = request.consume().expect("taken once");
                let mut stream = body.stream().expect("taken once");
                stream.read_to_end(&mut text).expect("the body comes");
                send(answer, &String::from_utf8_lossy(&text));
            }
            "/sleep" => {
                pause(rest);
                send(answer, "slept");
            }
            "/spin" => loop {
                std::hint::black_box(rest);
            },
            "/trap" => core::arch::wasm32::unreachable(),
            "/late-trap" => {
                send(answer, "sent");
                core::arch::wasm32::unreachable();
            }
            "/silence" => drop(answer),
            "/allocate" => {
                let size: usize = rest.parse().expect("mebibytes");
                let held: Vec<Vec<u8>> =
                    (0..size).map(|_| std::hint::black_box(vec![1; 1 << 20])).collect();
                send(answer, &held.len().to_string());
            }
            // Lines with pauses between them.
            "/stream" => stream(answer, rest.parse().expect("a number")),
            "/large" => send(answer, &"y".repeat(rest.parse().expect("bytes"))),
            "/fetch" => match fetch(rest) {
                Ok((status, text)) => send(answer, &format!("{status} {text}")),
                Err(error) => send(answer, &format!("{error:?}")),
            },
            _ => ResponseOutparam::set(answer, Err(ErrorCode::InternalError(None))),
        }
    }
}

fn pause(milliseconds: &str) {
    let milliseconds: u64 = milliseconds.parse().expect("milliseconds");
    monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
}

fn stream(answer: ResponseOutparam, lines: u64) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("taken once");
    ResponseOutparam::set(answer, Ok(response));
    let mut stream = body.write().expect("taken once");
    for line in 0..lines {
        pause("10");
        writeln!(stream, "line {line}")
            .and_then(|()| Write::flush(&mut stream))
            .expect("the client listens");
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("all is sent");
}

/// `host:port/path`.
fn fetch(target: &str) -> Result<(u16, String), ErrorCode> {
    let (authority, path) = target.split_once('/').unwrap_or((target, ""));
    let request = OutgoingRequest::new(Fields::new());
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(&format!("/{path}"))).map_err(invalid)?;
    let future = outgoing_handler::handle(request, None)?;
    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(response)) => response?,
        Some(Err(())) | None => return Err(ErrorCode::InternalError(None)),
    };
    let mut text = String::new();
    let body = response.consume().map_err(invalid)?;
    let mut stream = body.stream().map_err(invalid)?;
    stream.read_to_string(&mut text).map_err(|_| ErrorCode::HttpResponseIncomplete)?;
    Ok((response.status(), text))
}

fn send(answer: ResponseOutparam, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("taken once");
    ResponseOutparam::set(answer, Ok(response));
    let mut stream = body.write().expect("taken once");
    stream
        .write_all(text.as_bytes())
        .and_then(|()| Write::flush(&mut stream))
        .expect("the client listens");
    drop(stream);
    OutgoingBody::finish(body, None).expect("all is sent");
}
