//! Filters for the wire.

use mainstay_core::{Condition, FieldTest, Filter, Match, PayloadPath, PointId, Range, Scalar};
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{self as proto, RepeatedIntegers, RepeatedStrings};

use super::convert::id_to_proto;
use crate::payload::MIXED;

/// A filter that Qdrant evaluates as Mainstay does ([`Evaluation`](crate::engine::Evaluation)).
pub fn to_proto(filter: &Filter) -> proto::Filter {
    let clause = |conditions: &[Condition]| conditions.iter().map(condition).collect();
    proto::Filter {
        must: clause(&filter.must),
        should: clause(&filter.should),
        must_not: clause(&filter.must_not),
        min_should: None,
    }
}

/// Points with a value at an indexed path that is not of the index's type.
pub fn mixed_at(path: &PayloadPath) -> proto::Filter {
    let at = FieldTest::Match(Match::Value(Scalar::Str(path.to_string())));
    let condition = of(field_condition(MIXED.to_owned(), &at));
    proto::Filter { must: vec![condition], ..proto::Filter::default() }
}

fn of(condition: ConditionOneOf) -> proto::Condition {
    proto::Condition { condition_one_of: Some(condition) }
}

fn field(key: String) -> proto::FieldCondition {
    proto::FieldCondition { key, ..proto::FieldCondition::default() }
}

fn condition(condition: &Condition) -> proto::Condition {
    of(match condition {
        Condition::Field { path, test } => field_condition(path.to_string(), test),
        Condition::IsEmpty(path) => {
            ConditionOneOf::IsEmpty(proto::IsEmptyCondition { key: path.to_string() })
        }
        Condition::IsNull(path) => ConditionOneOf::IsNull(proto::IsNullCondition { key: path.to_string() }),
        Condition::HasId(ids) => ConditionOneOf::HasId(proto::HasIdCondition {
            has_id: ids.iter().map(|id: &PointId| id_to_proto(*id)).collect(),
        }),
        Condition::Filter(filter) => ConditionOneOf::Filter(to_proto(filter)),
    })
}

fn field_condition(key: String, test: &FieldTest) -> ConditionOneOf {
    let matched = |value: MatchValue| {
        let matched = proto::Match { match_value: Some(value) };
        ConditionOneOf::Field(proto::FieldCondition { r#match: Some(matched), ..field(key.clone()) })
    };
    match test {
        FieldTest::Match(Match::Value(Scalar::Bool(value))) => matched(MatchValue::Boolean(*value)),
        FieldTest::Match(Match::Value(Scalar::Int(value))) => matched(MatchValue::Integer(*value)),
        FieldTest::Match(Match::Value(Scalar::Str(value))) => matched(MatchValue::Keyword(value.clone())),
        FieldTest::Match(Match::Any(list)) => {
            // A list of both kinds is either kind.
            let (strings, integers) = split(list);
            let strings_of = |strings| matched(MatchValue::Keywords(RepeatedStrings { strings }));
            let integers_of = |integers| matched(MatchValue::Integers(RepeatedIntegers { integers }));
            match (strings.is_empty(), integers.is_empty()) {
                (_, true) => strings_of(strings),
                (true, false) => integers_of(integers),
                (false, false) => ConditionOneOf::Filter(proto::Filter {
                    should: vec![of(strings_of(strings)), of(integers_of(integers))],
                    ..proto::Filter::default()
                }),
            }
        }
        FieldTest::Match(Match::Except(list)) => {
            let (strings, integers) = split(list);
            if integers.is_empty() {
                matched(MatchValue::ExceptKeywords(RepeatedStrings { strings }))
            } else {
                matched(MatchValue::ExceptIntegers(RepeatedIntegers { integers }))
            }
        }
        FieldTest::Range(Range { gt, gte, lt, lte }) => {
            let range = proto::Range { gt: *gt, gte: *gte, lt: *lt, lte: *lte };
            ConditionOneOf::Field(proto::FieldCondition { range: Some(range), ..field(key) })
        }
        FieldTest::Datetime(Range { gt, gte, lt, lte }) => {
            let moment = |micros: &Option<i64>| {
                micros.map(|micros| prost_types::Timestamp {
                    seconds: micros.div_euclid(1_000_000),
                    // Below a thousand million.
                    nanos: (micros.rem_euclid(1_000_000) * 1_000) as i32,
                })
            };
            let range =
                proto::DatetimeRange { gt: moment(gt), gte: moment(gte), lt: moment(lt), lte: moment(lte) };
            ConditionOneOf::Field(proto::FieldCondition { datetime_range: Some(range), ..field(key) })
        }
    }
}

fn split(list: &[Scalar]) -> (Vec<String>, Vec<i64>) {
    let strings = list.iter().filter_map(|v| if let Scalar::Str(v) = v { Some(v.clone()) } else { None });
    let integers = list.iter().filter_map(|v| if let Scalar::Int(v) = v { Some(*v) } else { None });
    (strings.collect(), integers.collect())
}
