//! Lists as messages, in frames that are sent as they are.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_api::schema::{Schema, Shape};
use http_body::{Frame, SizeHint};
use serde_json::Value;

use super::Shown;
use super::encode::{ENVELOPE_END, begin_envelope, put_key, put_varint, unwritable, write_fields};
use crate::answer::Answer;
use crate::limits;

/// Takes one item after the other.
pub(crate) struct ListWriter {
    shown: Shown,
    frames: VecDeque<Bytes>,
    open: Vec<u8>,
    /// Of the frames that are full.
    bytes: usize,
}

impl ListWriter {
    /// Begins with the list's own metadata.
    pub(crate) fn new(shown: Shown, metadata: &Value) -> Answer<Self> {
        let schema = Schema::get();
        let list_meta = schema.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
        let mut fields = Vec::new();
        if let Some(Shape::Object(list_meta)) = list_meta.map(|id| &schema.type_(id).shape)
            && metadata.is_object()
        {
            write_fields(list_meta, metadata.to_string().as_bytes(), &mut fields)
                .map_err(|error| unwritable(&error))?;
        }
        let mut open = Vec::new();
        put_key(&mut open, 1, 2);
        put_varint(&mut open, fields.len() as u64);
        open.append(&mut fields);
        Ok(Self { shown, frames: VecDeque::new(), open, bytes: 0 })
    }

    /// Adds an item.
    pub(crate) fn item(&mut self, json: &[u8]) -> Answer<()> {
        if self.open.capacity() < limits::FRAME_BYTES {
            self.open.reserve(limits::FRAME_BYTES + limits::FRAME_BYTES / 4);
        }
        self.shown.write_item(&mut self.open, json).map_err(|error| unwritable(&error))?;
        if self.open.len() >= limits::FRAME_BYTES {
            self.cut();
        }
        Ok(())
    }

    fn cut(&mut self) {
        self.bytes += self.open.len();
        self.frames.push_back(std::mem::take(&mut self.open).into());
    }

    /// The whole as a body, whose length is known.
    pub(crate) fn body(mut self) -> Frames {
        self.cut();
        let mut head = Vec::with_capacity(96);
        begin_envelope(&mut head, self.shown.api_version(), &self.shown.list_kind());
        put_key(&mut head, 2, 2);
        put_varint(&mut head, self.bytes as u64);
        let left_bytes = (head.len() + self.bytes + ENVELOPE_END.len()) as u64;
        self.frames.push_front(head.into());
        self.frames.push_back(Bytes::from_static(ENVELOPE_END));
        Frames { frames: self.frames, left_bytes }
    }

    /// The whole in one piece, for short lists.
    pub(super) fn joined(self) -> Bytes {
        let body = self.body();
        let mut joined = Vec::with_capacity(usize::try_from(body.left_bytes).unwrap_or(0));
        body.frames.iter().for_each(|frame| joined.extend_from_slice(frame));
        joined.into()
    }
}

/// A body that is there already.
pub(crate) struct Frames {
    frames: VecDeque<Bytes>,
    left_bytes: u64,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.frames.pop_front();
        self.left_bytes -= frame.as_ref().map_or(0, |frame| frame.len() as u64);
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}
