//! What a slot holds beside its vectors.

use std::sync::{Arc, LazyLock};

use mainstay_core::{Lsn, Payload, Point, PointId, SparseVector, Vector, VectorName};
use uuid::Uuid;

use crate::heap::{allocated, compact, payload_bytes};

/// What a slot holds. A patch changes the payload and keeps the slot, because the vectors stay.
#[derive(Clone)]
pub struct Slot {
    /// The id of the point that is or was here, if it is a number; a UUID is in the body, which makes every slot
    /// smaller by two thirds of an id.
    number: u64,
    /// The entry that wrote it.
    pub version: Lsn,
    /// Which dense vectors the point has, by their place in the spec.
    pub dense: u64,
    /// What many points lack; shared with rebuilt states.
    body: Option<Arc<Body>>,
}

#[derive(Clone, Default)]
struct Body {
    uuid: Option<Uuid>,
    payload: Payload,
    text: Option<Box<str>>,
    sparse: Box<[(VectorName, SparseVector)]>,
}

static NO_PAYLOAD: LazyLock<Payload> = LazyLock::new(Payload::new);

impl Slot {
    /// Everything of a point but its dense vectors.
    pub fn new(version: Lsn, point: Point, dense: u64) -> Self {
        let sparse = point.vectors.into_iter().filter_map(|(name, vector)| match vector {
            Vector::Sparse(SparseVector { mut indices, mut values }) => {
                indices.shrink_to_fit();
                values.shrink_to_fit();
                Some((name, SparseVector { indices, values }))
            }
            Vector::Dense(_) => None,
        });
        let (payload, sparse) = (compact(point.payload), sparse.collect());
        let text = point.text.map(String::into_boxed_str);
        Self::of(point.id, version, dense, Body { uuid: None, payload, text, sparse })
    }

    /// The same of a point that others hold, too.
    pub fn copied(version: Lsn, point: &Point, dense: u64) -> Self {
        let sparse = point.vectors.iter().filter_map(|(name, vector)| match vector {
            Vector::Sparse(vector) => Some((name.clone(), vector.clone())),
            Vector::Dense(_) => None,
        });
        let entries = point.payload.iter().map(|(key, value)| (key.clone(), value.clone()));
        let (payload, sparse) = (compact(entries), sparse.collect());
        let text = point.text.as_deref().map(Box::from);
        Self::of(point.id, version, dense, Body { uuid: None, payload, text, sparse })
    }

    /// A slot that never held a point, because writing it failed.
    pub fn wasted(id: PointId) -> Self {
        Self::of(id, Lsn(0), 0, Body::default())
    }

    fn of(id: PointId, version: Lsn, dense: u64, body: Body) -> Self {
        let (number, uuid) = split(id);
        Self { number, version, dense, body: Body { uuid, ..body }.boxed() }
    }

    /// The point that is or was here.
    pub fn id(&self) -> PointId {
        match self.body.as_ref().and_then(|body| body.uuid) {
            Some(uuid) => PointId::Uuid(uuid),
            None => PointId::Num(self.number),
        }
    }

    /// The payload.
    pub fn payload(&self) -> &Payload {
        self.body.as_ref().map_or(&NO_PAYLOAD, |body| &body.payload)
    }

    /// The text.
    pub fn text(&self) -> Option<&str> {
        self.body.as_ref()?.text.as_deref()
    }

    /// The sparse vectors by name.
    pub fn sparse(&self) -> &[(VectorName, SparseVector)] {
        self.body.as_ref().map_or(&[], |body| &body.sparse)
    }

    /// Whether the point has the dense vector at this place in the spec.
    pub fn has_dense(&self, at: usize) -> bool {
        self.dense >> at & 1 == 1
    }

    /// The same with another payload.
    #[must_use]
    pub fn with_payload(&self, version: Lsn, payload: Payload) -> Self {
        let mut body = self.body.as_deref().cloned().unwrap_or_default();
        body.payload = compact(payload);
        Self { number: self.number, version, dense: self.dense, body: body.boxed() }
    }

    /// Lets go what the point was; for a slot that is buried.
    pub fn clear(&mut self) {
        self.body = None;
    }

    /// About how many bytes it takes outside the table of slots.
    pub fn bytes(&self) -> u64 {
        let Some(body) = &self.body else { return 0 };
        let vectors = self
            .sparse()
            .iter()
            .map(|(name, vector)| allocated(name.as_str().len()) + 2 * allocated(vector.indices.len() * 4));
        let sparse = allocated(size_of_val(&*body.sparse)) + vectors.sum::<usize>();
        let text = allocated(body.text.as_ref().map_or(0, |text| text.len()));
        // With the counts of the `Arc`.
        (allocated(size_of::<Body>() + 16) + payload_bytes(&body.payload) + text + sparse) as u64
    }
}

fn split(id: PointId) -> (u64, Option<Uuid>) {
    match id {
        PointId::Num(number) => (number, None),
        PointId::Uuid(uuid) => (0, Some(uuid)),
    }
}

impl Body {
    fn boxed(self) -> Option<Arc<Self>> {
        let empty =
            self.uuid.is_none() && self.payload.is_empty() && self.text.is_none() && self.sparse.is_empty();
        (!empty).then(|| Arc::new(self))
    }
}
