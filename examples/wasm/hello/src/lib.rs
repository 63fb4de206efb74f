//! An HTTP service that shows what its pod was given: its name, its config and its secret.

use std::env;
use std::fmt::Write as _;
use std::io::Write;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.split('?').next() {
            Some("/") => {
                // One line in `kubectl logs`.
                println!("GET {path}");
                send(answer, 200, &page());
            }
            // For the readiness probe.
            Some("/healthz") => send(answer, 200, "ok\n"),
            _ => send(answer, 404, "not found\n"),
        }
    }
}

fn page() -> String {
    let variable = |name| env::var(name).unwrap_or_else(|_| "(not set)".to_owned());
    let mut page = String::new();
    for (title, name) in [
        ("pod", "POD_NAME"),
        ("namespace", "POD_NAMESPACE"),
        ("config", "GREETING"),
        ("secret", "TOKEN"),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{title}: {}", variable(name));
    }
    page
}

fn send(answer: ResponseOutparam, status: u16, text: &str) {
    let headers =
        Fields::from_list(&[("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec())])
            .expect("the header is well-formed");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("the status is one of HTTP's");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(answer, Ok(response));
    let mut stream = body.write().expect("the stream is taken once");
    // A client that went away needs no answer.
    let written = stream.write_all(text.as_bytes()).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}
