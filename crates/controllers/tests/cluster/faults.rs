//! A bad connection to the API: refusals, answers that never come, watches that lag and break off.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tower::BoxError;

type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing.
    None,
    /// It is refused, and never gets to the server.
    Refused(StatusCode, &'static str),
    /// It never gets to the server, and nobody says so.
    LostRequest,
    /// The server does it, and its answer is lost.
    LostAnswer,
}

/// How a watch goes on.
#[derive(Debug, Clone, Copy)]
struct Lag {
    seed: u64,
    /// Frames until the connection is cut.
    frames: usize,
}

/// The same client over a bad connection, which is as bad again for the same seed.
pub fn faulty(client: Client, seed: u64) -> Client {
    let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let (fault, lag) = {
            let mut random = random.lock().unwrap();
            (draw(&mut random), Lag { seed: random.random(), frames: random.random_range(5..60) })
        };
        async move {
            match fault {
                Fault::Refused(code, reason) => Ok(refusal(code, reason)),
                Fault::LostRequest => Err(BoxError::from("the connection is cut")),
                Fault::LostAnswer if !is_watch => {
                    let answer = client.send(request).await?;
                    answer.into_body().collect().await?;
                    Err(BoxError::from("the connection is cut before the answer"))
                }
                Fault::None | Fault::LostAnswer => {
                    let answer = client.send(request).await?;
                    Ok(answer.map(|body| {
                        if is_watch {
                            lagging(body, lag)
                        } else {
                            Answer::new(body.map_err(BoxError::from))
                        }
                    }))
                }
            }
        }
    });
    Client::new(service, "default")
}

fn draw(random: &mut StdRng) -> Fault {
    match random.random_range(0..100) {
        0..4 => Fault::Refused(StatusCode::CONFLICT, "Conflict"),
        4..8 => Fault::Refused(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        8..12 => Fault::Refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        12..16 => Fault::LostRequest,
        16..22 => Fault::LostAnswer,
        _ => Fault::None,
    }
}

fn refusal(code: StatusCode, reason: &str) -> Response<Answer> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "message": format!("a fault of the test: {reason}"), "reason": reason, "code": code.as_u16(),
    });
    let body =
        Answer::new(Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}));
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

/// Each event comes later than it was sent, and after some of them the connection breaks.
fn lagging(body: Body, lag: Lag) -> Answer {
    let random = StdRng::seed_from_u64(lag.seed);
    let start: (Pin<Box<Body>>, StdRng, usize) = (Box::pin(body), random, lag.frames);
    let frames = futures::stream::unfold(start, |(mut body, mut random, left)| async move {
        if left == 0 {
            return None;
        }
        let data = body.frame().await?.ok()?.into_data().ok()?;
        // The lag itself: nothing is waited for.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        Some((Ok::<_, BoxError>(Frame::data(data)), (body, random, left - 1)))
    });
    Answer::new(StreamBody::new(frames))
}
