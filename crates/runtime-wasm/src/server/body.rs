//! The body of an answer: in one piece when it is there already, else as the guest writes it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// What a guest that has returned may have left in its body's queue; more of it is streamed.
const GATHERED_BYTES_MAX: usize = 1024 * 1024;

/// An answer's body.
pub(super) enum AnswerBody {
    Whole(Bytes),
    /// What was gathered, then the rest.
    Streamed(Option<Frame<Bytes>>, HyperOutgoingBody),
}

impl AnswerBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }

    pub(super) fn streamed(body: HyperOutgoingBody) -> Self {
        Self::Streamed(None, body)
    }

    /// Takes what is there. If that is all, the length is known and the answer is written at once.
    pub(super) fn gathered(mut body: HyperOutgoingBody) -> Self {
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        while first.len() + more.len() < GATHERED_BYTES_MAX {
            match poll_now(&mut body) {
                Poll::Ready(None) if more.is_empty() => return Self::Whole(first),
                Poll::Ready(None) => return Self::Whole(join(&first, more)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if first.is_empty() => first = data,
                    Ok(data) => more.extend_from_slice(&data),
                    // Trailers come last and need a streamed body.
                    Err(trailers) => {
                        let rest = http_body_util::BodyExt::boxed_unsync(Trailing(Some(trailers)));
                        return Self::Streamed(Some(Frame::data(join(&first, more))), rest);
                    }
                },
                // The client is told by a body that ends too early.
                Poll::Ready(Some(Err(error))) => {
                    let rest = http_body_util::BodyExt::boxed_unsync(Broken(Some(error)));
                    return Self::Streamed(Some(Frame::data(join(&first, more))), rest);
                }
                Poll::Pending => break,
            }
        }
        let head = join(&first, more);
        Self::Streamed((!head.is_empty()).then(|| Frame::data(head)), body)
    }
}

/// The next frame if it is there. A busy task's budget, by which tokio makes it yield, must not hide it.
fn poll_now(body: &mut HyperOutgoingBody) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let next = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    pin!(tokio::task::unconstrained(next)).poll(&mut Context::from_waker(Waker::noop()))
}

fn join(first: &Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() {
        return first.clone();
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(first);
    whole.extend_from_slice(&more);
    whole.freeze()
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(head, body) => match head.take() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => Pin::new(body).poll_frame(context),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(head, body) => head.is_none() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(..) => SizeHint::default(),
        }
    }
}

/// The rest of a body of which only trailers are left.
struct Trailing(Option<Frame<Bytes>>);

impl Body for Trailing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

/// The rest of a body that the guest broke off.
struct Broken(Option<Error>);

impl Body for Broken {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}
