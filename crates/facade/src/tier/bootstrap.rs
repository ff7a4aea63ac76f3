//! Bootstrap: loading an empty or hopelessly late member from another one while writes go on.
//!
//! The source is read while it moves from entry b to entry e. The target takes position b, and
//! replaying from there makes it exact: every point carries the LSN that wrote it, so a replayed
//! entry changes only what is older than itself. The log is held at b meanwhile.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::expected::of_store;
use mainstay_core::{
    CollectionRef, Context, Error, ErrorKind, Fields, Lsn, Position, RestoreStep, Result, ScrollQuery,
    VectorStore,
};
use tracing::Instrument;

use crate::log::Log;
use crate::sabotage::{self, Bug};
use crate::tier::applier::not_the_stores_fault;
use crate::tier::member::Member;
use crate::tier::{route, spans};

/// Points read and written at once.
const PAGE: usize = if cfg!(feature = "simulation") { 5 } else { 512 };
/// One page, read or written.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Ending a load includes making all of it durable.
const FINISH_TIMEOUT: Duration = Duration::from_secs(600);

/// Loads member `target` from one that is at entry `at_least` or beyond, or from the member `from` if it is, and answers
/// the position that it continues from.
///
/// # Errors
/// `Unavailable` if no member can be read from; whatever the source or the target run into.
pub async fn load(
    members: &[Arc<Member>],
    target: usize,
    log: &dyn Log,
    at_least: Lsn,
    from: Option<usize>,
) -> Result<Position> {
    let views: Vec<_> = members.iter().map(|member| member.view()).collect();
    let first = log.checkpoint().position.lsn.max(at_least);
    let source = match from {
        None => route::bootstrap_source(&views, target, first),
        Some(from) => route::may_be_source(&views[from], first).then_some(from),
    };
    let Some(source) = source else {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "what the log says up to entry {first} cannot be replayed, and no other member that is there can \
                 be read to load this one"
            ),
        ));
    };
    let (source, target) = (&members[source], &members[target]);
    // Held before the position is read, so that the cut cannot pass it in between. One that is on its way does not wait.
    let mut hold = log.hold(first);
    let first = hold.after();
    let setbacks = source.setbacks();
    let base = position_of(source, log).await?;
    if base.lsn < first {
        return Err(went_back(source));
    }
    // What comes before it is not replayed, and may be cut meanwhile.
    hold.move_to(base.lsn);
    if !sabotage::on(Bug::CursorKeptWhileLoading) {
        target.empty();
    }
    tracing::info!(member = %target.name(), source = %source.name(), at = %base.lsn, "loading");
    let span = spans::bootstrap(target.name(), source.name(), base.lsn);
    restore(source, target).instrument(span).await?;
    // What was read must hold all that the position says: a store that came back older meanwhile does not.
    let still = position_of(source, log).await?;
    if (still.lsn < base.lsn || source.setbacks() != setbacks) && !sabotage::on(Bug::SourceWentBack) {
        return Err(went_back(source));
    }
    let base = if sabotage::on(Bug::BootstrapAtLogEnd) {
        log.position_at(log.bounds().last).await.map_err(not_the_stores_fault)?
    } else {
        base
    };
    if !target.is_volatile() && !sabotage::on(Bug::StoreFlushedBeforeLog) {
        // What the source held and the log has not synced must not outlive the log.
        log.sync().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the log could not be synced before the store")
                .with_source(error)
        })?;
    }
    let finish = RestoreStep::Finish { position: base };
    target.store().restore(&Context::within(FINISH_TIMEOUT), finish).await?;
    Ok(base)
}

/// Where a store says that it is; it must be a place in this log.
pub(crate) async fn position_of(source: &Member, log: &dyn Log) -> Result<Position> {
    if sabotage::on(Bug::SourceWentBack) {
        return log.position_at(source.cursor()).await.map_err(not_the_stores_fault);
    }
    let said = source.store().position(&Context::within(PAGE_TIMEOUT)).await;
    let said = said.map_err(|error| source_failed(source, error))?;
    // One that nothing was ever written to is where the log began, if the log still begins there.
    let start = || Some(log.checkpoint().position).filter(|start| start.lsn == Lsn::ZERO);
    let said = said.or_else(start).filter(|said| said.log == log.identity());
    let said = said.ok_or_else(|| went_back(source))?;
    let known = log.position_at(said.lsn).await.map_err(not_the_stores_fault)?;
    if known == said { Ok(said) } else { Err(went_back(source)) }
}

/// What goes wrong with the source says nothing about the store that is loaded from it.
fn source_failed(source: &Member, error: Error) -> Error {
    let text = format!("member `{}` cannot be read to load this one", source.name());
    Error::new(ErrorKind::Unavailable, text).with_source(error)
}

fn went_back(source: &Member) -> Error {
    source.suspect();
    let text =
        format!("member `{}` is not where it was, and is no source until that is settled", source.name());
    Error::new(ErrorKind::Unavailable, text)
}

async fn restore(source: &Member, target: &Member) -> Result<()> {
    let page = || Context::within(PAGE_TIMEOUT);
    let (from, into) = (source.store(), target.store());
    let failed = |error: Error| match sabotage::on(Bug::SourceFailureBlamed) {
        true => error,
        false => source_failed(source, error),
    };
    let collections = from.collections(&page()).await.map_err(failed)?;
    let expected = of_store(&**from, &collections, page).await.map_err(failed)?;
    into.expect(&page(), &expected).await?;
    into.restore(&page(), RestoreStep::Begin).await?;
    for info in collections {
        let collection = CollectionRef { name: info.spec.name.clone(), incarnation: info.incarnation };
        into.restore(&page(), RestoreStep::Collection { spec: &info.spec, incarnation: info.incarnation })
            .await?;
        let mut query = ScrollQuery { limit: PAGE, fields: Fields::ALL, ..ScrollQuery::default() };
        loop {
            let read = match from.scroll(&page(), &collection.name, &query).await {
                Ok(read) if read.incarnation == collection.incarnation => read,
                // Dropped meanwhile, perhaps created again: the replay does the same.
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(failed(error)),
            };
            if !read.records.is_empty() {
                let step = RestoreStep::Points { collection: &collection, records: read.records };
                into.restore(&page(), step).await?;
            }
            match read.next {
                Some(next) if !sabotage::on(Bug::BootstrapFirstPageOnly) => query.after = Some(next),
                _ => break,
            }
        }
    }
    Ok(())
}
