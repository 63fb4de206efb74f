//! An HTTP service that asks another service, by its cluster name, and returns what that said.

use std::env;
use std::io::{Read as _, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

struct Caller;

wasip2::http::proxy::export!(Caller);

impl Guest for Caller {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        if path == "/healthz" {
            return send(answer, 200, "ok\n");
        }
        // `hello`, `hello.default` and `hello.default.svc.cluster.local` all work, with or without a port.
        let service = env::var("SERVICE").unwrap_or_else(|_| "hello".to_owned());
        match ask(&service, &path) {
            Ok((status, text)) => {
                println!("{service} answered {status}");
                send(answer, status, &format!("{service} says:\n{text}"));
            }
            Err(error) => {
                eprintln!("{service} did not answer: {error:?}");
                send(answer, 502, &format!("{service} did not answer: {error:?}\n"));
            }
        }
    }
}

fn ask(service: &str, path: &str) -> Result<(u16, String), ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(service)).map_err(invalid)?;
    request.set_path_with_query(Some(path)).map_err(invalid)?;
    let future = outgoing_handler::handle(request, None)?;
    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(response)) => response?,
        Some(Err(())) | None => return Err(ErrorCode::InternalError(None)),
    };
    let mut text = String::new();
    let body = response.consume().map_err(|()| ErrorCode::InternalError(None))?;
    let mut stream = body.stream().map_err(|()| ErrorCode::InternalError(None))?;
    stream.read_to_string(&mut text).map_err(|_| ErrorCode::HttpResponseIncomplete)?;
    Ok((response.status(), text))
}

fn send(answer: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    if response.set_status_code(status).is_err() {
        return ResponseOutparam::set(answer, Err(ErrorCode::InternalError(None)));
    }
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
