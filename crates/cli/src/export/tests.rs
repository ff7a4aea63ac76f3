use mainstay_core::{CollectionName, Distance, Lsn, PointId, SparseVector};
use serde_json::json;

use super::*;
use crate::import::{BatchLimits, Import};

const LIMITS: BatchLimits = BatchLimits { max_points: 100, max_bytes: 1 << 20 };

fn single() -> CollectionSpec {
    CollectionSpec::dense(CollectionName::new("c").unwrap(), 3, Distance::Dot)
}

fn mixed() -> CollectionSpec {
    let name = |text| VectorName::new(text).unwrap();
    single()
        .with_vector(name("image"), VectorSpec::Dense { dimension: 2, distance: Distance::Cosine })
        .with_vector(name("words"), VectorSpec::Sparse)
}

fn records(points: Vec<Point>) -> Vec<Record> {
    points.into_iter().enumerate().map(|(n, point)| Record { version: Lsn(n as u64 + 1), point }).collect()
}

fn plain_points() -> Vec<Point> {
    let mut points = vec![
        Point::new(0, vec![0.1, -1e-38, 3.402_823_5e38]),
        Point::new(u64::MAX, vec![1.0, 2.0, 3.0]).with_text(""),
        Point::new(uuid::Uuid::from_u128(7), vec![f32::MIN_POSITIVE, -0.0, 1.0 / 3.0])
            .with_text("line one\nline \"two\"\u{2028}\u{0}é")
            .with_payload(json!({
                "n": 18_446_744_073_709_551_615_u64, "i": i64::MIN, "f": 0.1, "last_bit": 0.907_303_832_202_868_9, "tiny": 5e-324, "whole": 1.0,
                "nested": {"a": [1, null, "x", {"b": []}]}, "": "empty key", "é.[]": true
            })),
        Point::new(5, vec![]),
    ];
    points[3].vectors.clear();
    points
}

fn mixed_points() -> Vec<Point> {
    let name = |text| VectorName::new(text).unwrap();
    let mut points = plain_points();
    points[0] = points[0].clone().with_vector(name("image"), Vector::Dense(vec![0.6, 0.8])).with_vector(
        name("words"),
        Vector::Sparse(SparseVector { indices: vec![0, 7, u32::MAX], values: vec![0.5, -0.1, 1e-20] }),
    );
    points[1].vectors = [(name("words"), Vector::Sparse(SparseVector::default()))].into();
    points
}

fn round_trip(spec: &CollectionSpec, points: Vec<Point>, file: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file);
    let mut export = Export::create(&path, None, spec).unwrap();
    for part in records(points.clone()).chunks(3) {
        export.write(part).unwrap();
    }
    export.write(&[]).unwrap();
    assert!(!path.exists(), "the name comes last");
    assert_eq!(export.finish().unwrap(), points.len() as u64);
    let read: Vec<Point> =
        Import::open(&path, None, None, LIMITS).unwrap().flat_map(|batch| batch.unwrap().points).collect();
    assert_eq!(read, points);
    // PartialEq takes -0.0 for 0.0; the bits must be the same too.
    let bits = |points: &[Point]| format!("{points:?}");
    assert_eq!(bits(&read), bits(&points));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn what_is_exported_reads_back_the_same() {
    for file in ["points.jsonl", "points.parquet"] {
        round_trip(&single(), plain_points(), file);
        round_trip(&mixed(), mixed_points(), file);
        round_trip(&single(), vec![], file);
    }
}

#[test]
fn many_records_fill_several_row_groups() {
    let points: Vec<Point> = (0..40_000).map(|n| Point::new(n, vec![n as f32, 0.5, -1.0])).collect();
    round_trip(&single(), points, "many.parquet");
}

#[test]
fn an_export_that_stops_half_way_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("points.parquet");
    std::fs::write(&path, "older").unwrap();
    let mut export = Export::create(&path, None, &single()).unwrap();
    export.write(&records(plain_points())).unwrap();
    drop(export);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "older");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_record_of_another_collection_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut export = Export::create(&dir.path().join("p.parquet"), None, &single()).unwrap();
    let error = export.write(&records(mixed_points())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("point: 0"), "{error}");
}

#[test]
fn a_place_that_cannot_be_written_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    for (path, word) in
        [("none/p.jsonl", "does not exist"), ("p.csv", ".jsonl or .parquet"), ("p", "names no format")]
    {
        let error = Export::create(&dir.path().join(path), None, &single()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(Export::create(dir.path(), Some(Format::Jsonl), &single()).is_err());
}

#[test]
fn the_standard_output_is_written_line_by_line() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut export = Export::to_writer(Box::new(Full), Format::Jsonl, &single()).unwrap();
    let error = export.write(&records(vec![Point::new(PointId::Num(1), vec![1.0])])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
}
