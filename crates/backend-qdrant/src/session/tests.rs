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

    /// Begins the entries up to this one beside those under way.
    async fn begin_beside(&mut self, to: Lsn) -> Result<Option<Part>> {
        let after = self.session.end().map_or(Lsn::ZERO, |position| position.lsn);
        let (run, after) = (self.script.run(after, to), self.script.position(after));
        self.session.begin_beside(&self.cx, &self.engine, after, run.entries()).await
    }

    async fn write(&self, part: &mut Part) {
        for changes in std::mem::take(&mut part.changes) {
            changes.write(&self.cx, &self.engine).await.unwrap();
        }
        part.written();
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

#[tokio::test(flavor = "multi_thread")]
async fn the_position_passes_runs_in_their_order_however_they_are_written() {
    let mut on = Fixture::new().await;
    on.apply(Lsn(1)).await.unwrap();
    on.session.settle();
    (1..=3).for_each(|id| on.put(id));
    let mut first = on.begin_beside(Lsn(2)).await.unwrap().unwrap();
    let mut second = on.begin_beside(Lsn(3)).await.unwrap().unwrap();
    let mut third = on.begin_beside(Lsn(4)).await.unwrap().unwrap();
    on.write(&mut third).await;
    assert_eq!(on.session.pass_written(&on.cx, &on.engine).await.unwrap(), Some(on.script.position(Lsn(1))));
    on.write(&mut first).await;
    assert_eq!(on.session.pass_written(&on.cx, &on.engine).await.unwrap(), Some(on.script.position(Lsn(2))));
    on.write(&mut second).await;
    assert_eq!(on.session.pass_written(&on.cx, &on.engine).await.unwrap(), Some(on.script.position(Lsn(4))));
    assert!(!on.session.is_in_doubt());
    for (part, lsn) in [(first, 2), (second, 4), (third, 4)] {
        part.place.leave(Lsn(lsn));
    }
    assert!(on.session.pipeline().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_depends_on_one_under_way_is_not_begun_beside_it() {
    let mut on = Fixture::new().await;
    assert!(on.begin_beside(Lsn(1)).await.unwrap().is_none(), "it creates a collection");
    on.apply(Lsn(1)).await.unwrap();
    [7, 8, 7].into_iter().for_each(|id| on.put(id));
    let first = on.begin_beside(Lsn(2)).await.unwrap().unwrap();
    let second = on.begin_beside(Lsn(3)).await.unwrap().unwrap();
    assert!(on.begin_beside(Lsn(4)).await.unwrap().is_none(), "it puts a point that is being put");
    drop((first, second));
    assert!(on.session.is_in_doubt(), "nobody knows what they wrote");
    on.session = on.session.reopen(&on.cx, &on.engine, Duration::from_secs(60)).await.unwrap();
    assert!(on.begin_beside(Lsn(2)).await.unwrap().is_none(), "points may be newer");
    on.apply(Lsn(4)).await.unwrap();
    assert_eq!((on.version(7).await, on.version(8).await), (Some(Lsn(4)), Some(Lsn(3))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ceiling_stays_above_what_is_being_written() {
    let mut on = Fixture::new().await;
    on.apply(Lsn(1)).await.unwrap();
    (1..=3).for_each(|id| on.put(id));
    let parts = [on.begin_beside(Lsn(2)).await.unwrap(), on.begin_beside(Lsn(4)).await.unwrap()];
    assert!(parts.iter().all(Option::is_some) && on.control().await.ceiling >= Lsn(4));
    on.session.save_at_rest(&on.cx, &on.engine).await.unwrap();
    let control = on.control().await;
    assert_eq!((control.position.map(|position| position.lsn), control.ceiling), (Some(Lsn(1)), Lsn(4)));
}
