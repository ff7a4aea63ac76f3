//! Vector search that stays up.
//!
//! Mainstay chains vector stores into a *tier*: a primary, further members and a memory standby
//! behind one facade. Every write becomes an entry of one ordered, durable log before anything else
//! happens; one applier per member moves the member's cursor along the log; a read asks the active
//! member and, when it fails, the next one within the same call.
//!
//! ```no_run
//! use mainstay::{CollectionName, CollectionSpec, Config, Distance, Point, SearchQuery, Tier};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let tier = Tier::open(Config::load("mainstay.toml")?).await?;
//! let docs = CollectionName::new("docs")?;
//! tier.create_collection(CollectionSpec::dense(docs.clone(), 2, Distance::Cosine)).await?;
//! tier.upsert(&docs, vec![Point::new(1, vec![0.6, 0.8])]).await?;
//! let answer = tier.search(&docs, SearchQuery::new(vec![0.6, 0.8])).await?;
//! assert_eq!(answer.value[0].point.id, 1.into());
//! tier.close().await?;
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! | feature | what it adds | what it costs |
//! |---|---|---|
//! | `memory` (default) | the memory member | a C++ compiler, seconds |
//! | `lance` | the LanceDB member | protoc, minutes of build |
//! | `lance-cloud` | LanceDB in object stores | half a minute more than `lance` |
//! | `qdrant` | a Qdrant server or cluster | about a minute of build |
//! | `qdrant-edge` | Qdrant in this process, on a directory | minutes of build |
//! | `snapshots` (default) | snapshots and the archived log | under a minute of build |
//! | `snapshots-cloud` | snapshots in object stores | about a minute of build |
//! | `prometheus` | a page of metrics over HTTP | some seconds of build |
//! | `full` | every backend, snapshots and `prometheus` | all of it |
//! | `simd` | SIMD kernels for the memory member | a C compiler, minutes of build |

mod answer;
mod backends;
mod catalog;
pub mod config;
#[cfg(unix)]
pub mod control;
pub mod log;
#[cfg(feature = "snapshots")]
pub mod restore;
#[cfg(feature = "simulation")]
pub mod sabotage;
#[cfg(not(feature = "simulation"))]
#[expect(dead_code, reason = "the list is for the simulation")]
mod sabotage;
mod tier;

pub use answer::{Answer, MemberName, ServiceLevel, Written};
#[cfg(feature = "memory")]
pub use backends::memory_options;
#[cfg(any(feature = "qdrant", feature = "qdrant-edge"))]
pub use backends::open_qdrant;
pub use backends::{COMPILED_IN as COMPILED_IN_BACKENDS, expected_of_store, expected_of_tier, open_store};
pub use catalog::{Collection, Collections};
pub use config::{Ack, Config, DriftConfig, DriftPolicy, SaveMode, ShadowConfig, SnapshotsConfig};
pub use mainstay_core as core;
pub use mainstay_core::digest::CollectionDigest;
pub use mainstay_core::{
    BreakerState, CollectionName, CollectionSpec, Condition, Disposition, Distance, Effect, Embedder, Error,
    ErrorKind, FieldTest, Fields, Filter, GuardOptions, Guarded, HashEmbedder, Hit, Lsn, Match, Payload,
    PayloadIndex, PayloadPath, Point, PointId, Range, Record, Result, Scalar, ScrollPage, ScrollQuery,
    SearchQuery, Selector, SparseVector, StoreId, Vector, VectorName, VectorSpec, VectorStore,
};
#[cfg(feature = "memory")]
pub use mainstay_memory as memory;
#[cfg(any(feature = "qdrant", feature = "qdrant-edge"))]
pub use mainstay_qdrant as qdrant;
#[cfg(feature = "snapshots")]
pub use mainstay_snapshot as snapshot;
pub use tier::{
    CollectionDrift, ComponentHealth, ComponentKind, DriftKind, DriftReport, DriftedPoint, Event, Events,
    FailbackOptions, Health, HealthStatus, LogStatus, MAX_IDS, MeasuredLatency, MemberDrift, MemberState,
    MemberStatus, MemberStore, Reader, Release, ShadowStatus, SnapshotReport, SnapshotsStatus, Status, Tier,
    TierOptions,
};
