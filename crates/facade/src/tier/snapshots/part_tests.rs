//! Some collections alone, out of a snapshot and the archive, under tokio's paused clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainstay_core::conformance::{ModelStore, cx, state_of};
use mainstay_core::{
    CollectionName, CollectionSpec, Distance, Durability, Entry, ErrorKind, Lsn, Position, Record, Run,
    VectorStore,
};
use mainstay_snapshot::Repository;
use mainstay_snapshot::place::PlaceOptions;
use tempfile::TempDir;

use super::tests::options;
use crate::config::SaveMode;
use crate::log::{Log, MemoryLog};
use crate::restore::{RestoreOptions, Restored, Until, restore_store};
use crate::tier::exposed::Exposed;
use crate::tier::tests::{MINUTE, point};
use crate::tier::{MemberState, Release, Tier};

type State = Vec<(CollectionSpec, Lsn, Vec<Record>)>;

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

/// A tier of two members whose writes are half in a snapshot and half in the archive alone.
struct History {
    directory: TempDir,
    log: Arc<MemoryLog>,
    entries: Vec<Arc<Entry>>,
    /// The last entry of the snapshot.
    snapshot: Lsn,
}

impl History {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = Arc::new(MemoryLog::default());
        let members = ["primary", "secondary"].map(|name| Exposed::new(Durability::Volatile).member(name));
        let options = options(directory.path(), SaveMode::Manual);
        let tier = Tier::assemble(options, Arc::clone(&log) as Arc<dyn Log>, members.into()).await.unwrap();
        let create = async |text| {
            tier.create_collection(CollectionSpec::dense(name(text), 2, Distance::Dot)).await.unwrap();
        };
        let write = async |text, ids: std::ops::Range<u64>, value| {
            let points = ids.map(|id| point(id, value)).collect();
            tier.upsert(&name(text), points).await.unwrap();
        };
        create("a").await;
        create("b").await;
        for text in ["a", "b"] {
            write(text, 0..20, 1.0).await;
        }
        tier.wait_caught_up(MINUTE).await.unwrap();
        let snapshot = tier.snapshot().await.unwrap().to;
        for text in ["b", "a"] {
            write(text, 10..30, 2.0).await;
            tier.delete(&name(text), &[3.into(), 12.into()]).await.unwrap();
        }
        create("c").await;
        write("c", 0..5, 3.0).await;
        tier.drop_collection(&name("b")).await.unwrap();
        write("a", 100..103, 4.0).await;
        create("b").await;
        write("b", 0..2, 5.0).await;
        let entries = log.read(Lsn::ZERO, usize::MAX).await.unwrap();
        tier.close().await.unwrap();
        Self { directory, log, entries, snapshot }
    }

    fn last(&self) -> Lsn {
        Lsn(self.entries.len() as u64)
    }

    /// What a store holds that applied every entry up to this one.
    async fn at(&self, lsn: Lsn) -> State {
        let model = ModelStore::default();
        let entries = self.entries[..lsn.0 as usize].to_vec();
        model.apply(&cx(), &Run::new(Position::start(self.log.identity()), entries).unwrap()).await.unwrap();
        state_of(&model).await
    }

    async fn restore(
        &self,
        names: &[&str],
        options: RestoreOptions,
        into: &dyn VectorStore,
    ) -> mainstay_core::Result<Restored> {
        let place = self.directory.path().join("snapshots");
        let repository = Repository::open(place.to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
        let collections = Some(names.iter().map(|text| name(text)).collect::<BTreeSet<_>>());
        let options = RestoreOptions { collections, ..options };
        restore_store(&repository, options, into, &|_, _| {}).await
    }
}

#[tokio::test(start_paused = true)]
async fn collections_alone_are_what_they_were_at_every_entry_and_no_others_are_there() {
    let history = History::new().await;
    let mut restored_some = 0;
    for lsn in (history.snapshot.0..=history.last().0).map(Lsn) {
        let whole = history.at(lsn).await;
        for names in [&["a"][..], &["b"], &["c"], &["a", "c"], &["a", "b", "c"]] {
            let of_names = |text: &str| names.contains(&text);
            let expected: State =
                whole.iter().filter(|(spec, ..)| of_names(spec.name.as_str())).cloned().collect();
            let options = RestoreOptions { until: Until::Lsn(lsn), ..RestoreOptions::default() };
            let store = ModelStore::default();
            let restored = history.restore(names, options, &store).await;
            if expected.len() < names.len() {
                let error = restored.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound, "{names:?} at {lsn}: {error}");
                assert_eq!(store.position(&cx()).await.unwrap(), None);
                continue;
            }
            assert_eq!(restored.unwrap().to, lsn);
            assert_eq!(state_of(&store).await, expected, "{names:?} at {lsn}");
            let position = store.position(&cx()).await.unwrap().unwrap();
            assert_ne!(position.log.id, history.log.identity().id, "it is no member of the tier");
            assert_eq!(position.lsn, lsn);
            restored_some += 1;
        }
    }
    assert!(restored_some > 20, "{restored_some}");
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_is_not_there_is_refused_with_those_that_are() {
    let history = History::new().await;
    let store = ModelStore::default();
    let refused = async |names: &[&str], until| {
        let options = RestoreOptions { until, ..RestoreOptions::default() };
        history.restore(names, options, &store).await.unwrap_err()
    };
    let error = refused(&["a", "nope"], Until::End).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains("has no collection `nope`; there are: a, b, c"), "{text}");
    let text = refused(&["c"], Until::Lsn(history.snapshot)).await.to_string();
    assert!(text.contains("has no collection `c`; there are: a, b"), "{text}");
    let dropped =
        history.entries.iter().find(|entry| matches!(entry.op, mainstay_core::Op::DropCollection(_)));
    let dropped = dropped.unwrap().lsn;
    let text = refused(&["b"], Until::Lsn(dropped)).await.to_string();
    assert!(text.contains(&format!("`b` was dropped by entry {dropped}; there are: a, c")), "{text}");
    assert_eq!(refused(&[], Until::End).await.kind(), ErrorKind::Invalid);
    assert!(store.collections(&cx()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_what_would_be_loaded_and_a_store_that_holds_something_is_left_alone() {
    let history = History::new().await;
    let store = ModelStore::default();
    let dry = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
    let would = history.restore(&["a", "c"], dry.clone(), &store).await.unwrap();
    // `c` is in the archive alone.
    assert_eq!((would.collections, would.points, would.to), (1, 20, history.last()));
    assert!(store.collections(&cx()).await.unwrap().is_empty());
    assert_eq!(history.restore(&["nope"], dry, &store).await.unwrap_err().kind(), ErrorKind::NotFound);

    let restored = history.restore(&["b"], RestoreOptions::default(), &store).await.unwrap();
    assert_eq!((restored.collections, restored.points), (1, 20));
    let before = state_of(&store).await;
    let error = history.restore(&["a"], RestoreOptions::default(), &store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(state_of(&store).await, before);
    let replace = RestoreOptions { replace: true, ..RestoreOptions::default() };
    history.restore(&["a"], replace, &store).await.unwrap();
    let [(spec, _, _)] = &state_of(&store).await[..] else { panic!() };
    assert_eq!(spec.name, name("a"));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_loaded_with_some_collections_answers_nobody_until_it_is_loaded_whole() {
    let history = History::new().await;
    let (primary, part) = (Exposed::new(Durability::Volatile), Exposed::new(Durability::Volatile));
    history.restore(&["a"], RestoreOptions::default(), &*part).await.unwrap();
    let members = vec![primary.member("primary"), part.member("secondary")];
    let options = options(history.directory.path(), SaveMode::Manual);
    let log = Arc::clone(&history.log) as Arc<dyn Log>;
    let tier = Tier::assemble(options, log, members).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let secondary = tier.status().members.swap_remove(1);
    assert_eq!(secondary.state, MemberState::Quarantined);
    assert!(secondary.last_error.unwrap().contains("belongs to log"));
    assert_eq!(tier.reader().count(&name("b"), None).await.unwrap().value, 2);
    assert!(tier.reader().from_member("secondary").unwrap().count(&name("b"), None).await.is_err());
    tier.release("secondary", Release::Reload).unwrap();
    tier.wait_caught_up(10 * MINUTE).await.unwrap();
    assert_eq!(part.contents().await, primary.contents().await);
    assert_eq!(part.position(&cx()).await.unwrap(), primary.position(&cx()).await.unwrap());
    tier.close().await.unwrap();
}
