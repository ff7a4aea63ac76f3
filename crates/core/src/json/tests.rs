use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::filter::Condition;
use crate::name::VectorName;
use crate::point::{Payload, Point, SparseVector, Vector};

#[test]
fn an_id_is_one_thing_wherever_it_stands() {
    for value in [
        json!(0),
        json!(u64::MAX),
        json!("00000000-0000-0000-0000-000000000007"),
        json!("00000000000000000000000000000007"),
        json!("7"),
        json!("007"),
        json!(-1),
        json!(1.0),
        json!(""),
        json!("seven"),
        json!(null),
        json!(true),
        json!([7]),
        json!({"uuid": 7}),
    ] {
        let alone = id_from_json(&value).map_err(|error| error.message().to_owned());
        let of_point = point_from_json(&json!({ "id": value }));
        assert_eq!(
            of_point.map(|point| point.id).map_err(|error| error.message().to_owned()),
            alone,
            "{value}"
        );
        let of_filter = filter_from_json(&json!({ "must": [{ "has_id": [value] }] }));
        let of_filter =
            of_filter.map(|mut filter| filter.must.pop()).map_err(|error| error.message().to_owned());
        match alone {
            Ok(id) => assert_eq!(of_filter, Ok(Some(Condition::HasId([id].into()))), "{value}"),
            Err(why) => assert_eq!(of_filter, Err(format!("filter.must[0].has_id[0]: {why}")), "{value}"),
        }
    }
}

fn an_id() -> impl Strategy<Value = PointId> {
    prop_oneof![
        any::<u64>().prop_map(PointId::Num),
        any::<u128>().prop_map(|bits| PointId::Uuid(Uuid::from_u128(bits)))
    ]
}

/// Every finite float: subnormal ones and both zeros too.
fn floats() -> impl Strategy<Value = Vec<f32>> {
    let bits = prop_oneof![any::<u32>(), Just(0x8000_0000), 0_u32..0x80_0000];
    prop::collection::vec(bits.prop_map(f32::from_bits).prop_filter("finite", |f| f.is_finite()), 0..8)
}

fn a_vector() -> impl Strategy<Value = Vector> {
    let sparse = prop::collection::btree_map(any::<u32>(), Just(()), 0..8).prop_flat_map(|indices| {
        let indices: Vec<u32> = indices.into_keys().collect();
        let values =
            prop::collection::vec(floats().prop_map(|f| f.first().copied().unwrap_or(-0.0)), indices.len());
        values.prop_map(move |values| Vector::Sparse(SparseVector { indices: indices.clone(), values }))
    });
    prop_oneof![floats().prop_map(Vector::Dense), sparse]
}

fn a_value() -> impl Strategy<Value = Value> {
    let double = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |f| f.is_finite());
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        double.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn a_point() -> impl Strategy<Value = Point> {
    let name = "[A-Za-z0-9_.-]{0,6}".prop_map(|name| VectorName::new(&name).unwrap());
    let vectors = prop::collection::btree_map(name, a_vector(), 0..3);
    let payload = prop::collection::btree_map(any::<String>(), a_value(), 0..4);
    let text = prop::option::of(any::<String>());
    (an_id(), vectors, payload, text).prop_map(|(id, vectors, payload, text)| Point {
        id,
        vectors,
        payload: payload.into_iter().collect::<Payload>(),
        text,
    })
}

proptest! {
    #[test]
    fn a_point_survives_as_json_text_to_the_bit(point in a_point()) {
        let text = point_to_json(&point).to_string();
        prop_assert!(!text.contains('\n'), "it must fit on a line");
        let back = point_from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        // Zeros of either sign are equal; what they are shown as is not.
        prop_assert_eq!(format!("{:?}", &back), format!("{:?}", &point));
        prop_assert_eq!(back, point);
    }
}
