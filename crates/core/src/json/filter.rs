//! Filters as JSON, in Qdrant's form: people write them by hand, so every refusal names the place of the mistake.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::filter::{Condition, FieldTest, Filter, MAX_FILTER_DEPTH, Match, Range, Scalar, parse_datetime};
use crate::path::PayloadPath;

use super::{id_from_json, shown};

/// Reads a filter in Qdrant's form and checks its limits.
///
/// ```
/// use mainstay_core::json::filter_from_json;
/// let filter = filter_from_json(&serde_json::json!({
///     "must": [{"key": "lang", "match": {"value": "rust"}}, {"key": "stars", "range": {"gte": 10}}],
///     "must_not": [{"has_id": [7]}],
/// }))?;
/// assert_eq!(filter.must.len(), 2);
/// # Ok::<(), mainstay_core::Error>(())
/// ```
///
/// # Errors
/// `Invalid` with the place of the mistake, such as `filter.must[1].range`.
pub fn filter_from_json(value: &Value) -> Result<Filter> {
    let filter = read_filter(value, "filter", 1)?;
    filter.check()?;
    Ok(filter)
}

fn fail<T>(at: &str, what: impl AsRef<str>) -> Result<T> {
    Err(Error::invalid(format!("{at}: {}", what.as_ref())))
}

fn object<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let Value::Object(map) = value else {
        return fail(at, format!("an object was expected, not {}", shown(value)));
    };
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => fail(at, format!("unknown key `{key}`; known are {}", known.join(", "))),
        None => Ok(map),
    }
}

fn read_filter(value: &Value, at: &str, depth: usize) -> Result<Filter> {
    if depth > MAX_FILTER_DEPTH {
        return fail(at, format!("nested deeper than {MAX_FILTER_DEPTH} levels"));
    }
    let map = object(value, at, &["must", "should", "must_not"])?;
    let clause = |name: &str| -> Result<Vec<Condition>> {
        let at = format!("{at}.{name}");
        match map.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(conditions)) => {
                let indexed = conditions.iter().enumerate();
                indexed
                    .map(|(i, condition)| read_condition(condition, &format!("{at}[{i}]"), depth))
                    .collect()
            }
            Some(condition) => Ok(vec![read_condition(condition, &at, depth)?]),
        }
    };
    Ok(Filter { must: clause("must")?, should: clause("should")?, must_not: clause("must_not")? })
}

fn read_condition(value: &Value, at: &str, depth: usize) -> Result<Condition> {
    const KNOWN: [&str; 9] =
        ["key", "match", "range", "is_empty", "is_null", "has_id", "must", "should", "must_not"];
    let map = object(value, at, &KNOWN)?;
    if map.contains_key("key") {
        return read_field(value, at);
    }
    if ["must", "should", "must_not"].iter().any(|clause| map.contains_key(*clause)) {
        return Ok(Condition::Filter(Box::new(read_filter(value, at, depth + 1)?)));
    }
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some((name, inner)), None) => {
            let at = format!("{at}.{name}");
            match name.as_str() {
                "is_empty" => Ok(Condition::IsEmpty(read_key(inner, &at)?)),
                "is_null" => Ok(Condition::IsNull(read_key(inner, &at)?)),
                "has_id" => read_ids(inner, &at),
                _ => fail(&at, "a `key` is missing beside it"),
            }
        }
        _ => fail(
            at,
            "one condition was expected: key with match or range, is_empty, is_null, has_id, or a filter",
        ),
    }
}

fn read_key(value: &Value, at: &str) -> Result<PayloadPath> {
    let map = object(value, at, &["key"])?;
    read_path(map.get("key"), &format!("{at}.key"))
}

fn read_path(value: Option<&Value>, at: &str) -> Result<PayloadPath> {
    let Some(Value::String(text)) = value else {
        return fail(at, "a payload path, such as \"a.b\", was expected");
    };
    text.parse().or_else(|error: Error| fail(at, error.message()))
}

fn read_ids(value: &Value, at: &str) -> Result<Condition> {
    let Value::Array(ids) = value else { return fail(at, "a list of ids was expected") };
    let ids = ids
        .iter()
        .enumerate()
        .map(|(i, id)| id_from_json(id).or_else(|e| fail(&format!("{at}[{i}]"), e.message())));
    Ok(Condition::HasId(ids.collect::<Result<_>>()?))
}

fn read_field(value: &Value, at: &str) -> Result<Condition> {
    let map = object(value, at, &["key", "match", "range"])?;
    let path = read_path(map.get("key"), &format!("{at}.key"))?;
    let test = match (map.get("match"), map.get("range")) {
        (Some(inner), None) => FieldTest::Match(read_match(inner, &format!("{at}.match"))?),
        (None, Some(inner)) => read_range(inner, &format!("{at}.range"))?,
        _ => return fail(at, "either `match` or `range` was expected beside `key`"),
    };
    Ok(Condition::Field { path, test })
}

fn read_match(value: &Value, at: &str) -> Result<Match> {
    let map = object(value, at, &["value", "any", "except"])?;
    let mut entries = map.iter();
    let (Some((name, inner)), None) = (entries.next(), entries.next()) else {
        return fail(at, "exactly one of value, any, except was expected");
    };
    let at = format!("{at}.{name}");
    if name == "value" {
        return Ok(Match::Value(read_scalar(inner, &at)?));
    }
    let Value::Array(list) = inner else { return fail(&at, "a list was expected") };
    let scalars = list.iter().enumerate().map(|(i, scalar)| read_scalar(scalar, &format!("{at}[{i}]")));
    let scalars = scalars.collect::<Result<_>>()?;
    Ok(if name == "any" { Match::Any(scalars) } else { Match::Except(scalars) })
}

fn read_scalar(value: &Value, at: &str) -> Result<Scalar> {
    match value {
        Value::Bool(b) => Ok(Scalar::Bool(*b)),
        Value::String(text) => Ok(Scalar::Str(text.clone())),
        Value::Number(n) => match n.as_i64() {
            Some(n) => Ok(Scalar::Int(n)),
            None => fail(at, format!("{n} is not a 64-bit integer; compare fractions with `range`")),
        },
        other => fail(at, format!("a string, an integer or a bool was expected, not {}", shown(other))),
    }
}

/// Bounds are numbers, or datetimes as strings; Qdrant tells them apart in the same way.
fn read_range(value: &Value, at: &str) -> Result<FieldTest> {
    let map = object(value, at, &["gt", "gte", "lt", "lte"])?;
    let bounds = || map.iter().filter(|(_, bound)| !bound.is_null());
    if bounds().next().is_none() {
        return fail(at, "at least one of gt, gte, lt, lte was expected");
    }
    if bounds().all(|(_, bound)| bound.is_string()) {
        let moment = |name: &str| match map.get(name).and_then(Value::as_str) {
            None => Ok(None),
            Some(text) => match parse_datetime(text) {
                Some(moment) => Ok(Some(moment)),
                None => fail(&format!("{at}.{name}"), format!("{text:?} is not an RFC 3339 datetime")),
            },
        };
        let range = Range { gt: moment("gt")?, gte: moment("gte")?, lt: moment("lt")?, lte: moment("lte")? };
        return Ok(FieldTest::Datetime(range));
    }
    let number = |name: &str| match map.get(name).filter(|bound| !bound.is_null()) {
        None => Ok(None),
        Some(bound) => match bound.as_f64() {
            Some(number) => Ok(Some(number)),
            None => fail(&format!("{at}.{name}"), format!("a number was expected, not {}", shown(bound))),
        },
    };
    Ok(FieldTest::Range(Range {
        gt: number("gt")?,
        gte: number("gte")?,
        lt: number("lt")?,
        lte: number("lte")?,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_condition_is_read() {
        let filter = filter_from_json(&json!({
            "must": [
                {"key": "a.b", "match": {"value": 1}},
                {"key": "c", "match": {"any": ["x", "y"]}},
                {"key": "d", "match": {"except": [1, 2]}},
                {"key": "n", "range": {"gt": 1, "lte": 2.5}},
                {"key": "t", "range": {"gte": "2024-01-01"}},
                {"is_empty": {"key": "e"}},
                {"is_null": {"key": "f"}},
                {"has_id": [1, "00000000-0000-0000-0000-000000000007"]},
                {"should": [{"key": "g", "match": {"value": true}}]}
            ],
            "must_not": {"key": "h", "match": {"value": "z"}}
        }));
        let filter = filter.unwrap();
        assert_eq!((filter.must.len(), filter.must_not.len()), (9, 1));
        assert!(matches!(filter.must[4], Condition::Field { test: FieldTest::Datetime(_), .. }));
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        for (value, words) in [
            (json!([]), "filter: an object"),
            (json!({"musst": []}), "unknown key `musst`"),
            (json!({"must": [{"key": "a"}]}), "filter.must[0]: either"),
            (json!({"must": [{"key": "a", "match": {"value": 1.5}}]}), "filter.must[0].match.value: 1.5"),
            (json!({"must": [{"key": "a", "match": {"value": 1, "any": []}}]}), "exactly one of"),
            (json!({"must": [{"key": "a..b", "match": {"value": 1}}]}), "filter.must[0].key"),
            (json!({"should": [{}, {}]}), "filter.should[0]: one condition"),
            (json!({"must": [{"key": "a", "range": {}}]}), "at least one of gt"),
            (json!({"must": [{"key": "a", "range": {"gt": "soon"}}]}), "\"soon\" is not"),
            (json!({"must": [{"key": "a", "range": {"gt": 1, "lt": "x"}}]}), "range.lt: a number"),
            (json!({"must": [{"has_id": ["7"]}]}), "number in quotes"),
            (json!({"must": [{"has_id": [-1]}]}), "filter.must[0].has_id[0]"),
            (json!({"must": [{"match": {"value": 1}}]}), "a `key` is missing"),
            (json!({"must": [{"key": "a", "match": {"any": [1, "x"]}}]}), "mix strings and integers"),
        ] {
            let error = filter_from_json(&value).unwrap_err().to_string();
            assert!(error.contains(words), "{value}: {error}");
        }
    }

    #[test]
    fn a_bottomless_value_in_a_wrong_place_is_refused() {
        let mut value = Value::Null;
        for _ in 0..10_000 {
            value = Value::Array(vec![value]);
        }
        let mut filter = Value::Object(Map::from_iter([("must".to_owned(), Value::Array(vec![value]))]));
        let error = filter_from_json(&filter).unwrap_err().to_string();
        assert!(error.contains("filter.must[0]: an object was expected, not a list"), "{error}");
        // Freed by hand, because dropping what is nested so deep would overflow the stack.
        let mut value = filter["must"].take();
        while let Some(inner) = value.as_array_mut().and_then(Vec::pop) {
            value = inner;
        }
    }

    #[test]
    fn a_bottomless_filter_is_refused() {
        let mut value = json!({"must": []});
        for _ in 0..100 {
            value = json!({"must": [value]});
        }
        assert!(filter_from_json(&value).unwrap_err().to_string().contains("nested deeper"));
    }
}
