//! From the config to open stores and an open log: the only place that knows the backends.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{BreakerOptions, Context, Error, GuardOptions, Guarded, Result, VectorStore};

use crate::config::{BackendConfig, Config, MemberConfig};
use crate::log::{Log, LogOptions, MemoryLog, SledLog, SyncPolicy};
use crate::tier::{MemberStore, TierOptions};

/// Closing what was opened before another member could not be opened.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The backends that are compiled in, which are the cargo features of this crate.
pub const COMPILED_IN: &[&str] = &[
    #[cfg(feature = "memory")]
    "memory",
    #[cfg(feature = "lance")]
    "lance",
];

/// What a tier goes by.
pub fn tier_options(config: &Config) -> TierOptions {
    TierOptions {
        ack: config.tier.ack,
        deadline: config.tier.deadline,
        max_batch_points: config.tier.max_batch_points,
        max_batch_bytes: usize::try_from(config.tier.max_batch_bytes).unwrap_or(usize::MAX),
        log_max_bytes: config.log.max_bytes,
        check_interval: config.failover.check_interval,
        ..TierOptions::default()
    }
}

/// Opens the log first, because it is what keeps a second process out, then the members.
pub async fn open(config: &Config) -> Result<(Vec<MemberStore>, Arc<dyn Log>)> {
    config.check_features(COMPILED_IN)?;
    let log: Arc<dyn Log> = if config.log.is_in_memory() {
        Arc::new(MemoryLog::new(config.log.max_bytes))
    } else {
        Arc::new(SledLog::open(log_options(config)).await?)
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

async fn open_store(backend: &BackendConfig) -> Result<Arc<dyn VectorStore>> {
    match backend {
        #[cfg(feature = "memory")]
        BackendConfig::Memory(memory) => Ok(Arc::new(open_memory(memory)?)),
        #[cfg(feature = "lance")]
        BackendConfig::Lance(lance) => Ok(Arc::new(open_lance(lance).await?)),
        #[cfg(not(all(feature = "memory", feature = "lance")))]
        other => Err(Error::new(
            mainstay_core::ErrorKind::Unsupported,
            format!("the backend `{0}` is not compiled in: add the cargo feature `{0}`", other.name()),
        )),
    }
}

#[cfg(feature = "memory")]
fn open_memory(memory: &crate::config::MemoryConfig) -> Result<mainstay_memory::MemoryStore> {
    use crate::config::Quantization;
    mainstay_memory::MemoryStore::new(mainstay_memory::MemoryOptions {
        max_memory: Some(memory.max_memory),
        quantization: match memory.quantization {
            Quantization::F32 => mainstay_memory::Quantization::F32,
            Quantization::F16 => mainstay_memory::Quantization::F16,
            Quantization::I8 => mainstay_memory::Quantization::I8,
        },
        tombstone_ratio: memory.tombstone_ratio,
        ..mainstay_memory::MemoryOptions::default()
    })
}

#[cfg(feature = "lance")]
async fn open_lance(lance: &crate::config::LanceConfig) -> Result<mainstay_lance::LanceStore> {
    mainstay_lance::LanceStore::open(mainstay_lance::LanceOptions {
        index_threshold_rows: lance.index_threshold_rows,
        ..mainstay_lance::LanceOptions::new(&lance.uri)
    })
    .await
}
