use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::PathBuf;

use mainstay_core::conformance::{Generator, ModelStore, Script, name, state_of};
use mainstay_core::{
    CollectionSpec, Distance, ErrorKind, PayloadIndex, Point, PointId, Result, SparseVector, Vector,
    VectorName, VectorSpec,
};
use serde_json::{Value, json};

use super::*;

const QUIET: &(dyn Fn(u64, u64) + Sync) = &|_, _| {};

fn file(collections: Value) -> String {
    json!({ "version": "2.0", "metadata": {}, "collections": collections }).to_string()
}

fn read(text: impl Into<String>) -> Result<Backup<Cursor<Vec<u8>>>> {
    Backup::read("b.json", Cursor::new(text.into().into_bytes()), Limits::default())
}

fn all(backup: &mut Backup<impl Read + Seek>) -> Vec<(CollectionSpec, Vec<Point>)> {
    let mut all: Vec<_> = backup.collections().iter().map(|c| (c.spec.clone(), Vec::new())).collect();
    let mut take = |collection: &Collection, points: Vec<Point>| {
        all.iter_mut().find(|(spec, _)| *spec == collection.spec).unwrap().1.extend(points);
        Ok(())
    };
    backup.points(&mut take).unwrap();
    all
}

/// Reads a file that is bad and answers why.
fn refused(collections: Value) -> (ErrorKind, String) {
    let error = read(file(collections)).unwrap_err();
    assert!(error.message().starts_with("b.json: "), "{error}");
    (error.kind(), error.message().to_owned())
}

fn vector_name(text: &str) -> VectorName {
    VectorName::new(text).unwrap()
}

async fn exported(store: &ModelStore) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup.json");
    let exported = export(store, &path, QUIET).await.unwrap();
    assert_eq!(exported.bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing half written is left");
    (directory, path)
}

async fn assert_comes_back(store: &ModelStore, what: &str) {
    let (_directory, path) = exported(store).await;
    let outcomes = validate_file(&path, &Limits::default());
    assert!(outcomes.iter().all(|checked| checked.outcome == Outcome::Passed), "{what}: {outcomes:?}");
    let mut backup = Backup::open(&path, Limits::default()).unwrap();
    assert_eq!((backup.version(), backup.notes()), (Version::V2, &[][..]), "{what}");
    let expected: Vec<_> = state_of(store)
        .await
        .into_iter()
        .map(|(spec, _, records)| (spec, records.into_iter().map(|record| record.point).collect::<Vec<_>>()))
        .collect();
    assert_eq!(all(&mut backup), expected, "{what}");
}

#[tokio::test]
async fn what_is_exported_comes_back_to_the_bit() {
    for seed in 0..300 {
        let script = Generator::new(seed).history(50);
        let store = ModelStore::default();
        script.apply_to(&store).await;
        assert_comes_back(&store, &format!("seed {seed}")).await;
    }
}

#[tokio::test]
async fn vectors_of_all_names_come_back() {
    let dense = VectorSpec::Dense { dimension: 2, distance: Distance::Manhattan };
    let kinds: &[&[(&str, VectorSpec)]] = &[
        &[("", dense)],
        &[("dense", dense)],
        &[("", dense), ("dense", dense)],
        &[("", dense), ("size", dense)],
        &[("size", dense)],
        &[("", VectorSpec::Sparse)],
        &[("", VectorSpec::Sparse), ("sparse", VectorSpec::Sparse)],
        &[("", dense), ("sparse", VectorSpec::Sparse)],
        &[("dense", dense), ("sparse", VectorSpec::Sparse)],
        &[("", VectorSpec::Sparse), ("dense", dense)],
        &[("dense", VectorSpec::Sparse), ("sparse", dense), ("", dense)],
    ];
    for (at, vectors) in kinds.iter().enumerate() {
        let mut spec = CollectionSpec::dense(name("c"), 1, Distance::Dot);
        spec.vectors = vectors.iter().map(|(name, vector)| (vector_name(name), *vector)).collect();
        let mut script = Script::new(1);
        let collection = script.create(&spec);
        for (id, left_out) in (0..=vectors.len()).enumerate() {
            let mut point = Point::new(id as u64, Vec::new());
            point.vectors.clear();
            for (n, (name, vector)) in vectors.iter().enumerate().filter(|(n, _)| *n != left_out) {
                let vector = match vector {
                    VectorSpec::Dense { .. } => Vector::Dense(vec![n as f32 + 0.1, -0.0]),
                    VectorSpec::Sparse => {
                        Vector::Sparse(SparseVector { indices: vec![3, u32::MAX], values: vec![0.1, 1e-40] })
                    }
                };
                point.vectors.insert(vector_name(name), vector);
            }
            script.upsert(&collection, vec![point]);
        }
        let store = ModelStore::default();
        script.apply_to(&store).await;
        assert_comes_back(&store, &format!("kind {at}")).await;
    }
}

#[tokio::test]
async fn every_float_comes_back_to_the_bit() {
    use rand::Rng;
    let mut script = Script::new(1);
    let collection = script.create(&CollectionSpec::dense(name("c"), 1_000, Distance::Dot));
    let mut generator = Generator::new(7);
    for id in 0..100_u64 {
        let float = |_| loop {
            let float = f32::from_bits(generator.rng().random());
            if float.is_finite() {
                break float;
            }
        };
        script.upsert(&collection, vec![Point::new(id, (0..1_000).map(float).collect())]);
    }
    let store = ModelStore::default();
    script.apply_to(&store).await;
    assert_comes_back(&store, "floats").await;
}

#[tokio::test]
async fn a_text_comes_back_whatever_keys_the_payload_has() {
    let mut script = Script::new(1);
    let collection = script.create(&CollectionSpec::dense(name("c"), 1, Distance::Dot));
    for (id, payload) in
        [json!({}), json!({"text": 5}), json!({"text": "x", "text_2": null, "text_key": "text"})]
            .iter()
            .enumerate()
    {
        let point = Point::new(id as u64 * 2, vec![1.0]).with_payload(payload.clone());
        script.upsert(&collection, vec![Point { id: (id as u64 * 2 + 1).into(), ..point.clone() }]);
        script.upsert(&collection, vec![point.with_text("the text")]);
    }
    let store = ModelStore::default();
    script.apply_to(&store).await;
    assert_comes_back(&store, "texts").await;
    let (_directory, path) = exported(&store).await;
    let value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(value["collections"]["c"]["points"][0]["payload"], json!({"text": "the text"}));
}

#[tokio::test]
async fn an_export_that_fails_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.json");
    std::fs::write(&path, "old").unwrap();
    let store = ModelStore::default();
    mainstay_core::VectorStore::close(&store, &mainstay_core::conformance::cx()).await.unwrap();
    let _ = export(&store, &path, QUIET).await;
    let missing = directory.path().join("no/such/folder/x.json");
    let error = export(&ModelStore::default(), &missing, QUIET).await.unwrap_err();
    assert!(error.to_string().contains("x.json cannot be written"), "{error}");
    let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["old.json"]);
}

/// The outcome of each check, in order: `.` passed, `-` not reached, or what failed.
fn outcomes(text: &str) -> Vec<String> {
    let shown = |checked: &Checked| match &checked.outcome {
        Outcome::Passed => ".".to_owned(),
        Outcome::NotReached => "-".to_owned(),
        Outcome::Failed(what) => what.clone(),
    };
    validate(text.as_bytes(), &Limits::default()).iter().map(shown).collect()
}

#[test]
fn a_file_passes_six_checks_or_each_that_fails_says_what_is_wrong_and_where() {
    let good = [
        file(json!({})),
        file(json!({"a": {"points": []}, "b": {"config": null, "points": [{"anything": 1e9}], "x": 1}})),
        json!({"collections": {}, "metadata": {}, "version": 1, "more": [[]]}).to_string(),
        json!({"collections": {}, "metadata": {}, "version": 2.0}).to_string(),
    ];
    for text in good {
        assert_eq!(outcomes(&text), [".", ".", ".", ".", ".", "."], "{text}");
    }
    let bad: [(String, [&str; 6]); 12] = [
        ("".into(), [".", "EOF", "-", "-", "-", "-"]),
        ("[]".into(), [".", "not an object but a list", "-", "-", "-", "-"]),
        ("{\"version\": \"2.0\",".into(), [".", "line 1 column 18", "-", "-", "-", "-"]),
        (file(json!({})) + "x", [".", "trailing", "-", "-", "-", "-"]),
        (
            r#"{"version": 1, "metadata": {}, "collections": {"a": {"points": [{}, {]}}}"#.into(),
            [".", "collection \"a\", point 1: ", "-", "-", "-", "-"],
        ),
        ("{}".into(), [".", ".", "no `version`; there is no `metadata`", "-", "-", "-"]),
        (
            json!({"version": "3.0", "collections": {}}).to_string(),
            [".", ".", "no `metadata`", "`version` is \"3.0\"", ".", "."],
        ),
        (
            json!({"version": 1.5, "metadata": {}, "collections": {}}).to_string(),
            [".", ".", ".", "is 1.5", ".", "."],
        ),
        (
            json!({"version": "2.0", "metadata": [], "collections": {"a": 7}}).to_string(),
            [
                ".",
                ".",
                ".",
                ".",
                "`metadata` is a list; collection \"a\" is a number",
                "\"a\" has no `points`",
            ],
        ),
        (
            json!({"version": "2.0", "metadata": {}, "collections": "x"}).to_string(),
            [".", ".", ".", ".", "`collections` is text", "-"],
        ),
        (
            file(json!({"a": {"points": {}}, "b": {}, "c": {"points": []}})),
            [
                ".",
                ".",
                ".",
                ".",
                ".",
                "`points` of collection \"a\" is an object; collection \"b\" has no `points`",
            ],
        ),
        (r#"{"version": 1, "version": 1}"#.into(), [".", "twice", "-", "-", "-", "-"]),
    ];
    for (text, expected) in bad {
        let found = outcomes(&text);
        for (found, expected) in found.iter().zip(expected) {
            let fits = if expected.len() < 2 { found == expected } else { found.contains(expected) };
            assert!(fits, "{text}: {found:?} instead of {expected:?}");
        }
        assert!(read(text).is_err());
    }
    let gone = validate_file(std::path::Path::new("/no/such/file"), &Limits::default());
    assert!(matches!(&gone[0].outcome, Outcome::Failed(what) if what.contains("No such file")));
    assert!(gone[1..].iter().all(|checked| checked.outcome == Outcome::NotReached));
    assert_eq!(Check::ALL.len(), 6);
}

#[test]
fn a_config_of_any_usual_shape_is_understood() {
    let dense = VectorSpec::Dense { dimension: 4, distance: Distance::Euclidean };
    let unnamed = [
        json!({"vectors": {"size": 4, "distance": "Euclid"}}),
        json!({"params": {"vectors": {"size": 4, "distance": "Euclid", "on_disk": true}}}),
        json!({"config": {"params": {"vectors": {"size": 4, "distance": "Euclid"}}}}),
        json!({"vector_size": 4, "distance": "euclidean"}),
        json!({"dimension": 4, "distance": "EUCLID"}),
        json!({"size": 4, "metric": "euclid"}),
        json!({"vectors": {"dense": {"size": 4, "distance": "Euclid"}}}),
    ];
    for config in unnamed {
        let mut backup = read(file(json!({"c": {"config": config, "points": []}}))).unwrap();
        let expected = CollectionSpec::dense(name("c"), 4, Distance::Euclidean);
        assert_eq!(all(&mut backup), [(expected, vec![])], "{config}");
    }
    let config = json!({
        "vectors": {"a": {"size": 4, "distance": "Euclid"}, "dense": {"size": 4, "distance": "Euclid"}},
        "sparse_vectors": {"sparse": {"index": {}}},
        "payload_schema": {"k": {"data_type": "keyword", "points": 3}, "n": "integer", "g": "geo"},
    });
    let backup = read(file(json!({"c": {"points": [], "config": config}}))).unwrap();
    let collection = &backup.collections()[0];
    let names = [("a", dense), ("dense", dense), ("sparse", VectorSpec::Sparse)];
    assert_eq!(collection.spec.vectors, names.map(|(name, vector)| (vector_name(name), vector)).into());
    let indexes = [("k", PayloadIndex::Keyword), ("n", PayloadIndex::Integer)];
    assert_eq!(collection.spec.payload_indexes, indexes.map(|(path, i)| (path.parse().unwrap(), i)).into());
    assert_eq!(collection.notes, ["no index of the payload at \"g\" of type \"geo\""]);
}

#[test]
fn without_a_config_the_points_tell_and_it_is_said() {
    let points = json!([
        {"id": 1, "vector": {"dense": [3.0, 4.0], "sparse": {"indices": [9, 2], "values": [1.0, 2.0]}}, "payload": {"a": 1}},
        {"id": "00000000-0000-0000-0000-000000000007", "vector": [0.0, 2.0], "payload": null, "shard_key": 5},
        {"id": 2},
    ]);
    let mut backup = read(file(json!({"c": {"points": points}, "empty": {"points": []}}))).unwrap();
    assert!(backup.notes()[0].contains("\"empty\" was left out"), "{:?}", backup.notes());
    let notes = backup.collections()[0].notes.join("\n");
    for said in
        ["\"dense\"", "from the first point", "cosine", "is the default vector", "passed over: shard_key"]
    {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    let expected = CollectionSpec::dense(name("c"), 2, Distance::Cosine)
        .with_vector(vector_name("sparse"), VectorSpec::Sparse);
    let [(spec, points)] = &all(&mut backup)[..] else { panic!("one collection") };
    assert_eq!(*spec, expected);
    let sparse = SparseVector { indices: vec![2, 9], values: vec![2.0, 1.0] };
    let first = Point::new(1, vec![0.6, 0.8])
        .with_payload(json!({"a": 1}))
        .with_vector(vector_name("sparse"), Vector::Sparse(sparse));
    let second = Point::new(PointId::Uuid(uuid::Uuid::from_u128(7)), vec![0.0, 1.0]);
    assert_eq!(points[..2], [first, second]);
    assert_eq!((points[2].id, points[2].vectors.len()), (2.into(), 0));
}

#[test]
fn a_bad_point_is_named_by_file_collection_and_index() {
    let good = json!({"id": 0, "vector": [1.0, 2.0]});
    let mut deep = json!(1);
    for _ in 0..70 {
        deep = json!([deep]);
    }
    let bad = [
        (json!({"vector": [1.0, 2.0]}), "no `id`"),
        (json!(7), "not a number"),
        (json!({"id": "seven", "vector": [1.0, 2.0]}), "`seven` is not a point id"),
        (json!({"id": "7", "vector": [1.0, 2.0]}), "number in quotes"),
        (json!({"id": -1}), "-1"),
        (json!({"id": 0, "vector": [1.0, 2.0]}), "an earlier point has the id 0 too"),
        (json!({"id": 1, "vector": [1.0]}), "has 1 dimensions; the collection has 2"),
        (json!({"id": 1, "vector": [0.0, 0.0]}), "length zero"),
        (json!({"id": 1, "vector": [1.0, 1e300]}), "number out of range"),
        (json!({"id": 1, "vector": [1.0, "x"]}), "expected f32"),
        (json!({"id": 1, "vector": [1.0, null]}), "expected f32"),
        (json!({"id": 1, "vector": "x"}), "but text"),
        (json!({"id": 1, "vector": {"": {"indices": [1], "values": [1.0]}}}), "is sparse"),
        (json!({"id": 1, "vector": {"s": {"indices": [1], "values": []}}}), "1 indices but 0 values"),
        (json!({"id": 1, "vector": {"s": {"indices": [1, 1], "values": [1.0, 2.0]}}}), "index 1 twice"),
        (json!({"id": 1, "vector": {"s": {"indices": [1]}}}), "`indices` and `values`"),
        (json!({"id": 1, "vector": {"a/b": [1.0]}}), "'/'"),
        (json!({"id": 1, "vector": [1.0, 2.0], "payload": 5}), "the `payload` is no object"),
        (json!({"id": 1, "payload": {"a": deep}}), "nested deeper"),
        (json!({"id": 1, "text_key": "t"}), "text_key"),
    ];
    for (point, fragment) in bad {
        let (kind, text) = refused(json!({"c": {"points": [good, point]}}));
        assert!(text.contains("collection \"c\", point 1: ") && text.contains(fragment), "{point}: {text}");
        let grammar = fragment.contains("out of range");
        assert_eq!(kind, if grammar { ErrorKind::Corrupt } else { ErrorKind::Invalid }, "{text}");
    }
    let (_, text) =
        refused(json!({"c": {"points": [good, {"id": 1, "vector": [1.0]}], "config": {"size": 2}}}));
    assert!(text.contains("point 1") && text.contains("the collection has 2"), "{text}");
    let text = r#"{"version":1,"metadata":{},"collections":{"c":{"points":[{"id":1,"vector":[1e999]}]}}}"#;
    let error = read(text).unwrap_err();
    assert!(error.to_string().contains("collection \"c\", point 0: number out of range"), "{error}");
}

#[test]
fn a_bad_collection_is_named() {
    for (collections, fragment) in [
        (json!({"../x": {"points": [{"id": 1, "vector": [1.0]}]}}), "\"../x\""),
        (json!({"": {"points": []}}), "empty"),
        (json!({"c": {"points": [{"id": 1}]}}), "neither its config nor its points"),
        (json!({"c": {"points": [], "config": {"size": 0}}}), "a dimension is 0"),
        (json!({"c": {"points": [], "config": {"size": 1e300}}}), "a dimension is 1e"),
        (json!({"c": {"points": [], "config": {"size": 4, "distance": "hamming"}}}), "hamming"),
        (json!({"c": {"points": [], "config": {"vectors": {"a": 5}}}}), "no `size`"),
        (json!({"c": {"points": [{"id": 1, "vector": []}]}}), "dimension 0"),
    ] {
        let (_, text) = refused(collections);
        assert!(text.contains(fragment), "{text}");
    }
    let twice = r#"{"version":1,"metadata":{},"collections":{"c":{"points":[]},"c":{"points":[]}}}"#;
    assert!(
        read(twice).unwrap_err().to_string().contains("collection \"c\": the collection stands there twice")
    );
}

#[test]
fn nesting_without_end_is_an_error_wherever_it_stands() {
    let deep = |open: &str, close: &str| open.repeat(200_000) + "1" + &close.repeat(200_000);
    for bomb in [deep("[", "]"), deep("{\"a\":", "}"), "[".repeat(400_000), "{\"a\":".repeat(400_000)] {
        for text in [
            bomb.clone(),
            format!(r#"{{"version": {bomb}}}"#),
            format!(r#"{{"version":1,"metadata":{{}},"collections":{bomb}}}"#),
            format!(r#"{{"version":1,"metadata":{{}},"collections":{{"c":{bomb}}}}}"#),
            format!(r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"config":{bomb}}}}}}}"#),
            format!(r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":{bomb}}}}}}}"#),
            format!(r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":[{bomb}]}}}}}}"#),
            format!(
                r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":[{{"id":{bomb}}}]}}}}}}"#
            ),
            format!(
                r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":[{{"id":1,"payload":{{"a":{bomb}}}}}]}}}}}}"#
            ),
            format!(
                r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":[{{"id":1,"vector":{bomb}}}]}}}}}}"#
            ),
        ] {
            validate(text.as_bytes(), &Limits::default());
            assert!(read(text).is_err());
        }
    }
}

#[test]
fn a_value_beyond_the_limit_is_refused() {
    let limits = Limits { value_bytes: 1_000, ..Limits::default() };
    let large = json!({"id": 1, "vector": [1.0], "payload": {"a": "x".repeat(600_000)}});
    let text = file(json!({"c": {"points": [large]}}));
    let error = Backup::read("b.json", Cursor::new(text), limits).unwrap_err();
    assert!(error.to_string().contains("point 0: a value takes more than the 1000 bytes"), "{error}");
    // Many small ones are more than one may take.
    let points: Vec<_> = (0..50_000).map(|id| json!({"id": id, "vector": [1.0]})).collect();
    let text = file(json!({"c": {"points": points}}));
    assert!(text.len() > 1_000_000);
    assert!(Backup::read("b.json", Cursor::new(text), limits).is_ok());
}

#[test]
fn an_id_that_stands_twice_is_found_also_when_not_all_ids_fit() {
    let limits = Limits { ids: 100, batch_points: 7, ..Limits::default() };
    let text = |ids: &[u64]| {
        let points: Vec<_> = ids.iter().map(|id| json!({"id": id, "vector": [1.0]})).collect();
        file(json!({"small": {"points": points[..10]}, "c": {"points": points}}))
    };
    let mut ids: Vec<_> = (0..1_000).collect();
    let mut backup = Backup::read("b.json", Cursor::new(text(&ids)), limits).unwrap();
    assert_eq!(all(&mut backup)[1].1.len(), 1_000);
    for at in [1, 500, 999] {
        ids[at] = 0;
        let error = Backup::read("b.json", Cursor::new(text(&ids)), limits).unwrap_err();
        let expected = format!("point {at}: an earlier point has the id 0 too");
        assert!(error.to_string().contains(&expected), "{error}");
        ids[at] = at as u64;
    }
}

/// A file that changes between the first reading and the second.
struct Changing(Vec<Cursor<Vec<u8>>>);

impl Read for Changing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0[0].read(buffer)
    }
}

impl Seek for Changing {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        if self.0.len() > 1 {
            self.0.remove(0);
        }
        self.0[0].seek(to)
    }
}

#[test]
fn a_file_that_changes_between_two_passes_is_noticed() {
    let with = |n: u64| {
        let points: Vec<_> = (0..n).map(|id| json!({"id": id, "vector": [1.0]})).collect();
        Cursor::new(file(json!({"c": {"points": points}})).into_bytes())
    };
    let changing = Changing(vec![with(0), with(5), with(4)]);
    let mut backup = Backup::read("b.json", changing, Limits::default()).unwrap();
    let error = backup.points(&mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn what_takes_the_points_can_stop_it() {
    let points: Vec<_> = (0..1_000).map(|id| json!({"id": id, "vector": [1.0]})).collect();
    let mut backup = read(file(json!({"c": {"points": points}}))).unwrap();
    let mut batches = 0;
    let error = backup
        .points(&mut |_, points| {
            batches += 1;
            assert!(points.len() <= Limits::default().batch_points);
            Err(mainstay_core::Error::new(ErrorKind::StorageFull, "no room"))
        })
        .unwrap_err();
    assert_eq!((error.kind(), batches), (ErrorKind::StorageFull, 1));
}
