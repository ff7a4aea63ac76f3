//! Bad input is refused before the log, with the right kind and a message that says what is wrong.

use std::fmt::Debug;
use std::future::{Future, ready};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use mainstay::{
    CollectionName, CollectionSpec, Condition, Config, Distance, Effect, ErrorKind, FieldTest, Fields,
    Filter, Lsn, Match, Payload, PayloadIndex, PayloadPath, Point, PointId, Range, Record, Result, Scalar,
    ScrollQuery, SearchQuery, SparseVector, Tier, Vector, VectorName, VectorSpec,
};
use mainstay_cli::export::Export;
use mainstay_cli::import::{BatchLimits, Import};
use mainstay_core::json::{filter_from_json, id_from_json};
use serde_json::{Value, json};

use ErrorKind::{AlreadyExists, Invalid, NotFound};

/// Fewer cases than this mean that a table was lost.
const FEWEST_CASES: usize = 60;

type Call<'a> = Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

/// One bad input: what is called, the kind that it must fail with, and parts of the message.
struct Case<'a> {
    name: String,
    call: Call<'a>,
    kind: ErrorKind,
    fragments: Vec<String>,
}

impl Case<'_> {
    /// The same case with one more part of the message.
    fn also(mut self, fragment: &str) -> Self {
        self.fragments.push(fragment.to_owned());
        self
    }
}

/// A case of a call to the tier.
fn call<'a, T: Debug>(
    name: impl Into<String>,
    call: impl Future<Output = Result<T>> + 'a,
    kind: ErrorKind,
    fragment: &str,
) -> Case<'a> {
    let call = Box::pin(async move { call.await.map(|value| format!("{value:.200?}")) });
    Case { name: name.into(), call, kind, fragments: vec![fragment.to_owned()] }
}

/// A case of something that never gets as far as a tier.
fn plain<'a, T: Debug + 'a>(name: impl Into<String>, result: Result<T>, fragment: &str) -> Case<'a> {
    call(name, ready(result), Invalid, fragment)
}

fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

fn vector(name: &str) -> VectorName {
    VectorName::new(name).unwrap()
}

fn path(text: &str) -> PayloadPath {
    text.parse().unwrap()
}

/// A dense default vector of four under cosine, a dense one of two under dot, a sparse one.
fn spec() -> CollectionSpec {
    CollectionSpec::dense(collection("docs"), 4, Distance::Cosine)
        .with_vector(vector("image"), VectorSpec::Dense { dimension: 2, distance: Distance::Dot })
        .with_vector(vector("words"), VectorSpec::Sparse)
}

/// A tier of one member in memory with the collection of [`spec`] and two points in it.
async fn open(directory: &Path) -> Tier {
    let text = format!(
        "[tier]\nmembers = [\"memory\"]\nack = \"all\"\ndeadline = \"60s\"\n\
         [members.memory]\nbackend = \"memory\"\n[log]\npath = {:?}\n",
        directory.join("log")
    );
    let tier = Tier::open(Config::from_toml(&text).unwrap()).await.unwrap();
    tier.create_collection(spec()).await.unwrap();
    tier.upsert(&collection("docs"), vec![good(1), good(2)]).await.unwrap();
    tier
}

fn good(id: u64) -> Point {
    Point::new(id, vec![1.0, 2.0, 3.0, 4.0]).with_payload(json!({ "lang": "rust", "stars": id }))
}

/// A value of so many lists, one in another.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

fn payload(value: Value) -> Payload {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn dense(values: [f32; 4]) -> Vec<Point> {
    vec![Point::new(7, values.to_vec())]
}

fn named(name: &str, values: Vector) -> Vec<Point> {
    vec![good(7).with_vector(vector(name), values)]
}

fn sparse(indices: &[u32], values: &[f32]) -> Vector {
    Vector::Sparse(SparseVector { indices: indices.to_vec(), values: values.to_vec() })
}

fn creates(tier: &Tier) -> Vec<Case<'_>> {
    let dimension = |n| CollectionSpec::dense(collection("new"), n, Distance::Dot);
    let no_vector = CollectionSpec {
        name: collection("new"),
        vectors: Default::default(),
        payload_indexes: Default::default(),
    };
    let many_vectors =
        (0..65).fold(no_vector.clone(), |s, n| s.with_vector(vector(&format!("v{n}")), VectorSpec::Sparse));
    let many_indexes = (0..65).fold(dimension(2), |s, n| {
        s.with_payload_index(PayloadPath::key(format!("k{n}")), PayloadIndex::Keyword)
    });
    let zero_beside_good = dimension(2)
        .with_vector(vector("side"), VectorSpec::Dense { dimension: 0, distance: Distance::Euclidean });
    [
        ("create: dimension 0", dimension(0), Invalid, "dimension 0 of vector \"\" is outside 1 to 65536"),
        ("create: dimension too large", dimension(65_537), Invalid, "dimension 65537"),
        ("create: dimension usize::MAX", dimension(usize::MAX), Invalid, "is outside 1 to 65536"),
        ("create: dimension 0 of a named vector", zero_beside_good, Invalid, "vector \"side\""),
        ("create: no vector", no_vector, Invalid, "declares no vector"),
        ("create: too many vectors", many_vectors, Invalid, "65 vectors declared; at most 64"),
        (
            "create: too many payload indexes",
            many_indexes,
            Invalid,
            "65 payload indexes declared; at most 64",
        ),
        ("create: twice", spec(), AlreadyExists, "the collection `docs` exists already"),
        (
            "create: twice, otherwise",
            CollectionSpec::dense(collection("docs"), 9, Distance::Dot),
            AlreadyExists,
            "exists already",
        ),
    ]
    .map(|(name, spec, kind, fragment)| call(name, tier.create_collection(spec), kind, fragment))
    .into()
}

fn upserts<'a>(tier: &'a Tier, docs: &'a CollectionName) -> Vec<Case<'a>> {
    // Each point is small enough by itself.
    let heavy = |id| good(id).with_text("x".repeat(400 << 10));
    let deep = |levels| vec![good(7).with_payload(json!({ "deep": nested(levels) }))];
    let mut last_is_bad: Vec<_> = (10..20).map(good).collect();
    last_is_bad.push(Point::new(99, vec![1.0, f32::NAN, 0.0, 0.0]));
    let cases: Vec<(&str, Vec<Point>, &str)> = vec![
        ("empty batch", vec![], "the batch is empty"),
        (
            "10,001 points",
            (0..10_001).map(good).collect(),
            "10001 points; at most 10000 are allowed (tier.max_batch_points)",
        ),
        ("10 MB", (0..26).map(heavy).collect(), "at most 8388608 are allowed (tier.max_batch_bytes)"),
        (
            "one point too large",
            vec![good(7).with_text("x".repeat(600 << 10))],
            "point 7 has 614501 bytes; one entry of the log holds at most 524288",
        ),
        (
            "payload too large",
            vec![good(7).with_payload(json!({ "x": "x".repeat(600 << 10) }))],
            "one entry of the log holds at most",
        ),
        ("payload nested 64 deep in a key", deep(64), "nested deeper than 64 levels"),
        ("payload nested 500 deep", deep(500), "nested deeper than 64 levels"),
        ("too few dimensions", vec![Point::new(7, vec![1.0])], "has 1 dimensions; the collection wants 4"),
        ("too many dimensions", vec![Point::new(7, vec![1.0; 5])], "has 5 dimensions"),
        ("no dimension", vec![Point::new(7, vec![])], "has 0 dimensions; the collection wants 4"),
        ("NaN", dense([1.0, f32::NAN, 0.0, 0.0]), "holds NaN at dimension 1"),
        ("+infinity", dense([1.0, 0.0, f32::INFINITY, 0.0]), "holds inf at dimension 2"),
        ("-infinity", dense([f32::NEG_INFINITY, 0.0, 0.0, 0.0]), "holds -inf at dimension 0"),
        ("zero under cosine", dense([0.0; 4]), "has length zero, which has no direction under cosine"),
        ("minus zero under cosine", dense([-0.0; 4]), "has length zero"),
        (
            "unknown vector",
            named("imgae", Vector::Dense(vec![1.0, 2.0])),
            "the collection has no vector \"imgae\"; it has \"\", \"image\", \"words\"",
        ),
        ("named vector too long", named("image", Vector::Dense(vec![1.0; 3])), "vector \"image\" has 3"),
        ("sparse for dense", named("image", sparse(&[1], &[1.0])), "\"image\" is dense, but a sparse one"),
        (
            "dense for sparse",
            named("words", Vector::Dense(vec![1.0])),
            "\"words\" is sparse, but a dense one",
        ),
        ("sparse: unsorted", named("words", sparse(&[5, 3], &[1.0, 1.0])), "5 is followed by 3"),
        ("sparse: twice", named("words", sparse(&[3, 3], &[1.0, 1.0])), "3 is followed by 3"),
        ("sparse: a value missing", named("words", sparse(&[1, 2], &[1.0])), "2 indices but 1 values"),
        ("sparse: an index missing", named("words", sparse(&[1], &[1.0, 2.0])), "1 indices but 2 values"),
        ("sparse: NaN", named("words", sparse(&[1, 9], &[1.0, f32::NAN])), "holds NaN at index 9"),
        ("sparse: infinity", named("words", sparse(&[4], &[f32::INFINITY])), "holds inf at index 4"),
        ("the last of many is bad", last_is_bad, "point: 99"),
    ];
    let upsert = |(name, points, fragment)| {
        call(format!("upsert: {name}"), tier.upsert(docs, points), Invalid, fragment)
    };
    cases.into_iter().map(upsert).collect()
}

fn other_writes<'a>(tier: &'a Tier, docs: &'a CollectionName) -> Vec<Case<'a>> {
    let one = || vec![PointId::Num(1)];
    let many = || (0..10_001).map(PointId::Num).collect::<Vec<_>>();
    let set = |ids: Vec<PointId>, value| async move { tier.set_payload(docs, &ids, payload(value)).await };
    let put =
        |ids: Vec<PointId>, value| async move { tier.overwrite_payload(docs, &ids, payload(value)).await };
    let cut = |ids: Vec<PointId>, paths| async move { tier.delete_payload(docs, &ids, paths).await };
    let delete = |ids: Vec<PointId>| async move { tier.delete(docs, &ids).await };
    let by_filter = |filter: Filter| async move { tier.delete_by_filter(docs, &filter).await };
    // Together they take more than an entry of the log holds.
    let long_paths = (0..4_000).map(|n| PayloadPath::key(format!("{n:0>500}"))).collect();
    let mut cases = vec![
        call("delete: no ids", delete(vec![]), Invalid, "the list of ids is empty"),
        call("delete: too many ids", delete(many()), Invalid, "10001 ids were given; at most 10000"),
        call("set_payload: no ids", set(vec![], json!({"a": 1})), Invalid, "the list of ids is empty"),
        call("set_payload: too many ids", set(many(), json!({"a": 1})), Invalid, "at most 10000"),
        call("set_payload: too deep", set(one(), json!({"a": nested(64)})), Invalid, "deeper than 64 levels"),
        call(
            "set_payload: too large",
            set(one(), json!({"a": "x".repeat(600 << 10)})),
            Invalid,
            "the payload has 614",
        ),
        call("overwrite_payload: no ids", put(vec![], json!({})), Invalid, "the list of ids is empty"),
        call("overwrite_payload: too deep", put(one(), json!({"a": nested(99)})), Invalid, "deeper than 64"),
        call("delete_payload: no paths", cut(one(), vec![]), Invalid, "the list of payload paths is empty"),
        call("delete_payload: no ids", cut(vec![], vec![path("a")]), Invalid, "the list of ids is empty"),
        call("delete_by_filter: no condition", by_filter(Filter::default()), Invalid, "remove every point"),
        call("delete_payload: too many paths", cut(one(), long_paths), Invalid, "at most 1048576"),
    ];
    for (name, filter, fragment) in filters() {
        cases.push(call(format!("delete_by_filter: {name}"), by_filter(filter), Invalid, fragment));
    }
    cases
}

/// Filters that only code can build.
fn filters() -> Vec<(&'static str, Filter, &'static str)> {
    let field = |test| Condition::Field { path: path("stars"), test };
    let one = || Condition::equals(path("lang"), "rust");
    let deep = (0..16).fold(Filter::all([one()]), |f, _| Filter::all([Condition::Filter(Box::new(f))]));
    let bound = Range { gte: Some(f64::NAN), ..Range::default() };
    let mixed = Match::Any(vec![Scalar::Int(1), Scalar::Str("a".into())]);
    let ids = (0..65_537).map(PointId::Num).collect();
    vec![
        ("too deep", deep, "the filter is nested deeper than 16 levels"),
        ("too many conditions", Filter::all((0..1_025).map(|_| one())), "more than 1024 conditions"),
        ("NaN in a range", Filter::all([field(FieldTest::Range(bound))]), "the range of stars is NaN"),
        (
            "strings beside integers",
            Filter::all([field(FieldTest::Match(mixed))]),
            "mix strings and integers",
        ),
        ("too many ids", Filter::all([Condition::HasId(ids)]), "65537 values; at most 65536"),
    ]
}

fn reads<'a>(tier: &'a Tier, docs: &'a CollectionName) -> Vec<Case<'a>> {
    let good = || SearchQuery::new(vec![1.0, 0.0, 0.0, 0.0]);
    let using = |name, vector_| SearchQuery { using: vector(name), vector: vector_, ..good() };
    let of = SearchQuery::new;
    let searches = vec![
        ("limit 0", good().with_limit(0), "limit 0 is outside 1 to 10000"),
        ("limit 10,001", good().with_limit(10_001), "limit 10001 is outside 1 to 10000"),
        ("limit usize::MAX", good().with_limit(usize::MAX), "is outside 1 to 10000"),
        ("offset", SearchQuery { offset: 100_001, ..good() }, "offset 100001 is above 100000; page deeper"),
        ("offset usize::MAX", SearchQuery { offset: usize::MAX, ..good() }, "is above 100000"),
        (
            "threshold NaN",
            SearchQuery { score_threshold: Some(f32::NAN), ..good() },
            "the score threshold is NaN",
        ),
        ("NaN", of(vec![f32::NAN, 0.0, 0.0, 0.0]), "holds NaN at dimension 0"),
        ("infinity", of(vec![0.0, 0.0, 0.0, f32::INFINITY]), "holds inf at dimension 3"),
        ("wrong dimension", of(vec![1.0; 3]), "has 3 dimensions; the collection wants 4"),
        ("no dimension", of(vec![]), "has 0 dimensions"),
        ("zero under cosine", of(vec![0.0; 4]), "has length zero"),
        ("unknown vector", using("nope", Vector::Dense(vec![1.0])), "has no vector \"nope\"; it has"),
        ("sparse for dense", using("image", sparse(&[1], &[1.0])), "is dense, but a sparse one was given"),
        (
            "dense for sparse",
            using("words", Vector::Dense(vec![1.0])),
            "is sparse, but a dense one was given",
        ),
        ("sparse unsorted", using("words", sparse(&[2, 1], &[1.0, 1.0])), "2 is followed by 1"),
    ];
    let search = |(name, query, fragment)| {
        call(format!("search: {name}"), tier.search(docs, query), Invalid, fragment)
    };
    let mut cases: Vec<_> = searches.into_iter().map(search).collect();

    let get = |ids: Vec<PointId>| async move { tier.get(docs, &ids, &Fields::ALL).await };
    let scroll = |query: ScrollQuery| async move { tier.scroll(docs, &query).await };
    let limit = |limit| ScrollQuery { limit, ..ScrollQuery::default() };
    let beyond = Lsn(tier.log_end().0 + 1);
    cases.extend([
        call("get: no ids", get(vec![]), Invalid, "the list of ids is empty"),
        call(
            "get: too many ids",
            get((0..10_001).map(PointId::Num).collect()),
            Invalid,
            "10001 ids were given; at most 10000",
        ),
        call("scroll: limit 0", scroll(limit(0)), Invalid, "limit 0 is outside 1 to 10000"),
        call("scroll: limit 10,001", scroll(limit(10_001)), Invalid, "limit 10001 is outside"),
        call(
            "at_least beyond the log",
            async move { tier.reader().at_least(beyond).count(docs, None).await },
            Invalid,
            "but the log ends at entry 2",
        ),
        call(
            "at_least u64::MAX",
            async move { tier.reader().at_least(Lsn(u64::MAX)).search(docs, good()).await },
            Invalid,
            "but the log ends at entry 2",
        ),
        call(
            "from an unknown member",
            ready(tier.reader().from_member("nobody").map(|_| ())),
            Invalid,
            "there is no member `nobody`; the tier has memory",
        ),
    ]);
    for (name, filter, fragment) in filters() {
        let query = good().with_filter(filter.clone());
        cases.push(call(format!("search: filter {name}"), tier.search(docs, query), Invalid, fragment));
        let query = ScrollQuery { filter: Some(filter.clone()), ..ScrollQuery::default() };
        cases.push(call(format!("scroll: filter {name}"), scroll(query), Invalid, fragment));
        let count = async move { tier.count(docs, Some(&filter)).await };
        cases.push(call(format!("count: filter {name}"), count, Invalid, fragment));
    }
    cases
}

fn unknown_collection<'a>(tier: &'a Tier, nope: &'a CollectionName) -> Vec<Case<'a>> {
    const ID: &[PointId] = &[PointId::Num(1)];
    let says = "there is no collection `nope`";
    let get = async move { tier.get(nope, ID, &Fields::ALL).await };
    let scroll = async move { tier.scroll(nope, &ScrollQuery::default()).await };
    let by_filter = async move { tier.delete_by_filter(nope, &Filter::default()).await };
    let search = tier.search(nope, SearchQuery::new(vec![1.0; 4]));
    vec![
        call("get: unknown collection", get, NotFound, says),
        call("search: unknown collection", search, NotFound, says),
        call("scroll: unknown collection", scroll, NotFound, says),
        call("count: unknown collection", tier.count(nope, None), NotFound, says),
        call("describe: unknown collection", ready(tier.collection(nope)), NotFound, says),
        call("upsert: unknown collection", tier.upsert(nope, vec![good(1)]), NotFound, says),
        call("delete: unknown collection", tier.delete(nope, ID), NotFound, says),
        call("delete_by_filter: unknown collection", by_filter, NotFound, says),
        call("set_payload: unknown collection", tier.set_payload(nope, ID, Payload::new()), NotFound, says),
        call(
            "overwrite: unknown collection",
            tier.overwrite_payload(nope, ID, Payload::new()),
            NotFound,
            says,
        ),
        call(
            "delete_payload: unknown collection",
            tier.delete_payload(nope, ID, vec![path("a")]),
            NotFound,
            says,
        ),
        call("drop: unknown collection", tier.drop_collection(nope), NotFound, says),
    ]
}

/// Names, ids and paths are refused where they are made, so that no call ever sees a bad one.
fn texts() -> Vec<Case<'static>> {
    let long = "x".repeat(129);
    let long_path = "x".repeat(513);
    let collections = [
        ("", "the collection name is empty"),
        (".", "must start with a letter, a digit or `_`"),
        ("..", "must start with a letter, a digit or `_`"),
        (".hidden", "must start with"),
        ("-x", "must start with"),
        ("a/b", "contains '/'"),
        ("../x", "contains '/'"),
        ("a\\b", "contains '\\\\'"),
        ("a\0b", "contains '\\0'"),
        ("a b", "contains ' '"),
        ("a\nb", "contains '\\n'"),
        ("größe", "contains 'ö'; use ASCII letters"),
        ("a:b", "contains ':'"),
        (long.as_str(), "129 bytes long; at most 128"),
    ];
    let vectors = [
        ("a/b", "the vector name \"a/b\" contains '/'"),
        ("a b", "contains ' '"),
        ("\0", "contains '\\0'"),
        ("bild-ä", "contains 'ä'"),
        (long.as_str(), "the vector name is 129 bytes long"),
    ];
    let ids = [
        ("", "`` is not a point id"),
        ("-1", "`-1` is not a point id: use an unsigned number"),
        ("1.5", "or a UUID"),
        ("18446744073709551616", "0 to 18446744073709551615"),
        ("seven", "is not a point id"),
        ("67e55044-10b1-426f-9247-bb680e5fe0cg", "is not a point id"),
        (" 7", "is not a point id"),
    ];
    let paths = [
        ("", "a key is empty"),
        (".a", "a key is empty"),
        ("a.", "a key is empty"),
        ("a..b", "a key is empty"),
        ("[0]", "a key is empty"),
        ("a[", "a bracket is not closed"),
        ("a[x]", "only a number or nothing may stand in brackets"),
        ("a[-1]", "only a number or nothing may stand in brackets"),
        ("a[0]b", "a dot is missing between two keys"),
        ("a]", "a dot is missing between two keys"),
        ("\"a", "a quote is not closed"),
        ("\"\"", "a key is empty"),
        (long_path.as_str(), "a payload path of 513 bytes; at most 512"),
    ];
    let mut cases = Vec::new();
    for (text, fragment) in collections {
        cases.push(plain(format!("collection name {text:.20?}"), CollectionName::new(text), fragment));
    }
    for (text, fragment) in vectors {
        cases.push(plain(format!("vector name {text:.20?}"), VectorName::new(text), fragment));
    }
    for (text, fragment) in ids {
        cases.push(plain(format!("point id {text:?}"), text.parse::<PointId>(), fragment));
    }
    for (text, fragment) in paths {
        cases.push(plain(format!("payload path {text:.20?}"), text.parse::<PayloadPath>(), fragment));
    }
    for (value, fragment) in [
        (json!("7"), "\"7\" is a number in quotes; write 7"),
        (json!(-7), "-7 is not a point id"),
        (json!(7.5), "7.5 is not a point id"),
        (json!(null), "null is not a point id"),
    ] {
        cases.push(plain(format!("point id as JSON {value}"), id_from_json(&value), fragment));
    }
    cases
}

fn filters_as_json() -> Vec<Case<'static>> {
    let key = |rest: Value| {
        let mut condition = payload(rest);
        condition.insert("key".into(), json!("a"));
        json!({ "must": [condition] })
    };
    let deep = (0..20).fold(json!({ "must": [] }), |inner, _| json!({ "must": [inner] }));
    let many = json!({ "should": vec![json!({ "is_null": { "key": "a" } }); 1_025] });
    let cases = [
        (json!(null), "filter: an object was expected, not null"),
        (json!([]), "filter: an object was expected, not a list"),
        (json!("lang = rust"), "filter: an object was expected"),
        (json!({ "and": [] }), "filter: unknown key `and`; known are must, should, must_not"),
        (json!({ "must": 7 }), "filter.must: an object was expected, not 7"),
        (json!({ "must": [7] }), "filter.must[0]: an object was expected, not 7"),
        (json!({ "must": [{}] }), "filter.must[0]: one condition was expected"),
        (json!({ "must": [{ "kye": "a" }] }), "filter.must[0]: unknown key `kye`"),
        (
            json!({ "must": [{ "match": { "value": 1 } }] }),
            "filter.must[0].match: a `key` is missing beside it",
        ),
        (json!({ "must": [{ "key": "a" }] }), "either `match` or `range` was expected beside `key`"),
        (json!({ "must": [{ "key": 7, "match": { "value": 1 } }] }), "filter.must[0].key: a payload path"),
        (json!({ "must": [{ "key": "a..b", "match": { "value": 1 } }] }), "a key is empty"),
        (json!({ "must_not": [{ "is_empty": "a" }] }), "filter.must_not[0].is_empty: an object was expected"),
        (json!({ "should": [{ "has_id": 7 }] }), "filter.should[0].has_id: a list of ids was expected"),
        (json!({ "should": [{ "has_id": [7, "x"] }] }), "filter.should[0].has_id[1]"),
        (json!({ "should": [{ "has_id": [-1] }] }), "-1 is not a point id"),
        (key(json!({ "match": {}, "range": {} })), "either `match` or `range`"),
        (key(json!({ "match": "rust" })), "filter.must[0].match: an object was expected"),
        (key(json!({ "match": {} })), "exactly one of value, any, except was expected"),
        (key(json!({ "match": { "value": 1, "any": [1] } })), "exactly one of value, any, except"),
        (key(json!({ "match": { "value": 1.5 } })), "1.5 is not a 64-bit integer; compare fractions"),
        (key(json!({ "match": { "value": null } })), "a string, an integer or a bool was expected"),
        (key(json!({ "match": { "any": "rust" } })), "filter.must[0].match.any: a list was expected"),
        (key(json!({ "match": { "any": [1, "a"] } })), "mix strings and integers"),
        (key(json!({ "match": { "any": [true] } })), "take strings or integers"),
        (key(json!({ "range": {} })), "at least one of gt, gte, lt, lte was expected"),
        (key(json!({ "range": { "ge": 1 } })), "unknown key `ge`; known are gt, gte, lt, lte"),
        (key(json!({ "range": { "gt": "noon" } })), "\"noon\" is not an RFC 3339 datetime"),
        (key(json!({ "range": { "gt": 1, "lt": "2026-01-01T00:00:00Z" } })), "filter.must[0].range.lt"),
        (deep, "nested deeper than 16 levels"),
        (many, "more than 1024 conditions"),
    ];
    let case = |(value, fragment): (Value, &str)| {
        let name: String = format!("filter {value}").chars().take(120).collect();
        plain(name, filter_from_json(&value), fragment)
    };
    cases.into_iter().map(case).collect()
}

fn configs(directory: &Path) -> Vec<Case<'_>> {
    const GOOD: &str = "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"memory\"\n";
    let cases = [
        (
            format!("{GOOD}max_memroy = \"1GiB\"\n"),
            "members.a.max_memroy: unknown key; did you mean `max_memory`?",
        ),
        (format!("{GOOD}[teir]\nack = \"all\"\n"), "did you mean `tier`?"),
        (format!("{GOOD}timeout = \"soon\"\n"), "members.a.timeout: wants a duration"),
        (format!("{GOOD}timeout = 5\n"), "write timeout = \"5s\""),
        (format!("{GOOD}max_memory = \"lots\"\n"), "members.a.max_memory: wants a size"),
        (format!("{GOOD}[log]\nsync = \"never\"\n"), "log.sync: wants one of \"immediate\""),
        (GOOD.replace("memory", "memry"), "did you mean `memory`?"),
        (GOOD.replace("memory", "oracle"), "no backend \"oracle\"; there are `memory`"),
        (
            GOOD.replace("[\"a\"]", "[\"a\", \"b\"]"),
            "lists `b`, which is not defined; add a section [members.b]",
        ),
        (GOOD.replace("[\"a\"]", "[]"), "the tier has no members"),
        (String::new(), "the tier has no members"),
        (format!("{GOOD}timeout = \n"), "not valid TOML at line 5"),
        (GOOD.replace("[tier]", "[tier"), "not valid TOML at line 1"),
        (format!("{GOOD}backend = \"memory\"\n"), "line 5, column 1: duplicate key"),
    ];
    let mut all: Vec<Case<'_>> = Vec::new();
    for (text, fragment) in cases {
        let config = Config::from_toml(&text).map_err(mainstay::Error::from);
        all.push(plain(format!("config {text:?}"), config, fragment));
    }
    let missing = Config::load(directory.join("none.toml")).map_err(mainstay::Error::from);
    all.push(plain("config: no file", missing, "none.toml; `mainstay init` writes one"));
    if !cfg!(feature = "lance") {
        let text = format!(
            "[tier]\nmembers = [\"far\"]\n[members.far]\nbackend = \"lance\"\nuri = {:?}\n[log]\npath = {:?}\n",
            directory.join("lance"),
            directory.join("other-log")
        );
        let opened = async move { Tier::open(Config::from_toml(&text).unwrap()).await };
        let fragment = "member `far` wants backend `lance`: add the cargo feature `lance`";
        all.push(call("config: backend not compiled in", opened, Invalid, fragment));
    }
    all
}

/// Reads a whole file of points, as an import does.
fn import(path: &Path) -> Result<usize> {
    let limits = BatchLimits { max_points: 100, max_bytes: 1 << 20 };
    Import::open(path, None, None, limits)?.try_fold(0, |read, batch| Ok(read + batch?.points.len()))
}

/// A Parquet file of 500 points.
fn parquet(directory: &Path) -> Vec<u8> {
    let path = directory.join("good.parquet");
    let spec = CollectionSpec::dense(collection("docs"), 4, Distance::Cosine);
    let mut export = Export::create(&path, None, &spec).unwrap();
    let records: Vec<_> = (0..500)
        .map(|id| Record { version: Lsn(1), point: good(id).with_text(format!("text {id}")) })
        .collect();
    export.write(&records).unwrap();
    export.finish().unwrap();
    assert_eq!(import(&path).unwrap(), 500);
    std::fs::read(path).unwrap()
}

fn imports(directory: &Path) -> Vec<Case<'static>> {
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    // The third line is bad, and the error says so.
    let lines = [
        ("cut", "{\"id\": 3, \"vector\": [1, 2", "it seems to be truncated"),
        ("cut-in-text", "{\"id\": 3, \"text\": \"hal", "it seems to be truncated"),
        ("not-json", "id=3\n", "not valid JSON at column 1"),
        ("comma", "{\"id\": 3,}\n", "not valid JSON at column"),
        ("two", "{\"id\": 3} {\"id\": 4}\n", "trailing"),
        ("list", "[3, [1, 2, 3, 4]]\n", "a point is an object with an `id`, not a list"),
        ("no-id", "{\"vector\": [1, 2, 3, 4]}\n", "the point has no `id`"),
        ("bad-id", "{\"id\": \"three\", \"vector\": [1, 2, 3, 4]}\n", "`three` is not a point id"),
        ("minus-id", "{\"id\": -3, \"vector\": [1, 2, 3, 4]}\n", "-3 is not a point id"),
        ("text-vector", "{\"id\": 3, \"vector\": \"1,2,3,4\"}\n", "neither a list of numbers nor an object"),
        ("text-number", "{\"id\": 3, \"vector\": [1, \"2\", 3, 4]}\n", "holds text at dimension 1"),
        ("null-number", "{\"id\": 3, \"vector\": [1, 2, null, 4]}\n", "holds null at dimension 2"),
        ("nan", "{\"id\": 3, \"vector\": [1, NaN, 3, 4]}\n", "not valid JSON at column"),
        ("infinity", "{\"id\": 3, \"vector\": [1, Infinity, 3, 4]}\n", "not valid JSON at column"),
        ("too-large", "{\"id\": 3, \"vector\": [1, 1e39, 3, 4]}\n", "at dimension 1, beyond a 32-bit float"),
        ("out-of-range", "{\"id\": 3, \"vector\": [1, 1e999, 3, 4]}\n", "number out of range"),
        (
            "payload",
            "{\"id\": 3, \"vector\": [1, 2, 3, 4], \"payload\": 7}\n",
            "the `payload` is not an object but a number",
        ),
        ("unknown-key", "{\"id\": 3, \"vektor\": [1, 2, 3, 4]}\n", "unknown field \"vektor\""),
        (
            "half-sparse",
            "{\"id\": 3, \"vector\": {\"w\": {\"indices\": [1]}}}\n",
            "needs `indices` and `values`",
        ),
    ];
    let mut cases: Vec<Case<'static>> = Vec::new();
    for (name, line, fragment) in lines {
        let good = "{\"id\": 1, \"vector\": [1, 2, 3, 4]}\n{\"id\": 2, \"vector\": [4, 3, 2, 1]}\n";
        let path = file(&format!("{name}.jsonl"), format!("{good}{line}").as_bytes());
        cases.push(plain(format!("jsonl {name}"), import(&path), fragment).also("line: 3)"));
    }

    let whole = parquet(directory);
    for kept in [0, 3, 4, 5, 8, 100, whole.len() / 2, whole.len() - 9, whole.len() - 4, whole.len() - 1] {
        let path = file(&format!("cut-{kept}.parquet"), &whole[..kept]);
        let fragment = if kept < 4 { "is not a Parquet file" } else { "it seems to be truncated" };
        cases.push(plain(format!("parquet cut to {kept} bytes"), import(&path), fragment));
    }
    // A hole in the middle of a file that still has both of its ends.
    let holed = [&whole[..whole.len() / 4], &whole[whole.len() / 2..]].concat();
    cases.push(plain("parquet with a hole", import(&file("holed.parquet", &holed)), "holed.parquet"));
    let ends = import(&file("ends.parquet", b"PAR1PAR1"));
    cases.push(plain("parquet of two ends", ends, "the Parquet file cannot be read"));
    let text = import(&file("text.parquet", b"{\"id\": 1, \"vector\": [1, 2, 3, 4]}\n"));
    cases.push(plain("JSONL named .parquet", text, "text.parquet is not a Parquet file"));
    let binary = import(&file("binary.jsonl", &whole));
    cases.push(plain("Parquet named .jsonl", binary, "line: 1"));
    let unknown = import(&file("points.dat", b"1,2,3"));
    cases.push(plain("neither by name nor bytes", unknown, "is neither JSONL nor Parquet"));
    for name in ["none.jsonl", "none.parquet", "none"] {
        cases.push(plain(format!("missing file {name}"), import(&directory.join(name)), "there is no file"));
    }
    for name in ["directory.jsonl", "directory.parquet", "directory"] {
        let path = directory.join(name);
        std::fs::create_dir(&path).unwrap();
        cases.push(plain(format!("a directory named {name}"), import(&path), "is a directory; name a file"));
    }
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_input_is_refused_before_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let tier = open(directory.path()).await;
    let (docs, nope) = (collection("docs"), collection("nope"));
    let cases: Vec<Case<'_>> = [
        creates(&tier),
        upserts(&tier, &docs),
        other_writes(&tier, &docs),
        reads(&tier, &docs),
        unknown_collection(&tier, &nope),
        texts(),
        filters_as_json(),
        configs(directory.path()),
        imports(directory.path()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let count = cases.len();
    assert!(count >= FEWEST_CASES, "{count} cases");

    let end = tier.log_end();
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.name;
        match case.call.await {
            Ok(value) => wrong.push(format!("{name}: accepted: {value}")),
            Err(error) => {
                let text = error.to_string();
                if error.kind() != case.kind {
                    wrong.push(format!("{name}: kind {}, not {}: {text}", error.kind(), case.kind));
                }
                for fragment in case.fragments.iter().filter(|fragment| !text.contains(*fragment)) {
                    wrong.push(format!("{name}: does not say {fragment:?}: {text}"));
                }
                if error.effect() != Effect::None {
                    wrong.push(format!("{name}: the effect is unknown: {text}"));
                }
            }
        }
        if tier.log_end() != end {
            wrong.push(format!("{name}: the log went from {end} to {}", tier.log_end()));
            break;
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));

    // The tier is none the worse for it.
    assert_eq!(tier.count(&docs, None).await.unwrap().value, 2);
    assert_eq!(tier.collections(), [spec()]);
    let written = tier.upsert(&docs, vec![good(3)]).await.unwrap();
    assert_eq!(written.lsn, Lsn(end.0 + 1));
    assert_eq!(tier.count(&docs, None).await.unwrap().value, 3);
    tier.close().await.unwrap();
}
