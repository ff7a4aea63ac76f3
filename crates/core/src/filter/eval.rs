//! The plain evaluation of a filter: the definition that every store is held to.

use serde_json::Value;

use super::datetime::parse_datetime;
use super::{Condition, FieldTest, Filter, Match, Scalar};
use crate::id::PointId;
use crate::point::Payload;

impl Filter {
    /// Whether the filter accepts a point with this id and payload.
    pub fn accepts(&self, id: PointId, payload: &Payload) -> bool {
        self.must.iter().all(|c| c.holds(id, payload))
            && (self.should.is_empty() || self.should.iter().any(|c| c.holds(id, payload)))
            && !self.must_not.iter().any(|c| c.holds(id, payload))
    }
}

impl Condition {
    /// Whether the condition holds for a point with this id and payload.
    pub fn holds(&self, id: PointId, payload: &Payload) -> bool {
        match self {
            Self::Field { path, test } => path.each(payload).into_iter().any(|value| test.passes(value)),
            Self::IsEmpty(path) => path.values(payload).into_iter().all(is_empty),
            Self::IsNull(path) => path.values(payload).into_iter().any(Value::is_null),
            Self::HasId(ids) => ids.contains(&id),
            Self::Filter(filter) => filter.accepts(id, payload),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

impl FieldTest {
    /// Whether one value passes (an array inside an array is no scalar and passes only `except`).
    pub fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Match(m) => m.passes(value),
            Self::Range(range) => value.as_f64().is_some_and(|number| range.contains(&number)),
            Self::Datetime(range) => {
                value.as_str().and_then(parse_datetime).is_some_and(|moment| range.contains(&moment))
            }
        }
    }
}

impl Match {
    fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Value(wanted) => wanted.equals(value),
            Self::Any(list) => list.iter().any(|wanted| wanted.equals(value)),
            Self::Except(list) => !value.is_null() && !list.iter().any(|listed| listed.equals(value)),
        }
    }
}

impl Scalar {
    /// Whether a payload value is this one.
    pub fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Int(a), Value::Number(b)) => b.as_i64() == Some(*a),
            (Self::Str(a), Value::String(b)) => a == b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Range;

    fn holds(condition: &Condition, payload: Value) -> bool {
        let Value::Object(payload) = payload else { panic!("an object") };
        condition.holds(PointId::Num(1), &payload)
    }

    fn field(path: &str, test: FieldTest) -> Condition {
        Condition::Field { path: path.parse().unwrap(), test }
    }

    #[test]
    fn a_match_looks_into_an_array_one_level_deep() {
        let red = field("c", FieldTest::Match(Match::Value("red".into())));
        assert!(holds(&red, serde_json::json!({"c": "red"})));
        assert!(holds(&red, serde_json::json!({"c": ["blue", "red"]})));
        assert!(!holds(&red, serde_json::json!({"c": [["red"]]})));
        assert!(!holds(&red, serde_json::json!({})));
    }

    #[test]
    fn except_wants_a_value_that_is_not_listed() {
        let except = field("c", FieldTest::Match(Match::Except(vec!["red".into()])));
        for (payload, expected) in [
            (serde_json::json!({"c": "blue"}), true),
            (serde_json::json!({"c": "red"}), false),
            (serde_json::json!({"c": ["red", "blue"]}), true),
            (serde_json::json!({"c": 5}), true),
            (serde_json::json!({"c": null}), false),
            (serde_json::json!({}), false),
        ] {
            assert_eq!(holds(&except, payload.clone()), expected, "{payload}");
        }
    }

    #[test]
    fn empty_and_null_are_told_apart() {
        let empty = Condition::IsEmpty("c".parse().unwrap());
        let null = Condition::IsNull("c".parse().unwrap());
        for (payload, is_empty, is_null) in [
            (serde_json::json!({}), true, false),
            (serde_json::json!({"c": null}), true, true),
            (serde_json::json!({"c": []}), true, false),
            (serde_json::json!({"c": [null]}), false, false),
            (serde_json::json!({"c": 0}), false, false),
        ] {
            assert_eq!(
                (holds(&empty, payload.clone()), holds(&null, payload.clone())),
                (is_empty, is_null),
                "{payload}"
            );
        }
    }

    #[test]
    fn numbers_compare_by_value_and_match_by_type() {
        let five = field("n", FieldTest::Match(Match::Value(5.into())));
        let range = field("n", FieldTest::Range(Range { gte: Some(5.0), lt: Some(6.0), ..Range::default() }));
        assert!(holds(&five, serde_json::json!({"n": 5})));
        assert!(!holds(&five, serde_json::json!({"n": 5.0})));
        assert!(holds(&range, serde_json::json!({"n": 5})) && holds(&range, serde_json::json!({"n": 5.5})));
        assert!(!holds(&range, serde_json::json!({"n": 6})) && !holds(&range, serde_json::json!({"n": "5"})));
    }

    #[test]
    fn clauses_combine_as_all_any_none() {
        let is = |value: i64| field("n", FieldTest::Match(Match::Value(value.into())));
        let filter = Filter { must: vec![], should: vec![is(1), is(2)], must_not: vec![is(2)] };
        for (n, expected) in [(1, true), (2, false), (3, false)] {
            let Value::Object(payload) = serde_json::json!({ "n": n }) else { unreachable!() };
            assert_eq!(filter.accepts(PointId::Num(1), &payload), expected);
        }
        assert!(Filter::default().accepts(PointId::Num(1), &Payload::new()));
    }
}
