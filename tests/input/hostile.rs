//! Texts and values that have broken other programs, and arguments that combine them by a tool's own schema.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Returns shell commands. A shell that runs one of them creates a file in `marks`.
pub fn commands(marks: &str) -> Vec<String> {
    let touch = format!("touch {marks}/ran");
    [
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("; {touch} ;"),
        format!("\" ; {touch} ; \""),
        format!("' ; {touch} ; '"),
        format!("| {touch}"),
        format!("&& {touch}"),
        format!("x\n{touch}\n"),
        format!("--upload-pack={touch}"),
        format!("--exec={touch}"),
        format!("--output={marks}/ran"),
        format!("-O{marks}/ran"),
        format!("ext::sh -c {touch}"),
    ]
    .to_vec()
}

pub fn texts() -> Vec<String> {
    let long = [200, 201, 8_193, 70_000].map(|length| "é".repeat(length / 2) + "x");
    let plain = [
        "",
        " ",
        "w-1",
        "w-2",
        "w-999999999999999999999999999999",
        "w--1",
        "w-",
        "W-1",
        "w-1-",
        "main",
        "HEAD",
        "@",
        "@{-1}",
        "..",
        ".",
        "/",
        "//",
        "~",
        "../..",
        "../outside-it",
        "/etc",
        "/proc/self/environ",
        "/dev/null",
        "link/inside",
        "a..b",
        "a@{b",
        "x.lock",
        "x.",
        "x ",
        " x",
        "a b",
        "refs/heads/x",
        "-x",
        "-f",
        "--help",
        "--upload-pack=x",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\",
        "a//b",
        "/a",
        "a/",
        ".a",
        "a/.b",
        ":/first",
        "HEAD^{tree}",
        "main:README",
        "0",
        "NaN",
        "null",
        "true",
        "1e999",
        "codex",
        "claudecode",
        "gpt-5",
        "opencode/x",
        "\0",
        "a\0b",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{1b}]0;title\u{7}",
        "a\nb",
        "a\r\nb",
        "a\tb",
        "\u{8}\u{8}",
        "\u{202e}txt.exe",
        "\u{2066}x",
        "\u{200b}",
        "w\u{200b}-1",
        "\u{feff}w-1",
        "ｗ-1",
        "ω-1",
        "е",
        "é",
        "e\u{301}",
        "😀",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{85}",
        "\u{2028}",
        "{model}",
        "{prompt}",
        "%s%n",
        "${HOME}",
        "C:\\x",
        "con",
        "file:///etc/passwd",
        "ssh://x/y",
        "BLOCKED:",
    ];
    plain.into_iter().map(str::to_owned).chain(long).collect()
}

pub fn text(marks: &str) -> BoxedStrategy<String> {
    let known: Vec<String> = texts().into_iter().chain(commands(marks)).collect();
    prop_oneof![
        6 => prop::sample::select(known.clone()),
        2 => (prop::sample::select(known.clone()), prop::sample::select(known)).prop_map(|(a, b)| format!("{a}{b}")),
        2 => any::<String>(),
        2 => "[a-z]{1,12}",
    ]
    .boxed()
}

fn number() -> BoxedStrategy<Value> {
    let edges = vec![
        json!(0),
        json!(-1),
        json!(1),
        json!(2),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.5),
        json!(-0.0),
        json!(4_294_967_296u64),
        json!(10_081),
        json!(101),
    ];
    prop_oneof![3 => prop::sample::select(edges), 1 => (1u64..30).prop_map(|number| json!(number))].boxed()
}

/// Generates any JSON value of small depth.
fn anything(marks: &str) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text(marks).prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
    .boxed()
}

/// Generates mostly hostile values of the type that the field's schema requires, sometimes any value.
pub fn value(name: &str, schema: &Value, marks: &str) -> BoxedStrategy<Value> {
    let fitting = match schema["type"].as_str() {
        Some("object") => object(schema, marks),
        Some("array") => {
            prop::collection::vec(value(name, &schema["items"], marks), 0..4).prop_map(Value::from).boxed()
        }
        Some("integer" | "number") => number(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        _ => match (&schema["enum"], name) {
            (Value::Array(words), _) => prop::sample::select(words.clone()).boxed(),
            (_, "backend" | "fallback_backends") => {
                prop_oneof![4 => Just(json!("codex")), 1 => text(marks).prop_map(Value::from)].boxed()
            }
            _ => text(marks).prop_map(Value::from).boxed(),
        },
    };
    prop_oneof![14 => fitting, 1 => anything(marks)].boxed()
}

pub fn object(schema: &Value, marks: &str) -> BoxedStrategy<Value> {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields: Vec<_> = properties
        .iter()
        .map(|(name, of)| {
            let often = if required.contains(&json!(name)) { 0.95 } else { 0.25 };
            (Just(name.clone()), prop::option::weighted(often, value(name, of, marks)))
        })
        .collect();
    let others = ["mission_id", "mission_ids", "content", "unknown", "Title", ""];
    let other = prop::option::weighted(0.08, (prop::sample::select(others.to_vec()), anything(marks)));
    (fields, other)
        .prop_map(|(fields, other)| {
            let mut object: Map<String, Value> =
                fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            object.extend(other.map(|(name, value)| (name.to_owned(), value)));
            Value::Object(object)
        })
        .boxed()
}
