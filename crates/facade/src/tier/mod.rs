//! The tier: one log, many stores.
//!
//! | module | idea |
//! |---|---|
//! | `member` | a store with its state and cursor |
//! | `route` | which member is asked: plain decisions |
//! | `write` | check, append, wait for a cursor |
//! | `read` | ask the active member, then the next |
//! | `applier` | the task that moves a member's cursor |
//! | `runs` | what a store is applying, in the order of the log |
//! | `events` | what happened, as it happens |
//! | `health` | how well the tier and its components are: plain decisions |
//! | `counts` | what is counted for metrics |
//! | `metrics` | telling it to a recorder |
//! | `page` | telling it to Prometheus |
//! | `spans` | the names that traces go by |
//! | `retry` | trying a read again after every member failed |
//! | `failback` | when a member that was away may serve first again |
//! | `options` | what a tier goes by |
//! | `operator` | what an operator may order |
//! | `expected` | what a replay is about to give a member |
//! | `bootstrap` | loading a member from another one |
//! | `close` | how a tier ends |
//! | `retention` | cutting the log |
//! | `drift` | comparing the members, and making them equal again |
//! | `shadow` | searches that a standby answers too |
//! | `snapshots` | copies of the state at an LSN, and the log between them |
//! | `measure` | calls made only to learn how long a member takes |
//! | `status` | what operators see |
//! | `json` | the same, for programs |

mod applier;
mod bootstrap;
mod close;
mod counts;
mod drift;
mod events;
pub(crate) mod expected;
#[cfg(test)]
mod exposed;
mod failback;
mod health;
mod json;
mod measure;
pub(crate) mod member;
mod metrics;
mod operator;
mod options;
#[cfg(feature = "prometheus")]
mod page;
pub(crate) mod read;
pub(crate) mod retention;
mod retry;
#[cfg(test)]
#[cfg(feature = "memory")]
mod room_tests;
pub(crate) mod route;
mod runs;
mod shadow;
#[cfg(test)]
mod slow_log;
#[cfg(feature = "snapshots")]
mod snapshots;
#[cfg(not(feature = "snapshots"))]
#[path = "snapshots/absent.rs"]
mod snapshots;
mod spans;
mod status;
#[cfg(test)]
#[cfg(feature = "memory")]
mod tests;
#[cfg(test)]
#[cfg(feature = "memory")]
mod watching_tests;
mod write;

use std::fmt;
#[cfg(feature = "prometheus")]
use std::net::SocketAddr;
#[cfg(feature = "prometheus")]
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mainstay_core::digest::{CollectionDigest, digest_store};
use mainstay_core::{
    CollectionName, CollectionSpec, Context, Error, ErrorKind, Fields, Filter, Guarded, Hit, Lsn, Payload,
    PayloadPath, Point, PointId, Record, Result, ScrollPage, ScrollQuery, SearchQuery, StoreId, VectorStore,
};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{RwLock, broadcast, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use drift::{CollectionDrift, DriftKind, DriftReport, DriftedPoint, MemberDrift};
pub use events::{Event, Events};
pub use failback::FailbackOptions;
pub use health::{ComponentHealth, ComponentKind, Health, HealthStatus, MeasuredLatency};
pub use member::MemberState;
pub use operator::Release;
pub use options::TierOptions;
pub use read::{MAX_IDS, Reader};
pub use shadow::ShadowStatus;
pub use status::{LogStatus, MemberStatus, SnapshotReport, SnapshotsStatus, Status};

use self::metrics::Publisher;
use crate::answer::{Answer, MemberName, Written};
use crate::backends;
use crate::catalog::Catalog;
use crate::config::{Config, DriftConfig};
use crate::log::{Log, scan};
use applier::{Applier, Pace};
use counts::{Counts, WriteOperation};
use drift::Drift;
use measure::Measure;
use member::{Member, StateChanges};
use read::MemberChanges;
use retry::Retries;
use route::View;
use shadow::Shadow;
use snapshots::Snapshots;
#[cfg(feature = "snapshots")]
pub(crate) use snapshots::{place_options, prune_options};

/// Hashing a member reads all of its ids; it may take this long.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// A store that becomes a member of a tier.
pub struct MemberStore {
    /// Its name in answers and status.
    pub name: String,
    /// The word of its backend.
    pub backend: &'static str,
    /// The store in its guard.
    pub store: Arc<Guarded<dyn VectorStore>>,
}

/// An ordered chain of stores behind one log, used as if it were one store that never goes down.
///
/// Cloning is cheap; all clones are one tier. [`close`](Self::close) ends it; dropping the last
/// clone ends it too, without the last flush, which costs a replay at the next start and no data.
///
/// ```no_run
/// use mainstay::{CollectionName, CollectionSpec, Config, Distance, Point, SearchQuery, Tier};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let tier = Tier::open(Config::load("mainstay.toml")?).await?;
/// let docs = CollectionName::new("docs")?;
/// tier.create_collection(CollectionSpec::dense(docs.clone(), 2, Distance::Cosine)).await?;
/// tier.upsert(&docs, vec![Point::new(1, vec![0.6, 0.8]).with_text("hello")]).await?;
/// let answer = tier.search(&docs, SearchQuery::new(vec![0.6, 0.8])).await?;
/// println!("{} hits from {}, level {}, lag {}", answer.value.len(), answer.served_by, answer.level, answer.lag);
/// tier.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tier {
    owner: Arc<Owner>,
}

/// A tier that this does not keep open.
#[derive(Clone)]
pub(crate) struct WeakTier(Weak<Owner>);

impl WeakTier {
    /// The tier, if it is still open.
    pub(crate) fn upgrade(&self) -> Option<Tier> {
        self.0.upgrade().map(|owner| Tier { owner })
    }
}

/// Owns the tasks and the word to stop; what the tasks share is apart, so that dropping the last
/// tier ends them.
struct Owner {
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    #[cfg(feature = "prometheus")]
    metrics_address: OnceLock<SocketAddr>,
}

/// What calls and tasks share.
pub(crate) struct Shared {
    pub(crate) options: TierOptions,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) catalog: Catalog,
    pub(crate) members: Arc<[Arc<Member>]>,
    pub(crate) retries: Retries,
    pub(crate) counts: Counts,
    /// What the process's recorder was told.
    publisher: Publisher,
    pub(crate) drift: Drift,
    pub(crate) shadow: Arc<Shadow>,
    pub(crate) snapshots: Option<Arc<Snapshots>>,
    measure: Measure,
    /// Writers pass side by side on their way into the log; a repair passes alone, so that nothing comes between its
    /// last look at the log and its entries.
    pub(crate) order: Arc<RwLock<()>>,
    /// The last entry that a writer was told is done.
    acked: AtomicU64,
    changes: StateChanges,
    events: broadcast::Sender<Event>,
    closing: watch::Receiver<bool>,
    owned: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").field("status", &self.status()).finish()
    }
}

impl Tier {
    /// Opens the tier of a config and waits until a member can serve, or every member has said that
    /// it cannot; [`status`](Self::status) tells.
    ///
    /// # Errors
    /// `Invalid` for a member whose backend is not compiled in, `Unavailable` if another process
    /// holds the log, `Corrupt` if the log is damaged, and whatever the stores say at opening.
    pub async fn open(config: Config) -> Result<Self> {
        let (members, log) = backends::open(&config).await?;
        let tier = Self::assemble(backends::tier_options(&config), log, members).await?;
        #[cfg(unix)]
        if !config.log.is_in_memory() {
            tier.listen_for_orders(&config.log.path);
        }
        #[cfg(feature = "prometheus")]
        tier.serve_metrics(config.metrics.listen).await?;
        Ok(tier)
    }

    /// Makes a tier of stores and a log of one's own, for backends from outside this workspace.
    ///
    /// # Errors
    /// `Invalid` without a member or with two of one name; `Corrupt` if the log is damaged.
    pub async fn assemble(options: TierOptions, log: Arc<dyn Log>, stores: Vec<MemberStore>) -> Result<Self> {
        if stores.is_empty() {
            return Err(Error::invalid("a tier needs at least one member"));
        }
        if let Some(twice) =
            stores.iter().enumerate().find(|(i, s)| stores[..*i].iter().any(|t| t.name == s.name))
        {
            return Err(Error::invalid(format!("two members are named `{}`", twice.1.name)));
        }
        let changes: StateChanges = Arc::new(watch::Sender::new(0));
        let events = broadcast::Sender::new(events::QUEUE);
        let members: Arc<[Arc<Member>]> = stores
            .into_iter()
            .map(|s| {
                let name = MemberName::new(&s.name);
                let (changes, events) = (Arc::clone(&changes), events.clone());
                Arc::new(Member::new(name, s.backend, s.store, options.failback, changes, events))
            })
            .collect();
        let catalog = read_catalog(&*log).await?;
        let (closing, closing_receiver) = watch::channel(false);
        let pace = Pace { check_interval: options.check_interval, flush_interval: options.flush_interval };
        let shared = Arc::new(Shared {
            retries: Retries::new(
                options.retry.clone(),
                options.seed.map_or_else(SmallRng::from_os_rng, SmallRng::seed_from_u64),
            ),
            counts: Counts::default(),
            publisher: Publisher::default(),
            drift: Drift::default(),
            shadow: Arc::new(Shadow::new(options.shadow, members.len(), events.clone())),
            snapshots: Snapshots::new(&options.snapshots, &log),
            measure: Measure::new(members.len()),
            order: Arc::default(),
            options,
            log,
            catalog,
            members,
            acked: AtomicU64::new(0),
            changes,
            events,
            closing: closing_receiver.clone(),
            owned: Mutex::new(JoinSet::new()),
        });
        let mut tasks = JoinSet::new();
        for index in 0..shared.members.len() {
            let applier = Applier {
                members: Arc::clone(&shared.members),
                index,
                log: Arc::clone(&shared.log),
                snapshots: shared.snapshots.clone(),
                pace,
                closing: closing_receiver.clone(),
                progress: false,
            };
            tasks.spawn(applier.run());
        }
        if let Some(snapshots) = &shared.snapshots {
            let closing = closing_receiver.clone();
            tasks.spawn(snapshots::run(Arc::clone(&shared), Arc::clone(snapshots), closing.clone()));
            tasks.spawn(snapshots::run_archive(Arc::clone(snapshots), closing));
        }
        tasks.spawn(retention::run(Arc::clone(&shared), closing_receiver.clone()));
        tasks.spawn(metrics::run(Arc::clone(&shared), closing_receiver.clone()));
        tasks.spawn(drift::run(Arc::clone(&shared), closing_receiver.clone()));
        tasks.spawn(events::tell_who_serves(Arc::clone(&shared), closing_receiver));
        let owner = Owner {
            shared,
            closing,
            tasks: Mutex::new(tasks),
            #[cfg(feature = "prometheus")]
            metrics_address: OnceLock::new(),
        };
        let tier = Self { owner: Arc::new(owner) };
        tier.wait_for_first_member().await;
        Ok(tier)
    }

    /// Lets other processes of this user see and order, through a socket in the directory of the log.
    #[cfg(unix)]
    fn listen_for_orders(&self, log: &std::path::Path) {
        match crate::control::Server::bind(log) {
            Ok(server) => {
                let work = server.serve(self.downgrade(), self.shared().closing.clone());
                self.owner.tasks.lock().spawn(work);
            }
            // Some file systems have no sockets; the tier serves without.
            Err(error) => tracing::warn!(%error, "other processes cannot see or order this tier"),
        }
    }

    #[cfg(unix)]
    fn downgrade(&self) -> WeakTier {
        WeakTier(Arc::downgrade(&self.owner))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    async fn wait_for_first_member(&self) {
        let mut states = self.shared().changes.subscribe();
        let ready = states.wait_for(|_| {
            let conditions: Vec<_> = self.shared().members.iter().map(|member| member.condition()).collect();
            let cannot = |state| matches!(state, MemberState::Down | MemberState::Quarantined);
            conditions.iter().any(|c| c.state == MemberState::Live)
                || conditions.iter().all(|c| c.settled && cannot(c.state))
        });
        // A deadline that passes leaves members on their way; the status tells.
        let _ = timeout(self.shared().options.deadline, ready).await;
    }

    /// Creates a collection.
    ///
    /// # Errors
    /// `Invalid` for a spec that breaks a rule, `AlreadyExists` if the name is taken; otherwise as
    /// [`upsert`](Self::upsert).
    pub async fn create_collection(&self, spec: CollectionSpec) -> Result<Written> {
        let (shared, name) = (self.shared(), spec.name.clone());
        let write = Arc::clone(shared).create_collection(spec);
        shared.watched(WriteOperation::CreateCollection, &name, write).await
    }

    /// Takes over a collection with the points that one member's store holds already, such as a Qdrant collection
    /// that another program wrote. Its points, whose version is 0, are the base of the collection; the other
    /// members are loaded from that member. `store` is what the store calls itself.
    ///
    /// # Errors
    /// As [`create_collection`](Self::create_collection).
    pub async fn adopt_collection(&self, spec: CollectionSpec, store: StoreId) -> Result<Written> {
        let (shared, name) = (self.shared(), spec.name.clone());
        let write = Arc::clone(shared).adopt_collection(spec, store);
        shared.watched(WriteOperation::AdoptCollection, &name, write).await
    }

    /// Drops a collection with all its points.
    ///
    /// # Errors
    /// `NotFound` if it is not there; otherwise as [`upsert`](Self::upsert).
    pub async fn drop_collection(&self, name: &CollectionName) -> Result<Written> {
        let write = Arc::clone(self.shared()).drop_collection(name.clone());
        self.shared().watched(WriteOperation::DropCollection, name, write).await
    }

    /// Writes whole points in place of the ones with the same ids. Of points with one id in a
    /// batch, the last one stands. A batch is logged as a whole or not at all.
    ///
    /// # Errors
    /// `Invalid` and `NotFound` for the caller to mend: nothing was logged. After an error whose effect is
    /// `Unknown` the write is in the log or may be; if it names the LSN, a later read
    /// [`at_least`](Reader::at_least) that LSN tells. It names none if the log itself did not answer by the
    /// deadline. `StorageFull` or `Unavailable` if the log takes no more writes.
    pub async fn upsert(&self, collection: &CollectionName, points: Vec<Point>) -> Result<Written> {
        let write = self.shared().upsert(collection, points);
        self.shared().watched(WriteOperation::Upsert, collection, write).await
    }

    /// Removes points by id; ids that are not there are passed over.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub async fn delete(&self, collection: &CollectionName, ids: &[PointId]) -> Result<Written> {
        let write = self.shared().delete(collection, ids);
        self.shared().watched(WriteOperation::Delete, collection, write).await
    }

    /// Removes the points that a filter accepts now.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert), and as a read, because the filter is resolved to ids, some thousand at a time. An
    /// error of any kind whose effect is `Unknown` names the last entry by which points were removed; another call removes
    /// the rest. `Invalid` for a filter without a condition, which accepts every point and is nearly always one that
    /// something was left out of: who means all points drops the collection and creates it again.
    pub async fn delete_by_filter(&self, collection: &CollectionName, filter: &Filter) -> Result<Written> {
        let write = self.shared().delete_by_filter(collection, filter);
        self.shared().watched(WriteOperation::DeleteByFilter, collection, write).await
    }

    /// Puts these top-level payload keys in place of the ones there.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub async fn set_payload(
        &self,
        collection: &CollectionName,
        ids: &[PointId],
        payload: Payload,
    ) -> Result<Written> {
        let write = self.shared().set_payload(collection, ids, payload);
        self.shared().watched(WriteOperation::SetPayload, collection, write).await
    }

    /// Removes the payload values at these paths.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub async fn delete_payload(
        &self,
        collection: &CollectionName,
        ids: &[PointId],
        paths: Vec<PayloadPath>,
    ) -> Result<Written> {
        let write = self.shared().delete_payload(collection, ids, paths);
        self.shared().watched(WriteOperation::DeletePayload, collection, write).await
    }

    /// Puts this payload in place of the whole payload.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert).
    pub async fn overwrite_payload(
        &self,
        collection: &CollectionName,
        ids: &[PointId],
        payload: Payload,
    ) -> Result<Written> {
        let write = self.shared().overwrite_payload(collection, ids, payload);
        self.shared().watched(WriteOperation::OverwritePayload, collection, write).await
    }

    /// Reads with conditions.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self.shared())
    }

    /// The nearest points to a vector.
    ///
    /// # Errors
    /// As [`Reader::search`].
    pub async fn search(&self, collection: &CollectionName, query: SearchQuery) -> Result<Answer<Vec<Hit>>> {
        self.reader().search(collection, query).await
    }

    /// The points with these ids that are there.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub async fn get(
        &self,
        collection: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Answer<Vec<Record>>> {
        self.reader().get(collection, ids, fields).await
    }

    /// A page of points, ids ascending.
    ///
    /// # Errors
    /// As [`Reader::scroll`].
    pub async fn scroll(
        &self,
        collection: &CollectionName,
        query: &ScrollQuery,
    ) -> Result<Answer<ScrollPage>> {
        self.reader().scroll(collection, query).await
    }

    /// How many points there are, or how many of them a filter accepts.
    ///
    /// # Errors
    /// As [`Reader::count`].
    pub async fn count(&self, collection: &CollectionName, filter: Option<&Filter>) -> Result<Answer<u64>> {
        self.reader().count(collection, filter).await
    }

    /// The collections at the end of the log, by name.
    pub fn collections(&self) -> Vec<CollectionSpec> {
        self.shared().catalog.specs()
    }

    /// The collection of this name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn collection(&self, name: &CollectionName) -> Result<CollectionSpec> {
        Ok((*self.shared().catalog.get(name)?.spec).clone())
    }

    /// The LSN that created the collection of this name: it tells it from an earlier one of the same name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn incarnation(&self, name: &CollectionName) -> Result<Lsn> {
        Ok(self.shared().catalog.get(name)?.incarnation)
    }

    /// What happens to the tier from now on: states, failovers, failbacks, alerts.
    pub fn events(&self) -> Events {
        Events::new(self.shared().events.subscribe())
    }

    /// Members, log and service level at this moment.
    pub fn status(&self) -> Status {
        status::of(self.shared())
    }

    /// The last entry of the log.
    pub fn log_end(&self) -> Lsn {
        self.shared().log.bounds().last
    }

    /// Waits until every member is live and at the end that the log has now.
    ///
    /// # Errors
    /// `Timeout`, naming the members that are not there yet and why.
    pub async fn wait_caught_up(&self, within: Duration) -> Result<()> {
        let shared = self.shared();
        let end = shared.log.bounds().last;
        let mut moved = shared.follow_members();
        let late =
            || shared.members.iter().filter(move |m| m.cursor() < end || m.state() != MemberState::Live);
        let all_there = async {
            while late().next().is_some() {
                moved.changed().await;
            }
        };
        if timeout(within, all_there).await.is_ok() {
            return Ok(());
        }
        let texts: Vec<_> = late()
            .map(|member| {
                let condition = member.condition();
                let reason = condition.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!("`{}` is {} at entry {}{reason}", member.name(), condition.state, member.cursor())
            })
            .collect();
        Err(Error::new(ErrorKind::Timeout, format!("not caught up with entry {end}: {}", texts.join("; "))))
    }

    /// Waits until what is applied so far is durable in every durable member.
    ///
    /// # Errors
    /// `Timeout`, as [`wait_caught_up`](Self::wait_caught_up).
    pub async fn wait_durable(&self, within: Duration) -> Result<()> {
        let end = self.shared().log.bounds().last;
        let durable = async {
            for member in self.shared().members.iter().filter(|member| !member.is_volatile()) {
                // An error means that the member is gone with the tier.
                let _ = member.watch_durable().wait_for(|durable| *durable >= end).await;
            }
        };
        timeout(within, durable).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, format!("not every durable member holds entry {end} durably"))
        })
    }

    /// A content hash of every collection of one member.
    ///
    /// # Errors
    /// `Invalid` for an unknown member, `Unsupported` for a partial one; whatever the member runs into.
    pub async fn digest(&self, member: &str) -> Result<Vec<CollectionDigest>> {
        let member = &self.shared().members[self.shared().member_index(member)?];
        if member.store().is_partial() {
            let text = "the member is partial: it let points go for want of room, and a hash of the rest says nothing";
            return Err(Error::new(ErrorKind::Unsupported, text).with_member(member.name().as_str()));
        }
        digest_store(&**member.store(), &Context::within(DIGEST_TIMEOUT)).await
    }

    /// Compares the members with each other now, whether or not they are compared in the background, and does with what
    /// differs what the policy says. Reads every live member from end to end, no faster than `config` says.
    ///
    /// # Errors
    /// `Overloaded` if they are being compared already, `Unavailable` if fewer than two members can be read.
    pub async fn compare_members(&self, config: &DriftConfig) -> Result<Arc<DriftReport>> {
        let (shared, config) = (Arc::clone(self.shared()), config.clone());
        self.shared().own(async move { drift::round(&shared, &config).await }).await
    }

    /// What the last comparison of the members found; `None` before the first.
    pub fn drift(&self) -> Option<Arc<DriftReport>> {
        self.shared().drift.last()
    }

    /// Makes a snapshot now, of the last member that has caught up and has every point, and prunes old ones. While
    /// another one is being made, it waits for it.
    ///
    /// # Errors
    /// `Unsupported` if the tier has no place for snapshots; `Unavailable` if no member can be read; `StorageFull` and whatever else writing runs into. The tier serves on, and earlier snapshots
    /// stay as they are.
    pub async fn snapshot(&self) -> Result<SnapshotReport> {
        let shared = self.shared();
        let Some(snapshots) = &shared.snapshots else {
            let text = "the tier has no place for snapshots; name one with snapshots.dir in its config";
            return Err(Error::new(ErrorKind::Unsupported, text));
        };
        snapshots::make(shared, snapshots).await
    }
}

impl Shared {
    pub(crate) fn views(&self) -> Vec<View> {
        self.members.iter().map(|member| member.view()).collect()
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err()
    }

    pub(crate) fn follow_members(&self) -> MemberChanges {
        MemberChanges::new(&self.members, self.changes.subscribe())
    }

    pub(crate) fn member_index(&self, name: &str) -> Result<usize> {
        self.members.iter().position(|member| member.name().as_str() == name).ok_or_else(|| {
            let known: Vec<_> = self.members.iter().map(|member| member.name().as_str()).collect();
            Error::invalid(format!("there is no member `{name}`; the tier has {}", known.join(", ")))
        })
    }

    /// Runs work that must not end with its caller; [`Tier::close`] waits for it.
    pub(crate) async fn own<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (send, answer) = oneshot::channel();
        // Nobody listens any more if the caller stopped waiting.
        self.spawn_owned(async move { drop(send.send(work.await)) });
        answer.await.unwrap_or_else(|_| Err(read::closing()))
    }

    /// Runs a task that [`Tier::close`] waits for.
    fn spawn_owned(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut owned = self.owned.lock();
        while owned.try_join_next().is_some() {}
        owned.spawn(task);
    }
}

/// Waits until the tier closes; that it is gone means the same.
pub(crate) async fn until_closing(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// The collections at the end of the log.
async fn read_catalog(log: &dyn Log) -> Result<Catalog> {
    let checkpoint = log.checkpoint();
    let catalog = Catalog::new(checkpoint.collections);
    scan(log, checkpoint.position.lsn, log.bounds().last, |entry| catalog.observe(entry)).await?;
    Ok(catalog)
}
