use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow_array::builder::{Float32Builder, Float64Builder, ListBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt64Array,
};
use mainstay_core::{Vector, VectorName};
use serde_json::json;

use super::*;

const LIMITS: BatchLimits = BatchLimits { max_points: 2, max_bytes: 1 << 20 };

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn parquet(&self, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
        let path = self.0.path().join("p.parquet");
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(4)).build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }
}

fn lists(rows: &[Option<Vec<f32>>]) -> ArrayRef {
    let mut lists = ListBuilder::new(Float32Builder::new());
    for row in rows {
        lists.append_option(row.as_ref().map(|values| values.iter().map(|v| Some(*v))));
    }
    Arc::new(lists.finish())
}

fn numbers(range: std::ops::Range<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(range))
}

fn open(path: &Path) -> Result<Import> {
    Import::open(path, None, None, LIMITS)
}

fn all(path: &Path) -> Result<Vec<Point>> {
    open(path)?.try_fold(Vec::new(), |mut points, batch| {
        points.extend(batch?.points);
        Ok(points)
    })
}

fn ids(points: &[Point]) -> Vec<String> {
    points.iter().map(|point| point.id.to_string()).collect()
}

fn line(id: u64) -> String {
    format!("{{\"id\": {id}, \"vector\": [{id}.5, 1]}}\n")
}

#[test]
fn lines_become_points() {
    let dir = Dir::new();
    let text = "\u{feff}{\"id\": 1, \"vector\": [0.5, 1], \"payload\": {\"a\": 1}, \"text\": \"x\"}\r\n\n  \n{\"id\": 2, \"vector\": [1, 0]}";
    let points = all(&dir.file("p.jsonl", text)).unwrap();
    assert_eq!(
        points,
        [
            Point::new(1, vec![0.5, 1.0]).with_payload(json!({"a": 1})).with_text("x"),
            Point::new(2, vec![1.0, 0.0]),
        ]
    );
}

#[test]
fn each_bad_line_is_named_after_the_good_ones_before_it() {
    let dir = Dir::new();
    for (bad, fragment) in [
        ("{\"id\": 3, \"vector\": [1, 2", "truncated"),
        ("{\"id\": 3, \"vector\": [1, 2\n", "not valid JSON at column"),
        ("{\"id\": 3,, }\n", "at column 10: key must be a string"),
        ("nonsense\n", "not valid JSON"),
        ("{\"vector\": [1, 2]}\n", "id"),
        ("{\"id\": -1, \"vector\": [1, 2]}\n", "id"),
        ("[1, 2]\n", ""),
        ("{\"id\": 3, \"vector\": \"x\"}\n", "vector"),
        ("{\"id\": 3, \"vector\": [1, 2], \"payload\": 7}\n", "payload"),
        ("{\"id\": 3, \"vector\": [1, 2]} {\n", "trailing"),
    ] {
        let path = dir.file(
            "p.jsonl",
            line(1) + &line(2) + "\n" + &line(9) + bad + if bad.ends_with('\n') { "{" } else { "" },
        );
        let mut import = open(&path).unwrap();
        assert_eq!(ids(&import.next().unwrap().unwrap().points), ["1", "2"]);
        let before = import.next().unwrap().unwrap();
        assert_eq!(ids(&before.points), ["9"]);
        let error = import.next().unwrap().unwrap_err();
        assert!(import.next().is_none());
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        assert!(
            text.contains("line: 5") && text.contains("p.jsonl") && text.contains(fragment),
            "{bad}: {text}"
        );

        // Once the line is repaired, the import goes on with it.
        let path = dir.file("p.jsonl", line(1) + &line(2) + "\n" + &line(9) + &line(3) + &line(4));
        let resumed = Import::open(&path, None, Some(&before.resume), LIMITS).unwrap();
        let rest: Vec<_> = resumed.flat_map(|batch| ids(&batch.unwrap().points)).collect();
        assert_eq!(rest, ["3", "4"]);
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_the_line() {
    let dir = Dir::new();
    let mut bytes = line(1).into_bytes();
    bytes.extend(b"{\"id\": 2, \"text\": \"\xff\"}\n");
    let error = all(&dir.file("p.jsonl", bytes)).unwrap_err();
    assert!(error.to_string().contains("line: 2"), "{error}");
}

#[test]
fn a_batch_keeps_to_its_limits() {
    let dir = Dir::new();
    let path = dir.file("p.jsonl", (1..=5).map(line).collect::<String>());
    let sizes = |limits| -> Vec<usize> {
        Import::open(&path, None, None, limits).unwrap().map(|batch| batch.unwrap().points.len()).collect()
    };
    assert_eq!(sizes(LIMITS), [2, 2, 1]);
    let one = Point::new(1, vec![1.5, 1.0]).size_bytes();
    assert_eq!(sizes(BatchLimits { max_points: 100, max_bytes: one * 3 }), [3, 2]);
    assert_eq!(sizes(BatchLimits { max_points: 0, max_bytes: 0 }), [1; 5]);
}

#[test]
fn the_later_of_two_points_with_one_id_comes_in_a_later_batch() {
    let dir = Dir::new();
    let path = dir.file("p.jsonl", line(1) + &line(1) + &line(2));
    let batches: Vec<_> = Import::open(&path, None, None, BatchLimits { max_points: 10, max_bytes: 1 << 20 })
        .unwrap()
        .map(|batch| ids(&batch.unwrap().points))
        .collect();
    assert_eq!(batches, [vec!["1"], vec!["1", "2"]]);
}

#[test]
fn an_import_resumes_after_any_batch() {
    let dir = Dir::new();
    let jsonl = dir.file("p.jsonl", (0..7).map(|n| line(n) + "\n").collect::<String>());
    let parquet = dir.parquet(vec![("id", numbers(0..7)), ("vector", lists(&vec![Some(vec![1.0]); 7]))]);
    for path in [jsonl, parquet] {
        for limits in [LIMITS, BatchLimits { max_points: 10, max_bytes: 100 }] {
            let whole = ids(&all(&path).unwrap());
            let mut done = 0;
            for batch in Import::open(&path, None, None, limits).unwrap() {
                let batch = batch.unwrap();
                done += batch.points.len();
                let resume: ResumePoint = batch.resume.to_string().parse().unwrap();
                assert_eq!(resume, batch.resume);
                let rest = Import::open(&path, None, Some(&resume), limits).unwrap();
                let rest: Vec<_> = rest.flat_map(|batch| ids(&batch.unwrap().points)).collect();
                assert_eq!(rest, whole[done..], "after {done} of {}", path.display());
            }
            assert_eq!(done, 7);
        }
    }
}

#[test]
fn a_resume_point_of_another_file_is_refused() {
    let dir = Dir::new();
    let first = |path: &Path| open(path).unwrap().next().unwrap().unwrap().resume;
    let jsonl = dir.file("p.jsonl", (1..=5).map(line).collect::<String>());
    let resume = first(&jsonl);
    // A file that has grown is still the same as far as it was read.
    dir.file("p.jsonl", (1..=9).map(line).collect::<String>());
    assert!(Import::open(&jsonl, None, Some(&resume), LIMITS).is_ok());
    for other in [(2..=6).map(line).collect::<String>(), line(1)] {
        dir.file("p.jsonl", other);
        let error = Import::open(&jsonl, None, Some(&resume), LIMITS).unwrap_err();
        assert!(error.to_string().contains("start again"), "{error}");
    }
    let parquet = dir.parquet(vec![("id", numbers(0..9))]);
    assert!(Import::open(&parquet, None, Some(&resume), LIMITS).is_err());
    let resume = first(&parquet);
    dir.parquet(vec![("id", numbers(0..8))]);
    assert!(Import::open(&parquet, None, Some(&resume), LIMITS).is_err());
    for bad in ["", "jsonl", "jsonl 1 2", "jsonl x 1 0", "csv 1 2 3", "parquet 1 0 0", "parquet -1 0"] {
        assert!(bad.parse::<ResumePoint>().is_err(), "{bad}");
    }
}

#[test]
fn progress_ends_at_the_whole() {
    let dir = Dir::new();
    for path in [dir.file("p.jsonl", line(1) + &line(2)), dir.parquet(vec![("id", numbers(0..9))])] {
        let mut import = open(&path).unwrap();
        assert_eq!(import.progress().done, 0);
        import.by_ref().for_each(|batch| drop(batch.unwrap()));
        let progress = import.progress();
        assert_eq!(progress.done, progress.total);
        assert!(progress.total > 0);
    }
}

#[test]
fn rows_become_points() {
    let dir = Dir::new();
    let path = dir.parquet(vec![
        ("id", Arc::new(StringArray::from(vec!["7", "00000000-0000-0000-0000-000000000001"]))),
        ("vector", lists(&[Some(vec![0.5, 1.0]), None])),
        ("payload", Arc::new(StringArray::from(vec![Some("{\"a\": [1]}"), None]))),
        ("text", Arc::new(StringArray::from(vec![None, Some("x")]))),
        ("year", Arc::new(Int64Array::from(vec![Some(1999), None]))),
        ("new", Arc::new(BooleanArray::from(vec![true, false]))),
        ("weight", Arc::new(Float64Array::from(vec![0.25, 0.5]))),
    ]);
    let points = all(&path).unwrap();
    let payload = json!({"a": [1], "year": 1999, "new": true, "weight": 0.25});
    assert_eq!(points[0], Point::new(7, vec![0.5, 1.0]).with_payload(payload));
    let mut second = Point::new(uuid::Uuid::from_u128(1), vec![]).with_text("x");
    second.vectors.clear();
    assert_eq!(points[1], second.with_payload(json!({"new": false, "weight": 0.5})));
}

#[test]
fn other_types_of_ids_and_vectors_are_understood() {
    let dir = Dir::new();
    let mut doubles = ListBuilder::new(Float64Builder::new());
    doubles.append_value([Some(0.1), Some(1.0)]);
    let uuid: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([[7_u8; 16]].into_iter()).unwrap());
    let signed: ArrayRef = Arc::new(Int64Array::from(vec![3]));
    for (id, expected) in [(uuid, "07070707-0707-0707-0707-070707070707"), (signed, "3")] {
        let path = dir.parquet(vec![("id", id), ("vector", Arc::new(doubles.finish_cloned()))]);
        let points = all(&path).unwrap();
        assert_eq!(ids(&points), [expected]);
        assert_eq!(points[0].vectors[&VectorName::default()], Vector::Dense(vec![0.1, 1.0]));
    }
    let vectors: ArrayRef =
        Arc::new(StringArray::from(vec!["{\"a\": [1, 2], \"b\": {\"indices\": [3], \"values\": [0.5]}}"]));
    for name in ["vector", "vectors"] {
        let path = dir.parquet(vec![("id", numbers(1..2)), (name, vectors.clone())]);
        assert_eq!(all(&path).unwrap()[0].vectors.len(), 2);
    }
}

#[test]
fn columns_that_cannot_be_read_are_refused_before_any_row() {
    let dir = Dir::new();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let binary: ArrayRef = Arc::new(arrow_array::BinaryArray::from_vec(vec![b"x"]));
    for (columns, fragment) in [
        (vec![("key", texts.clone())], "no column `id`; there are `key`"),
        (vec![("id", floats.clone())], "column `id` has type Float64"),
        (vec![("id", numbers(0..1)), ("vector", floats.clone())], "lists of floats"),
        (vec![("id", numbers(0..1)), ("payload", floats.clone())], "JSON text"),
        (vec![("id", numbers(0..1)), ("text", floats)], "must hold text"),
        (vec![("id", numbers(0..1)), ("image", binary)], "convert or drop the column"),
    ] {
        let error = open(&dir.parquet(columns)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(fragment), "{error}");
    }
}

#[test]
fn each_bad_row_is_named_with_its_row_group() {
    let dir = Dir::new();
    let texts = |bad: &str| -> ArrayRef {
        Arc::new(StringArray::from((0..9).map(|n| if n == 6 { bad } else { "{}" }).collect::<Vec<_>>()))
    };
    let mut negative: Vec<i64> = (0..9).collect();
    negative[6] = -6;
    let mut holes = vec![Some(vec![1.0]); 9];
    holes[6] = None;
    let mut nulls = ListBuilder::new(Float32Builder::new());
    for n in 0..9 {
        nulls.append_value([Some(1.0), (n != 6).then_some(2.0)]);
    }
    let numbers_with_null = UInt64Array::from((0..9).map(|n| (n != 6).then_some(n)).collect::<Vec<_>>());
    let nan: Vec<f64> = (0..9).map(|n| if n == 6 { f64::NAN } else { 1.0 }).collect();
    for (columns, fragment) in [
        (vec![("id", numbers(0..9)), ("payload", texts("{"))], "column `payload` is not valid JSON"),
        (vec![("id", numbers(0..9)), ("payload", texts("[1]"))], "not a JSON object"),
        (vec![("id", numbers(0..9)), ("vectors", texts("{\"a\": 5}"))], ""),
        (vec![("id", Arc::new(Int64Array::from(negative)) as ArrayRef)], "-6 is negative"),
        (vec![("id", Arc::new(numbers_with_null) as ArrayRef)], "the id is null"),
        (vec![("id", numbers(0..9)), ("vector", Arc::new(nulls.finish()))], "null at dimension 1"),
        (vec![("id", numbers(0..9)), ("x", Arc::new(Float64Array::from(nan)))], "column `x`: NaN"),
        (
            vec![("id", numbers(0..9)), ("payload", texts("{\"x\": 1}")), ("x", numbers(0..9))],
            "`x` is a key of the payload and a column as well",
        ),
    ] {
        let error = all(&dir.parquet(columns)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("row group: 1, row in group: 2, row: 6") && text.contains(fragment), "{text}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_damaged_parquet_file_is_an_error_wherever_it_is_cut_or_changed() {
    let dir = Dir::new();
    let vectors: Vec<_> = (0..40).map(|n| Some(vec![n as f32, 0.5, 1.0])).collect();
    let texts: ArrayRef =
        Arc::new(StringArray::from((0..40).map(|n| format!("text {n}")).collect::<Vec<_>>()));
    let path = dir.parquet(vec![("id", numbers(0..40)), ("vector", lists(&vectors)), ("text", texts)]);
    let good = std::fs::read(&path).unwrap();
    for length in (0..good.len()).step_by(97) {
        let path = dir.file("cut.parquet", &good[..length]);
        let error = all(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{length}: {error}");
    }
    for at in (0..good.len()).step_by(13) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        let path = dir.file("bad.parquet", bad);
        // Some changes make another valid file; none may do worse than an error.
        if let Err(error) = all(&path) {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{at}: {error}");
        }
    }
}

#[test]
fn the_format_is_told_by_name_or_content() {
    let dir = Dir::new();
    let jsonl = line(1);
    let parquet = std::fs::read(dir.parquet(vec![("id", numbers(1..2))])).unwrap();
    for (name, content, good) in [
        ("a.jsonl", jsonl.as_bytes(), true),
        ("a.ndjson", jsonl.as_bytes(), true),
        ("a", jsonl.as_bytes(), true),
        ("a.data", &parquet, true),
        ("a.PARQUET", &parquet, true),
        ("a.parquet", jsonl.as_bytes(), false),
        ("a.jsonl", &parquet, false),
        ("a.csv", b"id,vector", false),
        ("a.csv", b"", false),
        ("a.parquet", b"", false),
        ("a.jsonl", b"", true),
    ] {
        let path = dir.file(name, content);
        assert_eq!(all(&path).is_ok(), good, "{name}");
    }
    for path in [dir.0.path().join("none.jsonl"), dir.0.path().to_owned()] {
        assert_eq!(
            Import::open(&path, Some(Format::Jsonl), None, LIMITS).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}
