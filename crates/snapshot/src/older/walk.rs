//! Walking through a JSON document as it is read, so that it need not fit into memory.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How much is read from a file at once.
const BUFFER_BYTES: usize = 256 << 10;

/// What a part of a document turns into: by default, what is no object and no list is passed over.
pub(super) trait Part<'de>: Sized {
    /// What it turns into.
    type Out;

    /// An object.
    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Out, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.other("an object"))
    }

    /// A list.
    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Out, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.other("a list"))
    }

    /// Anything else, by its kind.
    fn other(self, kind: &'static str) -> Self::Out;
}

/// Reads a part.
pub(super) struct Walk<P>(pub(super) P);

impl<'de, P: Part<'de>> DeserializeSeed<'de> for Walk<P> {
    type Value = P::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<P::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Part<'de>> Visitor<'de> for Walk<P> {
    type Value = P::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<P::Out, A::Error> {
        self.0.object(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<P::Out, A::Error> {
        self.0.list(list)
    }

    fn visit_bool<E>(self, _: bool) -> Result<P::Out, E> {
        Ok(self.0.other("true or false"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<P::Out, E> {
        Ok(self.0.other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<P::Out, E> {
        Ok(self.0.other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<P::Out, E> {
        Ok(self.0.other("a number"))
    }

    fn visit_str<E>(self, _: &str) -> Result<P::Out, E> {
        Ok(self.0.other("text"))
    }

    fn visit_unit<E>(self) -> Result<P::Out, E> {
        Ok(self.0.other("null"))
    }
}

/// Only what kind of value it is.
pub(super) struct Kind;

impl<'de> Part<'de> for Kind {
    type Out = &'static str;

    fn other(self, kind: &'static str) -> &'static str {
        kind
    }
}

/// Bytes that may still be read before [`Budget::renew`] is called again: what bounds each value of a document.
#[derive(Clone)]
pub(super) struct Budget {
    left: Rc<Cell<u64>>,
    limit: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        // What is read ahead is no part of the value.
        let limit = limit.saturating_add(BUFFER_BYTES as u64);
        Self { left: Rc::new(Cell::new(limit)), limit }
    }

    /// A value is done, the next begins.
    pub(super) fn renew(&self) {
        self.left.set(self.limit);
    }

    /// Whether a value was too large.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// A reader that ends in an error when the budget is spent.
    pub(super) fn meter<R: Read>(&self, reader: R) -> BufReader<Metered<R>> {
        BufReader::with_capacity(BUFFER_BYTES, Metered { reader, left: Rc::clone(&self.left) })
    }
}

pub(super) struct Metered<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a value is too large"));
        }
        let read = self.reader.read(&mut buffer[..left])?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}
