//! What a connection writes in one turn, sent together.
//!
//! HTTP/2 hands each frame to the stream by itself and asks for it to be flushed. Where a change goes to a hundred
//! watches of one connection, that would be a hundred TLS records and a hundred system calls. A [`Corked`] stream keeps
//! what it is given until [`Cork::drive`], which runs the connection, lets it go: after those tasks that were ready to
//! write, too, have done so. A connection on which nothing else happens waits for nobody.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;

/// The stream, for the connection that reads and writes it.
pub(crate) struct Corked<S> {
    shared: Arc<Mutex<Shared<S>>>,
}

/// The same stream, for who runs the connection.
pub(crate) struct Cork<S> {
    shared: Arc<Mutex<Shared<S>>>,
}

struct Shared<S> {
    stream: S,
    unsent: BytesMut,
    /// Whether somebody drives the connection. An upgraded stream outlives it, and is on its own then.
    driven: bool,
}

/// Splits a stream into what a connection is made of and what runs it.
pub(crate) fn cork<S>(stream: S) -> (Corked<S>, Cork<S>) {
    let shared = Shared { stream, unsent: BytesMut::new(), driven: true };
    let shared = Arc::new(Mutex::new(shared));
    (Corked { shared: Arc::clone(&shared) }, Cork { shared })
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Runs the connection to its end.
    ///
    /// # Errors
    /// When the stream takes nothing any more.
    pub(crate) async fn drive<F: Future>(self, connection: F) -> io::Result<F::Output> {
        let output = self.run(connection).await?;
        // A stream that somebody still holds was upgraded: what is unsent goes out before what it sends itself.
        if Arc::strong_count(&self.shared) == 1 {
            let last_words = poll_fn(|context| self.shared.lock().send(context));
            // A peer that hears nothing for so long, or is gone, does without.
            let _ = tokio::time::timeout(limits::LAST_WORDS, last_words).await;
        }
        Ok(output)
    }

    async fn run<F: Future>(&self, connection: F) -> io::Result<F::Output> {
        let mut connection = pin!(connection);
        let mut courtesy = Courtesy::default();
        poll_fn(|context| {
            let polled = connection.as_mut().poll(context);
            let mut shared = self.shared.lock();
            if let Poll::Ready(output) = polled {
                shared.driven = false;
                if !shared.unsent.is_empty() {
                    let _ = shared.send(context);
                }
                return Poll::Ready(Ok(output));
            }
            if courtesy.gives_way(shared.unsent.len()) {
                context.waker().wake_by_ref();
            } else if !shared.unsent.is_empty() {
                let _ = shared.send(context)?;
            }
            Poll::Pending
        })
        .await
    }
}

/// When others are let go first: while that pays. To have to wait for the next turn costs little on an idle machine and
/// much on a busy one, and an answer that goes out alone has nothing from it.
#[derive(Default)]
struct Courtesy {
    /// How much there was when way was given.
    gave_way: Option<usize>,
    /// How often in a row nobody had anything to add.
    in_vain: u32,
    /// Turns in which nobody is waited for.
    pause: u32,
}

impl Courtesy {
    /// After this many vain turns the pauses grow no longer: the 64th event of many finds company at the latest.
    const MOST_IN_VAIN: u32 = 6;

    /// Whether the next turn is waited for, with so much to send.
    fn gives_way(&mut self, unsent_bytes: usize) -> bool {
        if let Some(before) = self.gave_way.take() {
            if unsent_bytes > before {
                self.in_vain = 0;
            } else {
                self.in_vain = (self.in_vain + 1).min(Self::MOST_IN_VAIN);
                self.pause = 1 << self.in_vain;
            }
            return false;
        }
        if unsent_bytes == 0 || unsent_bytes >= limits::UNSENT_BYTES {
            return false;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        self.gave_way = Some(unsent_bytes);
        true
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    /// Sends all there is.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Makes room for a write.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.len() < limits::UNSENT_BYTES {
            Poll::Ready(Ok(()))
        } else {
            self.send(context)
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.shared.lock();
        if !shared.driven && !shared.unsent.is_empty() {
            // Who waits for an answer has said all there is to say. Whether that fails is for who writes.
            let _ = shared.send(context);
        }
        Pin::new(&mut shared.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.lock();
        if !shared.driven {
            ready!(shared.send(context))?;
            return Pin::new(&mut shared.stream).poll_write_vectored(context, slices);
        }
        ready!(shared.poll_room(context))?;
        let before = shared.unsent.len();
        for slice in slices {
            let room = limits::UNSENT_BYTES.saturating_sub(shared.unsent.len());
            shared.unsent.extend_from_slice(&slice[..slice.len().min(room)]);
            if slice.len() >= room {
                break;
            }
        }
        Poll::Ready(Ok(shared.unsent.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.lock();
        if shared.driven { Poll::Ready(Ok(())) } else { shared.send(context) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.lock();
        ready!(shared.send(context))?;
        Pin::new(&mut shared.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Notes how much it is given at a time.
    struct Counted {
        inner: DuplexStream,
        writes: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
            self.writes.lock().push(sent);
            Poll::Ready(Ok(sent))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(context)
        }
    }

    fn counted(room: usize) -> (Counted, DuplexStream, Arc<Mutex<Vec<usize>>>) {
        let (inner, peer) = duplex(room);
        let writes = Arc::default();
        (Counted { inner, writes: Arc::clone(&writes) }, peer, writes)
    }

    #[tokio::test]
    async fn what_one_turn_writes_goes_out_at_once() {
        let (stream, mut peer, writes) = counted(1024);
        let (mut corked, cork) = cork(stream);
        let connection = async move {
            for _ in 0..100 {
                corked.write_all(b"frame").await.unwrap();
                corked.flush().await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let driving = tokio::spawn(cork.drive(connection));
        let mut got = [0; 500];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(*writes.lock(), [500]);
        driving.abort();
    }

    #[test]
    fn way_is_given_while_it_pays() {
        let mut courtesy = Courtesy::default();
        assert!(courtesy.gives_way(10) && !courtesy.gives_way(500));
        assert!(courtesy.gives_way(10) && !courtesy.gives_way(500), "it paid");
        let mut given = 0;
        for _ in 0..1000 {
            if courtesy.gives_way(10) {
                given += 1;
                assert!(!courtesy.gives_way(10), "in vain");
            }
        }
        assert!((10..25).contains(&given), "{given}");
        let turns = (0..).take_while(|_| !courtesy.gives_way(10)).count();
        assert!(turns <= 64 && !courtesy.gives_way(500));
        assert!(courtesy.gives_way(10), "it paid again");
        assert!(!Courtesy::default().gives_way(limits::UNSENT_BYTES), "there is no room for more");
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_holds_the_writer_back_and_gets_all() {
        let (stream, mut peer, _) = counted(7);
        let (mut corked, cork) = cork(stream);
        let sent: Vec<u8> = (0..3 * limits::UNSENT_BYTES).map(|at| at as u8).collect();
        let whole = sent.clone();
        let connection = async move {
            corked.write_all(&whole).await.unwrap();
            corked.shutdown().await.unwrap();
        };
        let driving = tokio::spawn(cork.drive(connection));
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        driving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_last_bytes_of_a_connection_wait_for_a_peer_that_is_busy() {
        let (stream, mut peer, _) = counted(7);
        let (mut corked, cork) = cork(stream);
        let connection = async move { corked.write_all(b"the connection is over").await.unwrap() };
        let driving = tokio::spawn(cork.drive(connection));
        tokio::task::yield_now().await;
        let mut got = [0; 22];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"the connection is over");
        driving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_outlives_its_connection_sends_when_it_is_told_to() {
        let (stream, mut peer, _) = counted(1024);
        let (mut corked, cork) = cork(stream);
        cork.drive(corked.write_all(b"switching")).await.unwrap().unwrap();
        corked.write_all(b" over").await.unwrap();
        corked.flush().await.unwrap();
        let mut got = [0; 14];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"switching over");
    }

    #[tokio::test]
    async fn a_stream_that_is_gone_ends_the_connection() {
        let (stream, peer, _) = counted(1024);
        drop(peer);
        let (mut corked, cork) = cork(stream);
        let connection = async move {
            corked.write_all(b"frame").await.unwrap();
            std::future::pending::<()>().await;
        };
        assert!(cork.drive(connection).await.is_err(), "nobody takes it");
    }
}
