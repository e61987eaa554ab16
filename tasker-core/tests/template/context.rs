//! Contexts against a schema: a place for every problem, and never the value itself.

use serde_json::{Value, json};
use tasker_core::{Json, StepTemplate, TaskTemplate};

fn order(schema: Value) -> TaskTemplate {
    TaskTemplate::builder("o").schema(schema).step(StepTemplate::new("a")).build().unwrap()
}

fn problems(schema: &Value, context: &Value) -> Vec<String> {
    let checked = order(schema.clone()).check_context(&Json::from(context.clone()));
    checked.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn every_problem_has_its_place_and_reads_well() {
    let of = |rule: Value| json!({ "properties": { "x": rule } });
    let digits = json!([1, 2, 3]);
    for (schema, value, expected) in [
        (of(json!({ "type": "string" })), json!(7_771), "/x: must be a text"),
        (
            of(json!({ "type": ["integer", "null"] })),
            json!("secret"),
            "/x: must be null or a whole number",
        ),
        (of(json!({ "minimum": 1 })), json!(-7_771), "/x: must be at least 1"),
        (of(json!({ "maximum": 1.5 })), json!(7_771), "/x: must be at most 1.5"),
        (of(json!({ "exclusiveMinimum": 0 })), json!(0), "/x: must be more than 0"),
        (of(json!({ "exclusiveMaximum": 9 })), json!(7_771), "/x: must be less than 9"),
        (of(json!({ "multipleOf": 2 })), json!(7_771), "/x: must be a multiple of 2"),
        (of(json!({ "minLength": 1 })), json!(""), "/x: must not be empty"),
        (of(json!({ "minLength": 9 })), json!("secret"), "/x: must have at least 9 characters"),
        (of(json!({ "maxLength": 1 })), json!("secret"), "/x: must have at most 1 character"),
        (of(json!({ "minItems": 4 })), digits.clone(), "/x: must have at least 4 items"),
        (of(json!({ "maxItems": 1 })), digits.clone(), "/x: must have at most 1 item"),
        (
            of(json!({ "uniqueItems": true })),
            json!(["secret", "secret"]),
            "/x: must not have the same item twice",
        ),
        (
            of(json!({ "contains": { "const": 9 } })),
            digits,
            "/x: does not have the required kind or number of items",
        ),
        (of(json!({ "pattern": "^a$" })), json!("secret"), "/x: does not have the required form"),
        (of(json!({ "format": "email" })), json!("secret"), "/x: must be an e-mail address"),
        (of(json!({ "format": "uuid" })), json!("secret"), "/x: must be a valid uuid"),
        (
            of(json!({ "format": "date-time" })),
            json!("secret"),
            "/x: must be a time such as 2030-01-31T12:00:00Z",
        ),
        (of(json!({ "enum": ["visa", 1] })), json!("secret"), "/x: must be one of \"visa\", 1"),
        (of(json!({ "const": true })), json!("secret"), "/x: must be true"),
        (of(json!({ "not": {} })), json!("secret"), "/x: has a form that is not allowed"),
        (
            of(json!({ "anyOf": [{ "type": "null" }, { "type": "array" }] })),
            json!("secret"),
            "/x: has none of the allowed forms",
        ),
        (
            of(json!({ "oneOf": [{}, {}] })),
            json!("secret"),
            "/x: must have exactly one of the allowed forms",
        ),
        (of(json!(false)), json!("secret"), "/x: is not expected here"),
        (json!({ "required": ["x", "a/b"] }), json!("secret"), "/a~1b: is required"),
        (
            json!({ "properties": { "y": {} }, "additionalProperties": false }),
            json!("secret"),
            "/x: is not expected here",
        ),
        (json!({ "additionalProperties": false }), json!("secret"), "must not have any field"),
        (json!({ "unevaluatedProperties": false }), json!("secret"), "/x: is not expected here"),
        (
            json!({ "propertyNames": { "maxLength": 0 } }),
            json!("secret"),
            "has a field whose name is not allowed",
        ),
        (json!({ "minProperties": 2 }), json!("secret"), "must have at least 2 fields"),
        (json!({ "maxProperties": 0 }), json!("secret"), "must have at most 0 fields"),
    ] {
        let told = problems(&schema, &json!({ "x": value }));
        assert_eq!(told, [expected], "{schema}");
        assert!(!told[0].contains("secret") && !told[0].contains("7771"), "{told:?}");
    }
}

#[test]
fn all_problems_are_told() {
    let schema = json!({
        "required": ["items", "email"],
        "properties": { "items": { "items": { "properties": { "quantity": { "minimum": 1 } } } } },
    });
    let context = json!({ "items": [{ "quantity": 0 }, { "quantity": 1 }, { "quantity": -1 }] });
    let mut told = problems(&schema, &context);
    told.sort();
    let expected = [
        "/email: is required",
        "/items/0/quantity: must be at least 1",
        "/items/2/quantity: must be at least 1",
    ];
    assert_eq!(told, expected);
    assert!(problems(&schema, &json!({ "items": [], "email": "" })).is_empty());
    let many = json!({ "items": vec![json!({ "quantity": 0 }); 1000] });
    assert_eq!(problems(&schema, &many).len(), 100);
}

#[test]
fn a_nul_is_refused_where_it_stands_with_a_schema_and_without() {
    let plain = TaskTemplate::builder("o").step(StepTemplate::new("a")).build().unwrap();
    let context = json!({ "a/b": ["x", "y\0"], "c\0": 1, "fine": "\\u0000" });
    for order in [plain, order(json!({}))] {
        let told = order.check_context(&Json::from(context.clone())).unwrap_err();
        let places: Vec<_> = told.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(places, ["/a~1b/1", ""]);
        assert_eq!(told[0].message, "must not have a NUL character");
        assert!(order.check_context(&Json::from(json!({ "fine": "\\u0000" }))).is_ok());
    }
}

#[test]
fn what_cannot_be_parsed_is_refused_without_a_panic() {
    let order = order(json!({}));
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for text in [deep.as_str(), "{", "1e999"] {
        let told = order.check_context(&Json::from_stored(text)).unwrap_err();
        assert_eq!(told[0].to_string(), "is not a JSON document that can be read");
    }
}

#[test]
fn a_reference_to_the_id_of_the_schema_itself_is_followed() {
    let schema = json!({
        "$id": "https://example.com/order",
        "$defs": { "name": { "type": "string" } },
        "properties": { "x": { "$ref": "https://example.com/order#/$defs/name" } },
    });
    assert_eq!(problems(&schema, &json!({ "x": 1 })), ["/x: must be a text"]);
}

#[test]
fn a_reference_within_the_schema_is_followed_and_no_other() {
    let schema = json!({
        "$defs": { "name": { "type": "string" } },
        "properties": { "x": { "$ref": "#/$defs/name" } },
    });
    assert_eq!(problems(&schema, &json!({ "x": 1 })), ["/x: must be a text"]);
    for target in ["https://example.com/s", "file:///etc/passwd", "other.json", "#/$defs/none"] {
        let schema = json!({ "properties": { "x": { "$ref": target } } });
        let builder = TaskTemplate::builder("o").schema(schema).step(StepTemplate::new("a"));
        let told = builder.build().unwrap_err();
        assert!(told.faults()[0].pointer.starts_with("/schema"), "{target}: {told}");
    }
}

#[test]
fn a_long_key_is_not_repeated_for_all_that_is_below_it() {
    let context = json!({ "x".repeat(500_000): vec!["\0"; 100_000] });
    let told = order(json!({})).check_context(&Json::from(context)).unwrap_err();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].to_string(), "has a field with too long a name");
}

#[test]
fn a_deep_context_and_a_recursive_schema_do_not_take_the_stack() {
    // As many references as are allowed between one level of the document and the next.
    let mut parts = serde_json::Map::new();
    for at in 0..30 {
        parts.insert(format!("d{at}"), json!({ "$ref": format!("#/$defs/d{}", at + 1) }));
    }
    parts.insert("d30".into(), json!({ "items": { "$ref": "#/$defs/d0" } }));
    let schema = json!({ "$ref": "#/$defs/d0", "$defs": parts });
    let deep = |levels| Json::parse(format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let order = order(schema);
    assert!(order.check_context(&deep(64).unwrap()).is_ok());
    let told = order.check_context(&deep(65).unwrap()).unwrap_err();
    assert_eq!(told[0].message, "has more than 64 lists and objects within each other");
}
