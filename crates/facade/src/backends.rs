//! From the config to open stores and an open log: the only place that knows the backends.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::expected::of_store;
use mainstay_core::{BreakerOptions, Context, Error, Expected, GuardOptions, Guarded, Result, VectorStore};

use crate::config::{BackendConfig, Config, MemberConfig};
use crate::log::{FileLog, Log, LogOptions, MemoryLog, SyncPolicy};
use crate::tier::{self, FailbackOptions, MemberStore, TierOptions};

/// Closing what was opened before another member could not be opened.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// One page of a store that is read without a tier.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The backends that are compiled in, which are the cargo features of this crate.
pub const COMPILED_IN: &[&str] = &[
    #[cfg(feature = "memory")]
    "memory",
    #[cfg(feature = "lance")]
    "lance",
    #[cfg(feature = "lance-cloud")]
    "lance-cloud",
    #[cfg(feature = "qdrant")]
    "qdrant",
    #[cfg(feature = "qdrant-edge")]
    "qdrant-edge",
];

/// What a tier goes by.
pub fn tier_options(config: &Config) -> TierOptions {
    TierOptions {
        ack: config.tier.ack,
        deadline: config.tier.deadline,
        read: config.tier.read,
        hedge_after: config.tier.hedge_after,
        max_batch_points: config.tier.max_batch_points,
        max_batch_bytes: usize::try_from(config.tier.max_batch_bytes).unwrap_or(usize::MAX),
        log_max_bytes: config.log.max_bytes,
        check_interval: config.failover.check_interval,
        retry: config.retry.clone(),
        failback: FailbackOptions {
            auto_restore: config.failover.auto_restore,
            restore_delay: config.failover.restore_delay,
        },
        drift: config.drift.clone(),
        shadow: config.shadow,
        snapshots: config.snapshots.clone(),
        ..TierOptions::default()
    }
}

/// Opens the log first, because it is what keeps a second process out, then the members.
pub async fn open(config: &Config) -> Result<(Vec<MemberStore>, Arc<dyn Log>)> {
    config.check_features(COMPILED_IN)?;
    let log: Arc<dyn Log> = if config.log.is_in_memory() {
        Arc::new(MemoryLog::new(config.log.max_bytes))
    } else {
        Arc::new(FileLog::open(log_options(config)).await?)
    };
    let mut members: Vec<MemberStore> = Vec::new();
    for name in &config.tier.members {
        let Some(member) = config.members.get(name) else {
            return Err(Error::invalid(format!(
                "the tier lists member `{name}`, but [members.{name}] is not there"
            )));
        };
        match open_member(config, name, member).await {
            Ok(store) => members.push(store),
            Err(error) => {
                for open in members {
                    let closed = open.store.close(&Context::within(CLOSE_TIMEOUT)).await;
                    closed.unwrap_or_else(|error| tracing::warn!(member = open.name, %error, "close failed"));
                }
                log.close().await?;
                return Err(error);
            }
        }
    }
    Ok((members, log))
}

fn log_options(config: &Config) -> LogOptions {
    use crate::config::Sync;
    LogOptions {
        sync: match config.log.sync {
            Sync::Immediate => SyncPolicy::Immediate,
            Sync::Periodic => SyncPolicy::Periodic(config.log.sync_interval),
            Sync::Manual => SyncPolicy::Manual,
        },
        max_bytes: config.log.max_bytes,
        ..LogOptions::new(&config.log.path)
    }
}

async fn open_member(config: &Config, name: &str, member: &MemberConfig) -> Result<MemberStore> {
    let backend = member.backend.name();
    let store =
        open_store(&member.backend).await.map_err(|error| error.with_member(name).with_operation("open"))?;
    let options = GuardOptions {
        timeout: member.timeout,
        write_timeout: member.write_timeout,
        max_concurrent: member.max_concurrent,
        breaker: BreakerOptions {
            failure_threshold: config.breaker.failure_threshold,
            success_threshold: config.breaker.success_threshold,
            reset_timeout: config.breaker.reset_timeout,
            ..BreakerOptions::default()
        },
        ..GuardOptions::default()
    };
    Ok(MemberStore { name: name.to_owned(), backend, store: Arc::new(Guarded::new(store, name, options)?) })
}

/// Opens the store of a member by itself, without a tier: to copy or compare it. Nothing guards it.
///
/// # Errors
/// `Unsupported` if the backend is not compiled in, and whatever the store runs into, such as another process that
/// has it open.
pub async fn open_store(backend: &BackendConfig) -> Result<Arc<dyn VectorStore>> {
    match backend {
        #[cfg(feature = "memory")]
        BackendConfig::Memory(memory) => {
            Ok(Arc::new(mainstay_memory::MemoryStore::new(memory_options(memory))?))
        }
        #[cfg(feature = "lance")]
        BackendConfig::Lance(lance) => Ok(Arc::new(open_lance(lance).await?)),
        #[cfg(any(feature = "qdrant", feature = "qdrant-edge"))]
        BackendConfig::Qdrant(qdrant) => Ok(Arc::new(qdrant::open(qdrant).await?)),
        #[cfg(not(all(
            feature = "memory",
            feature = "lance",
            any(feature = "qdrant", feature = "qdrant-edge")
        )))]
        other => Err(not_compiled_in(other.name(), other.feature())),
    }
}

/// What the store of a member holds, as a store is told before it is filled with it.
///
/// # Errors
/// As [`open_store`], and whatever reading the store runs into.
pub async fn expected_of_store(backend: &BackendConfig) -> Result<Vec<Expected>> {
    let store = open_store(backend).await?;
    let read = async {
        let collections = store.collections(&Context::within(READ_TIMEOUT)).await?;
        of_store(&*store, &collections, || Context::within(READ_TIMEOUT)).await
    };
    let expected = read.await;
    // Nothing was written that could be lost.
    let closed = store.close(&Context::within(CLOSE_TIMEOUT)).await;
    closed.unwrap_or_else(|error| tracing::warn!(%error, "close failed"));
    expected
}

/// What a member in memory is filled with at the start of a tier: what the first durable member that can be opened
/// holds, or, in a tier without one, what the log brings. No tier need be open, and none may be that has no durable
/// member.
///
/// # Errors
/// As [`expected_of_store`] of the last durable member; `Unavailable` if another process holds the log.
pub async fn expected_of_tier(config: &Config) -> Result<Vec<Expected>> {
    let backends = config.tier.members.iter().filter_map(|name| config.members.get(name));
    let mut failed = None;
    for backend in backends.map(|member| &member.backend) {
        if matches!(backend, BackendConfig::Memory(_)) {
            continue;
        }
        match expected_of_store(backend).await {
            Ok(expected) => return Ok(expected),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if config.log.is_in_memory() {
        return Ok(Vec::new());
    }
    let log = FileLog::open(log_options(config)).await?;
    let expected = tier::expected::of_log(&log).await;
    log.close().await?;
    expected
}

#[cfg(not(all(feature = "memory", feature = "lance", feature = "qdrant", feature = "qdrant-edge")))]
fn not_compiled_in(backend: &str, feature: &str) -> Error {
    Error::new(
        mainstay_core::ErrorKind::Unsupported,
        format!("the backend `{backend}` is not compiled in: add the cargo feature `{feature}`"),
    )
}

/// What the store of a memory member goes by, for estimates.
#[cfg(feature = "memory")]
pub fn memory_options(memory: &crate::config::MemoryConfig) -> mainstay_memory::MemoryOptions {
    use crate::config::{Quantization, WhenFull};
    mainstay_memory::MemoryOptions {
        max_memory: Some(memory.max_memory),
        quantization: match memory.quantization {
            Quantization::F32 => mainstay_memory::Quantization::F32,
            Quantization::F16 => mainstay_memory::Quantization::F16,
            Quantization::I8 => mainstay_memory::Quantization::I8,
        },
        when_full: match memory.when_full {
            WhenFull::Refuse => mainstay_memory::WhenFull::Refuse,
            WhenFull::Partial => mainstay_memory::WhenFull::Partial,
        },
        allow_red_zone: memory.allow_red_zone,
        tombstone_ratio: memory.tombstone_ratio,
        ..mainstay_memory::MemoryOptions::default()
    }
}

#[cfg(feature = "lance")]
async fn open_lance(lance: &crate::config::LanceConfig) -> Result<mainstay_lance::LanceStore> {
    mainstay_lance::LanceStore::open(mainstay_lance::LanceOptions {
        storage: mainstay_lance::StorageOptions {
            endpoint: lance.storage.endpoint.clone(),
            region: lance.storage.region.clone(),
            account: lance.storage.account.clone(),
            allow_http: lance.storage.allow_http,
            virtual_hosted_style: lance.storage.virtual_hosted_style,
        },
        index_threshold_rows: lance.index_threshold_rows,
        keep_versions: lance.keep_versions,
        ..mainstay_lance::LanceOptions::new(&lance.uri)
    })
    .await
}

/// Opens the Qdrant store of a member by itself, for what Qdrant alone has: collections to adopt.
///
/// # Errors
/// As [`open_store`].
#[cfg(any(feature = "qdrant", feature = "qdrant-edge"))]
pub async fn open_qdrant(qdrant: &crate::config::QdrantConfig) -> Result<mainstay_qdrant::QdrantStore> {
    qdrant::open(qdrant).await
}

#[cfg(any(feature = "qdrant", feature = "qdrant-edge"))]
mod qdrant {
    use mainstay_core::Result;
    use mainstay_qdrant::QdrantStore;

    use crate::config::{QdrantConfig, QdrantPlace};

    /// Opens a server or a directory.
    pub async fn open(qdrant: &QdrantConfig) -> Result<QdrantStore> {
        match &qdrant.place {
            #[cfg(feature = "qdrant")]
            QdrantPlace::Server(urls) => QdrantStore::connect(server::options(qdrant, urls)?).await,
            #[cfg(feature = "qdrant-edge")]
            QdrantPlace::Directory(path) => QdrantStore::open(mainstay_qdrant::EdgeOptions::new(path)).await,
            #[cfg(not(all(feature = "qdrant", feature = "qdrant-edge")))]
            _ => Err(super::not_compiled_in("qdrant", qdrant.feature())),
        }
    }

    #[cfg(feature = "qdrant")]
    mod server {
        use mainstay_core::{Error, Result};
        use mainstay_qdrant::{
            CollectionOptions, Compression, Consistency, Ordering, QuantizationKind, Secret, ServerOptions,
        };

        use crate::config::{
            self, KeySource, Placement, QdrantConfig, ReadConsistency, VectorQuantization, WriteOrdering,
        };

        pub fn options(qdrant: &QdrantConfig, urls: &[String]) -> Result<ServerOptions> {
            let some = |number: u32| (number > 0).then_some(number);
            Ok(ServerOptions {
                urls: urls.to_vec(),
                api_key: qdrant.api_key.as_ref().map(secret).transpose()?,
                connect_timeout: qdrant.connect_timeout,
                pool_size: qdrant.pool_size,
                compression: match qdrant.compression {
                    config::Compression::None => Compression::None,
                    config::Compression::Gzip => Compression::Gzip,
                },
                write_ordering: match qdrant.write_ordering {
                    WriteOrdering::Weak => Ordering::Weak,
                    WriteOrdering::Medium => Ordering::Medium,
                    WriteOrdering::Strong => Ordering::Strong,
                },
                read_consistency: match qdrant.read_consistency {
                    ReadConsistency::One => None,
                    ReadConsistency::Majority => Some(Consistency::Majority),
                    ReadConsistency::Quorum => Some(Consistency::Quorum),
                    ReadConsistency::All => Some(Consistency::All),
                },
                collections: CollectionOptions {
                    shard_number: some(qdrant.shard_number),
                    replication_factor: some(qdrant.replication_factor),
                    write_consistency_factor: some(qdrant.write_consistency_factor),
                    on_disk_vectors: on_disk(qdrant.vectors_on_disk),
                    on_disk_payload: on_disk(qdrant.payload_on_disk),
                    quantization: match qdrant.vector_quantization {
                        VectorQuantization::None => QuantizationKind::None,
                        VectorQuantization::Scalar => QuantizationKind::Scalar,
                        VectorQuantization::Binary => QuantizationKind::Binary,
                    },
                },
                ..ServerOptions::default()
            })
        }

        fn on_disk(placement: Placement) -> Option<bool> {
            match placement {
                Placement::Server => None,
                Placement::Disk => Some(true),
                Placement::Memory => Some(false),
            }
        }

        fn secret(source: &KeySource) -> Result<Secret> {
            let text = match source {
                KeySource::Env(name) => std::env::var(name).map_err(|_| {
                    Error::invalid(format!(
                        "api_key_env names the variable {name}, which is not set; set it to the API key"
                    ))
                })?,
                KeySource::File(path) => std::fs::read_to_string(path).map_err(|error| {
                    Error::invalid(format!("the API key cannot be read from {}: {error}", path.display()))
                })?,
            };
            let text = text.trim();
            if text.is_empty() { Err(Error::invalid("the API key is empty")) } else { Ok(Secret::new(text)) }
        }
    }
}
