//! Checks of `restore`, of reopening and of closing.
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use super::script::{Script, cx, name, state_of};
use super::{Generator, ModelStore, StoreFactory, cases};
use crate::entry::{CollectionRef, Op, Position, StoreId};
use crate::error::ErrorKind;
use crate::id::Lsn;
use crate::point::{Point, Record};
use crate::query::SearchQuery;
use crate::spec::{CollectionSpec, Distance};
use crate::store::{Durability, RestoreStep, VectorStore};

/// Loads the whole state of one store into another, at this position.
pub async fn copy(from: &dyn VectorStore, into: &dyn VectorStore, position: Position) {
    into.restore(&cx(), RestoreStep::Begin).await.unwrap();
    assert_eq!(into.position(&cx()).await.unwrap(), None, "a half-loaded store has no position");
    for (spec, incarnation, records) in state_of(from).await {
        into.restore(&cx(), RestoreStep::Collection { spec: &spec, incarnation }).await.unwrap();
        let collection = CollectionRef { name: spec.name.clone(), incarnation };
        for records in records.chunks(7) {
            let step = RestoreStep::Points { collection: &collection, records: records.to_vec() };
            into.restore(&cx(), step).await.unwrap();
        }
    }
    into.restore(&cx(), RestoreStep::Finish { position }).await.unwrap();
    assert_eq!(into.position(&cx()).await.unwrap(), Some(position));
}

/// A restore forgets what was there and loads the rest exactly, versions too.
pub async fn a_restore_loads_the_state_of_another_store<F: StoreFactory>(factory: &F) {
    let script = Generator::new(3).history(50);
    let (model, store) = (ModelStore::default(), factory.create().await);
    script.apply_to(&model).await;
    Generator::new(4).history(10).apply_to(&store).await;
    copy(&model, &store, script.position(script.end())).await;
    assert_eq!(state_of(&store).await, state_of(&model).await);
}

/// What was saved of a restore is there after a crash, without a position, and the rest is added to it.
pub async fn a_restore_that_was_cut_short_goes_on_from_what_was_saved<F: StoreFactory>(factory: &F) {
    let (model, store) = (ModelStore::default(), factory.create().await);
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    script.upsert(&docs, (0..20).map(|id| Point::new(id, vec![id as f32, 1.0])).collect());
    script.apply_to(&model).await;
    let whole = state_of(&model).await;
    let (spec, incarnation, records) = &whole[0];
    let points = |records: &[Record]| RestoreStep::Points { collection: &docs, records: records.to_vec() };
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    store.restore(&cx(), RestoreStep::Collection { spec, incarnation: *incarnation }).await.unwrap();
    store.restore(&cx(), points(&records[..8])).await.unwrap();
    store.restore(&cx(), RestoreStep::Save).await.unwrap();
    store.restore(&cx(), points(&records[8..12])).await.unwrap();
    let store = match store.capabilities().durability {
        Durability::Volatile => store,
        Durability::OnFlush => factory.reopen(store).await.unwrap(),
    };
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    store.restore(&cx(), RestoreStep::Resume).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap(), None);
    let held = state_of(&store).await;
    assert_eq!((&held[0].0, held[0].1), (spec, *incarnation));
    assert!(held[0].2.len() >= 8 && records.starts_with(&held[0].2), "{held:?}");
    store.restore(&cx(), points(&records[held[0].2.len()..])).await.unwrap();
    let position = script.position(script.end());
    store.restore(&cx(), RestoreStep::Finish { position }).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap(), Some(position));
    assert_eq!(state_of(&store).await, whole);
    assert_eq!(store.restore(&cx(), RestoreStep::Resume).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// A collection that another store holds from before the log answers `LogGap` after what comes before it was
/// applied; a store that was loaded beyond it passes it over.
pub async fn what_was_taken_over_from_another_store_has_to_be_loaded<F: StoreFactory>(factory: &F) {
    let (model, store) = (ModelStore::default(), factory.create().await);
    let mut script = Script::new(1);
    script.create(&CollectionSpec::dense(name("before"), 2, Distance::Dot));
    let spec = CollectionSpec::dense(name("taken"), 2, Distance::Dot);
    let op = Op::AdoptCollection { spec: spec.clone(), store: StoreId(uuid::Uuid::from_u128(1)) };
    let taken = CollectionRef { name: name("taken"), incarnation: script.push(op) };
    script.upsert(&taken, vec![Point::new(1, vec![1.0, 2.0])]);
    let refused = store.apply(&cx(), &script.run(Lsn(0), Lsn(3))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LogGap);
    assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(Lsn(1))));
    assert_eq!(state_of(&store).await.len(), 1);

    let records = vec![Record { version: Lsn::ZERO, point: Point::new(2, vec![3.0, 4.0]) }];
    model.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let step = RestoreStep::Collection { spec: &spec, incarnation: taken.incarnation };
    model.restore(&cx(), step).await.unwrap();
    model.restore(&cx(), RestoreStep::Points { collection: &taken, records }).await.unwrap();
    model.restore(&cx(), RestoreStep::Finish { position: script.position(Lsn(1)) }).await.unwrap();
    copy(&model, &store, script.position(Lsn(1))).await;
    for store in [&model as &dyn VectorStore, &store] {
        let reached = store.apply(&cx(), &script.run(Lsn(1), Lsn(3))).await.unwrap();
        assert_eq!(reached, script.position(Lsn(3)));
    }
    assert_eq!(state_of(&store).await, state_of(&model).await);
    assert_eq!(store.count(&cx(), &name("taken"), None).await.unwrap(), 2);
}

/// A state newer than its position is made exact by replaying the log from the position.
pub async fn a_restore_while_the_source_moves_on_is_made_exact_by_the_log<F: StoreFactory>(factory: &F) {
    for seed in 20..20 + cases(2) {
        let script = Generator::new(seed).history(50);
        let (model, store) = (ModelStore::default(), factory.create().await);
        let (begun, read) = (Lsn(script.end().0 / 3), Lsn(script.end().0 * 2 / 3));
        model.apply(&cx(), &script.run(Lsn::ZERO, read)).await.unwrap();
        copy(&model, &store, script.position(begun)).await;
        script.apply_to(&store).await;
        script.apply_to(&model).await;
        assert_eq!(state_of(&store).await, state_of(&model).await, "seed {seed}");
    }
}

/// Steps out of order are refused, and a restore that was begun leaves no position.
pub async fn a_restore_out_of_order_is_refused<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let spec = CollectionSpec::dense(name("docs"), 2, Distance::Dot);
    let step = RestoreStep::Collection { spec: &spec, incarnation: Lsn(1) };
    assert_eq!(store.restore(&cx(), step).await.unwrap_err().kind(), ErrorKind::Invalid);
    store.restore(&cx(), RestoreStep::Begin).await.unwrap();
    let unknown = CollectionRef { name: name("docs"), incarnation: Lsn(1) };
    let step = RestoreStep::Points { collection: &unknown, records: Vec::new() };
    assert_eq!(store.restore(&cx(), step).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.position(&cx()).await.unwrap(), None);
}

/// What was flushed is there after the store was closed and opened again.
pub async fn a_reopened_store_holds_what_was_flushed<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    if store.capabilities().durability == Durability::Volatile {
        assert_eq!(store.flush(&cx()).await.unwrap(), None, "a volatile store has no durable position");
        println!("SKIPPED: a volatile store is not reopened");
        return;
    }
    let script = Generator::new(5).history(40);
    script.apply_to(&store).await;
    assert_eq!(store.flush(&cx()).await.unwrap(), Some(script.position(script.end())));
    let before = state_of(&store).await;
    store.close(&cx()).await.unwrap();
    let store = factory.reopen(store).await.unwrap();
    assert_eq!(store.position(&cx()).await.unwrap(), Some(script.position(script.end())));
    assert_eq!(state_of(&store).await, before);
}

/// A store that is opened again as a crash left it is where it says, and goes on from there.
pub async fn a_store_reopened_without_a_flush_is_never_ahead_of_its_data<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    if store.capabilities().durability == Durability::Volatile {
        println!("SKIPPED: a volatile store is not reopened");
        return;
    }
    let script = Generator::new(6).history(60);
    let half = Lsn(script.end().0 / 2);
    store.apply(&cx(), &script.run(Lsn::ZERO, half)).await.unwrap();
    store.flush(&cx()).await.unwrap();
    store.apply(&cx(), &script.run(half, script.end())).await.unwrap();
    let store = factory.reopen(store).await.unwrap();
    assert!(store.position(&cx()).await.unwrap().is_some_and(|position| position.lsn >= half));
    script.apply_to(&store).await;
    let model = ModelStore::default();
    script.apply_to(&model).await;
    assert_eq!(state_of(&store).await, state_of(&model).await);
}

/// Calls to a closed store answer `Unavailable`.
pub async fn a_closed_store_says_so<F: StoreFactory>(factory: &F) {
    let store = factory.create().await;
    let mut script = Script::new(1);
    let docs = script.create(&CollectionSpec::dense(name("docs"), 2, Distance::Dot));
    script.upsert(&docs, vec![Point::new(1, vec![1.0, 1.0])]);
    script.apply_to(&store).await;
    store.close(&cx()).await.unwrap();
    let docs = name("docs");
    let kinds = [
        store.ping(&cx()).await.unwrap_err().kind(),
        store.count(&cx(), &docs, None).await.unwrap_err().kind(),
        store.search(&cx(), &docs, &SearchQuery::new(vec![1.0, 1.0])).await.unwrap_err().kind(),
        store.collections(&cx()).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Unavailable; 4]);
}
