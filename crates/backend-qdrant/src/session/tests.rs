//! What a session says of its place after a write that somebody saw or nobody did.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

use mainstay_core::conformance::Script;
use mainstay_core::{CollectionRef, Distance, Point};

use super::*;
use crate::edge::{Edge, EdgeOptions};
use crate::engine::Batch;

/// A session on an engine in a directory, with a collection `docs` at entry 1.
struct Fixture {
    engine: Edge,
    session: Session,
    script: Script,
    docs: CollectionRef,
    cx: Context,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let (directory, cx) = (tempfile::tempdir().unwrap(), Context::within(Duration::from_secs(60)));
        let engine = Edge::open(EdgeOptions::new(directory.path())).await.unwrap();
        let session = Session::open(&cx, &engine).await.unwrap();
        let mut script = Script::new(1);
        let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), 2, Distance::Dot);
        let docs = script.create(&spec);
        Self { engine, session, script, docs, cx, _directory: directory }
    }

    /// Another entry that puts a point.
    fn put(&mut self, id: u64) {
        let lsn = self.script.end().0 as f32;
        self.script.upsert(&self.docs, vec![Point::new(id, vec![lsn, 1.0])]);
    }

    /// Applies the entries up to this one.
    async fn apply(&mut self, to: Lsn) -> Result<()> {
        let from = self.session.position.map_or(Lsn::ZERO, |position| position.lsn);
        let (run, before) = (self.script.run(from, to), self.script.position(from));
        let refused = self.session.apply(&self.cx, &self.engine, before, run.entries()).await?;
        assert!(refused.is_none());
        Ok(())
    }

    async fn control(&self) -> Control {
        Control::parse(&self.engine.control(&self.cx).await.unwrap().unwrap()).unwrap()
    }

    async fn version(&self, id: u64) -> Option<Lsn> {
        let versions = self.engine.versions(&self.cx, &self.docs.name, &[id.into()]).await.unwrap();
        versions.into_values().next()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_read_anew_is_where_its_witness_proves_it_to_be_and_no_further() {
    let mut on = Fixture::new().await;
    for id in 1..=3 {
        on.put(id);
        let from = on.session.position.map_or(Lsn::ZERO, |position| position.lsn);
        on.apply(on.script.end()).await.unwrap();
        match id {
            1 => on.session.save(&on.cx, &on.engine).await.unwrap(),
            2 => on.session.vouch(on.script.run(from, on.script.end()).entries()),
            // Written, and then the server went away: nothing was looked at since.
            _ => {}
        }
    }
    let fresh = on.session.reopen(&on.cx, &on.engine, Duration::ZERO).await.unwrap();
    assert_eq!(fresh.position, Some(on.script.position(Lsn(3))));
    let delete = Batch { deletes: vec![2.into()], ..Batch::default() };
    let spec = on.session.control.collections[&on.docs.name].spec.clone();
    on.engine.write(&on.cx, &spec, delete).await.unwrap();
    let fresh = on.session.reopen(&on.cx, &on.engine, Duration::ZERO).await.unwrap();
    assert_eq!(fresh.position, Some(on.script.position(Lsn(2))), "as the document says");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_a_process_wrote_before_it_died_are_not_undone_by_older_ones() {
    let mut on = Fixture::new().await;
    (0..4).for_each(|_| on.put(7));
    on.apply(Lsn(2)).await.unwrap();
    on.session.save_at_rest(&on.cx, &on.engine).await.unwrap();
    on.apply(Lsn(5)).await.unwrap();
    assert_eq!(on.version(7).await, Some(Lsn(5)));
    // It dies here.
    on.session = Session::open(&on.cx, &on.engine).await.unwrap();
    assert_eq!(on.session.position.map(|position| position.lsn), Some(Lsn(2)));
    on.apply(Lsn(4)).await.unwrap();
    assert_eq!(on.version(7).await, Some(Lsn(5)), "entries 3 and 4 are older");
    on.put(7);
    on.apply(Lsn(6)).await.unwrap();
    assert_eq!(on.version(7).await, Some(Lsn(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ceiling_is_raised_before_points_get_newer_and_comes_down_when_the_store_is_at_rest() {
    let mut on = Fixture::new().await;
    on.put(1);
    on.apply(Lsn(2)).await.unwrap();
    on.session.save_at_rest(&on.cx, &on.engine).await.unwrap();
    assert!(!on.session.is_unsaved());
    assert_eq!(on.control().await.ceiling, Lsn(2));
    assert_eq!(Session::open(&on.cx, &on.engine).await.unwrap().newest, Lsn(2));
    // A write that fails at once: the collection is gone.
    on.engine.remove(&on.cx, &on.docs.name).await.unwrap();
    on.put(2);
    on.apply(Lsn(3)).await.unwrap_err();
    let control = on.control().await;
    assert!(control.ceiling >= Lsn(3), "{control:?}");
    assert_eq!(control.position, Some(on.script.position(Lsn(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceiling_above_entries_that_are_not_here_yet_stays() {
    let mut on = Fixture::new().await;
    (0..4).for_each(|_| on.put(7));
    on.apply(Lsn(2)).await.unwrap();
    on.session.save(&on.cx, &on.engine).await.unwrap();
    let ceiling = on.control().await.ceiling;
    assert!(ceiling > Lsn(5), "room for entries that follow");
    on.session = Session::open(&on.cx, &on.engine).await.unwrap();
    on.apply(Lsn(3)).await.unwrap();
    on.session.save_at_rest(&on.cx, &on.engine).await.unwrap();
    assert_eq!(on.control().await.ceiling, ceiling, "points may be as new as that");
}
