//! How a server is reached, and what its collections are like.

use std::fmt;
use std::time::Duration;

use mainstay_core::{CollectionSpec, Distance, Error, Result, VectorName, VectorSpec};
use qdrant_client::qdrant as proto;

use super::convert;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Compression of requests and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None; the fastest on a local network.
    #[default]
    None,
    /// gzip.
    Gzip,
}

/// How the replicas of a cluster order concurrent writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// By whichever node takes them. One tier writes in its own order all the same, but after a node was away
    /// replicas may differ.
    Weak,
    /// By a leader that may change.
    #[default]
    Medium,
    /// By a fixed leader; unavailable while it is down.
    Strong,
}

impl Ordering {
    pub(crate) fn to_proto(self) -> proto::WriteOrdering {
        let kind = match self {
            Self::Weak => proto::WriteOrderingType::Weak,
            Self::Medium => proto::WriteOrderingType::Medium,
            Self::Strong => proto::WriteOrderingType::Strong,
        };
        proto::WriteOrdering { r#type: kind as i32 }
    }
}

/// How many replicas a read asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Most of them; what most of them hold is returned.
    Majority,
    /// Most of them in each group; what all of the answering ones hold.
    Quorum,
    /// All of them.
    All,
    /// So many.
    Factor(u64),
}

impl Consistency {
    pub(crate) fn to_proto(self) -> proto::ReadConsistency {
        use proto::read_consistency::Value;
        let of = |kind: proto::ReadConsistencyType| Value::Type(kind as i32);
        let value = match self {
            Self::Majority => of(proto::ReadConsistencyType::Majority),
            Self::Quorum => of(proto::ReadConsistencyType::Quorum),
            Self::All => of(proto::ReadConsistencyType::All),
            Self::Factor(factor) => Value::Factor(factor),
        };
        proto::ReadConsistency { value: Some(value) }
    }
}

/// How Qdrant keeps vectors for its search; the vectors themselves stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuantizationKind {
    /// As they are.
    #[default]
    None,
    /// One byte a dimension.
    Scalar,
    /// One bit a dimension.
    Binary,
}

/// What collections are created with. `None` leaves the choice to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionOptions {
    /// Shards.
    pub shard_number: Option<u32>,
    /// Copies of each shard.
    pub replication_factor: Option<u32>,
    /// Copies that must have a write before it is answered.
    pub write_consistency_factor: Option<u32>,
    /// Whether vectors stay on disk.
    pub on_disk_vectors: Option<bool>,
    /// Whether payloads stay on disk.
    pub on_disk_payload: Option<bool>,
    /// Quantisation for the search.
    pub quantization: QuantizationKind,
}

/// How a server or cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// The gRPC addresses of its nodes, `http://host:6334` or `https://…`. One is asked until it cannot be
    /// reached, then the next one.
    pub urls: Vec<String>,
    /// The API key or token, if the server wants one.
    pub api_key: Option<Secret>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How often an idle connection is tried.
    pub keep_alive: Duration,
    /// Connections to each node.
    pub pool_size: usize,
    /// Compression on the wire.
    pub compression: Compression,
    /// How replicas order writes.
    pub write_ordering: Ordering,
    /// How many replicas a read asks; `None` for one.
    pub read_consistency: Option<Consistency>,
    /// What collections are created with.
    pub collections: CollectionOptions,
    /// Most points in one request.
    pub batch_points: usize,
    /// About how many bytes of points one request holds at most; Qdrant refuses requests beyond 32 MiB unless it
    /// is set otherwise.
    pub batch_bytes: usize,
    /// How long after the server answers again a write that got no answer may still take effect. 5 s: a request that
    /// waited in a frozen server is worked on as soon as it thaws.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            urls: vec!["http://localhost:6334".into()],
            api_key: None,
            connect_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(10),
            pool_size: 3,
            compression: Compression::None,
            write_ordering: Ordering::default(),
            read_consistency: None,
            collections: CollectionOptions::default(),
            batch_points: 1_000,
            batch_bytes: 16 << 20,
            grace: Duration::from_secs(5),
        }
    }
}

impl ServerOptions {
    /// The defaults with this one address.
    pub fn new(url: impl Into<String>) -> Self {
        Self { urls: vec![url.into()], ..Self::default() }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// `Invalid` with the option that is out of its range.
    pub fn check(&self) -> Result<()> {
        if self.urls.is_empty() {
            return Err(Error::invalid("there is no url"));
        }
        for (name, value, range) in [
            ("pool_size", self.pool_size, 1..=64),
            ("batch_points", self.batch_points, 1..=100_000),
            ("batch_bytes", self.batch_bytes, 1 << 10..=1 << 30),
        ] {
            if !range.contains(&value) {
                return Err(Error::invalid(format!(
                    "{name} {value} is outside {} to {}",
                    range.start(),
                    range.end()
                )));
            }
        }
        for (name, value) in [("connect_timeout", self.connect_timeout), ("keep_alive", self.keep_alive)] {
            if value.is_zero() {
                return Err(Error::invalid(format!("{name} is zero")));
            }
        }
        Ok(())
    }
}

impl CollectionOptions {
    /// The request that creates a collection.
    #[expect(deprecated, reason = "servers before 1.19 know no other way to say what stays on disk")]
    pub(crate) fn create(&self, spec: &CollectionSpec, timeout: Option<u64>) -> proto::CreateCollection {
        let mut dense = std::collections::HashMap::new();
        let mut sparse = std::collections::HashMap::new();
        for (name, vector) in &spec.vectors {
            match vector {
                VectorSpec::Dense { dimension, distance } => {
                    let params = proto::VectorParams {
                        size: *dimension as u64,
                        distance: distance_to_proto(*distance) as i32,
                        on_disk: self.on_disk_vectors,
                        ..proto::VectorParams::default()
                    };
                    dense.insert(name.as_str().to_owned(), params);
                }
                VectorSpec::Sparse => {
                    sparse.insert(name.as_str().to_owned(), proto::SparseVectorParams::default());
                }
            }
        }
        let default = VectorName::default();
        let vectors = match dense.remove(default.as_str()) {
            Some(single) if dense.is_empty() => convert::vectors_config(Some(single), dense),
            Some(single) => {
                dense.insert(default.as_str().to_owned(), single);
                convert::vectors_config(None, dense)
            }
            None => convert::vectors_config(None, dense),
        };
        proto::CreateCollection {
            collection_name: spec.name.as_str().to_owned(),
            vectors_config: Some(vectors),
            sparse_vectors_config: (!sparse.is_empty()).then_some(proto::SparseVectorConfig { map: sparse }),
            shard_number: self.shard_number,
            replication_factor: self.replication_factor,
            write_consistency_factor: self.write_consistency_factor,
            on_disk_payload: self.on_disk_payload,
            quantization_config: self.quantization(),
            timeout,
            ..proto::CreateCollection::default()
        }
    }

    fn quantization(&self) -> Option<proto::QuantizationConfig> {
        use proto::quantization_config::Quantization;
        let quantization = match self.quantization {
            QuantizationKind::None => return None,
            QuantizationKind::Scalar => Quantization::Scalar(proto::ScalarQuantization {
                r#type: proto::QuantizationType::Int8 as i32,
                ..proto::ScalarQuantization::default()
            }),
            QuantizationKind::Binary => Quantization::Binary(proto::BinaryQuantization::default()),
        };
        Some(proto::QuantizationConfig { quantization: Some(quantization) })
    }
}

fn distance_to_proto(distance: Distance) -> proto::Distance {
    match distance {
        Distance::Cosine => proto::Distance::Cosine,
        Distance::Dot => proto::Distance::Dot,
        Distance::Euclidean => proto::Distance::Euclid,
        Distance::Manhattan => proto::Distance::Manhattan,
    }
}
