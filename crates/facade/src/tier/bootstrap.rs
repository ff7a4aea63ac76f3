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
use crate::tier::member::Member;
use crate::tier::{route, spans};

/// Points read and written at once.
const PAGE: usize = 512;
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
    // Held before the cursor is read, so that the cut cannot pass the cursor in between.
    let _hold = log.hold(first);
    let base = log.position_at(source.cursor()).await?;
    tracing::info!(member = %target.name(), source = %source.name(), at = %base.lsn, "loading");
    let span = spans::bootstrap(target.name(), source.name(), base.lsn);
    restore(source, target, base).instrument(span).await?;
    Ok(base)
}

async fn restore(source: &Member, target: &Member, base: Position) -> Result<()> {
    let page = || Context::within(PAGE_TIMEOUT);
    let (from, into) = (source.store(), target.store());
    let collections = from.collections(&page()).await?;
    let expected = of_store(&**from, &collections, page).await?;
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
                Err(error) => return Err(error),
            };
            if !read.records.is_empty() {
                let step = RestoreStep::Points { collection: &collection, records: &read.records };
                into.restore(&page(), step).await?;
            }
            match read.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    into.restore(&Context::within(FINISH_TIMEOUT), RestoreStep::Finish { position: base }).await
}
