//! Tests of edits: nothing else in a text changes, and removing an entry restores the text.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::document::Format;
use super::entry::{self, Field, NAME};
use super::json::Dialect;
use super::registration::{CALL_SECONDS, Environment, SetupScope};
use super::{codex, gemini, opencode};

const STRICT: Format = Format::Json(Dialect { comments: false, trailing_commas: false });
const LOOSE: Format = Format::Json(Dialect { comments: true, trailing_commas: true });

fn environment() -> Environment {
    Environment {
        home: "/home/u".into(),
        project: "/p".into(),
        command: "/bin/orchestrator-boss".into(),
        arguments: Vec::new(),
        allow_tools: false,
    }
}

fn small() -> Vec<Field> {
    vec![(vec!["command"], entry::FieldRule::Exactly("/x".into())), (vec!["timeout"], entry::FieldRule::AtLeast(7))]
}

fn set(format: Format, text: &str, path: &[&str]) -> String {
    entry::set(format, text, path, &small()).unwrap_or_else(|damage| panic!("{damage} in {text:?}"))
}

#[test]
fn entry_follows_the_format_of_the_file() {
    let toml = "[mcp_servers.orchestrator-boss]\ncommand = \"/x\"\ntimeout = 7\n";
    let lines = "\"orchestrator-boss\": {\n      \"command\": \"/x\",\n      \"timeout\": 7\n    }";
    let whole = format!("{{\n  \"m\": {{\n    {lines}\n  }}\n}}");
    let cases = [
        (LOOSE, "", whole.clone() + "\n"),
        (LOOSE, "{}", whole.clone()),
        (LOOSE, "{}\n", whole.clone() + "\n"),
        (LOOSE, "{\n  \"m\": {}\n}\n", whole.clone() + "\n"),
        (LOOSE, r#"{"a": 1}"#, format!("{{\n  \"a\": 1,\n  \"m\": {{\n    {lines}\n  }}\n}}")),
        (
            LOOSE,
            "{\r\n\t\"m\": {\r\n\t\t// b\r\n\t\t\"b\": 1, // one\r\n\t\t// end\r\n\t},\r\n}\r\n",
            "{\r\n\t\"m\": {\r\n\t\t// b\r\n\t\t\"b\": 1, // one\r\n\t\t\"orchestrator-boss\": {\r\n\t\t\t\"command\": \"/x\",\r\n\
             \t\t\t\"timeout\": 7,\r\n\t\t},\r\n\t\t// end\r\n\t},\r\n}\r\n"
                .into(),
        ),
        (
            LOOSE,
            "{\n  \"m\": {\n    \"b\": 1 // one, two\n    /* end */\n  }\n}",
            format!("{{\n  \"m\": {{\n    \"b\": 1, // one, two\n    {lines}\n    /* end */\n  }}\n}}"),
        ),
        (Format::Toml, "", toml.to_owned()),
        (Format::Toml, "a = 1 # one\n", format!("a = 1 # one\n\n{toml}")),
        (Format::Toml, "a = 1", format!("a = 1\n\n{}", toml.trim_end())),
        (Format::Toml, "a = 1\r\n", format!("a = 1\n\n{toml}").replace('\n', "\r\n")),
        (
            Format::Toml,
            "[mcp_servers.b] # b\ncommand = 'b'\n\n# f\n[f]\nx=1\n",
            format!("[mcp_servers.b] # b\ncommand = 'b'\n\n{toml}\n# f\n[f]\nx=1\n"),
        ),
    ];
    for (format, before, after) in cases {
        let path = if format == Format::Toml { ["mcp_servers", NAME] } else { ["m", NAME] };
        assert_eq!(set(format, before, &path), after, "{before:?}");
    }
}

#[test]
fn other_table_forms_and_line_ends_work() {
    for before in [
        "[mcp_servers]\nb = { command = 'b' }\n",
        "mcp_servers = { b = { command = 'b' } }\n",
        "mcp_servers.b.command = 'b'\n",
        "a = 1\r\nb = 2\n\n\n# end",
        "text = '''\r\nx\n'''\r\n",
    ] {
        let after = set(Format::Toml, before, &["mcp_servers", NAME]);
        let entry = Format::Toml.get(&after, &["mcp_servers", NAME, "timeout"]);
        assert_eq!(entry, Ok(Some(json!(7))), "{after}");
        let removed = Format::Toml.remove(&after, &["mcp_servers", NAME]);
        assert_eq!(removed.as_deref(), Ok(before), "{after}");
    }
}

#[test]
fn removal_keeps_neighbouring_comments() {
    let indented = "[a]\n  [mcp_servers.orchestrator-boss]\n  command = 'x'\n  [b]\n";
    assert_eq!(Format::Toml.remove(indented, &["mcp_servers", NAME]).as_deref(), Ok("[a]\n  [b]\n"));
    let before = "a = 1\n\n# The boss. And:\n[mcp_servers.orchestrator-boss] # ours\ncommand = 'x'\nlist = [\n  1, # one\n] # tail\n\n\
                  [mcp_servers.orchestrator-boss.env]\nX = '1'\n# of f\n[f]\nx = 1\n";
    let after = Format::Toml.remove(before, &["mcp_servers", NAME]);
    assert_eq!(after.as_deref(), Ok("a = 1\n\n# The boss. And:\n\n# of f\n[f]\nx = 1\n"));
}

#[test]
fn list_is_extended_in_place() {
    let wanted = json!(["a", "b", "c"]);
    let cases = [
        (LOOSE, r#"{"l": ["a", "b"]}"#, r#"{"l": ["a", "b", "c"]}"#),
        (LOOSE, r#"{"l": []}"#, r#"{"l": ["a", "b", "c"]}"#),
        (
            LOOSE,
            "{\n  \"l\": [\n    \"a\", // A\n    \"b\"\n  ]\n}",
            "{\n  \"l\": [\n    \"a\", // A\n    \"b\",\n    \"c\"\n  ]\n}",
        ),
        (Format::Toml, "l = [\n  \"a\", # A\n  \"b\",\n]\n", "l = [\n  \"a\", # A\n  \"b\",\n  \"c\",\n]\n"),
        (Format::Toml, "l = ['a'] # list\n", "l = ['a', \"b\", \"c\"] # list\n"),
    ];
    for (format, before, after) in cases {
        let text = format.set(before, &["l"], &wanted);
        assert_eq!(text.as_deref(), Ok(after));
    }
    let removed = LOOSE.remove_element(r#"{"l": ["a", "b", "c"]}"#, &["l"], "b");
    assert_eq!(removed.as_deref(), Ok(r#"{"l": ["a", "c"]}"#));
}

#[test]
fn invalid_text_is_refused_with_its_position() {
    let cases = [
        (STRICT, "{\n  // no comments here\n}", 2, 3),
        (STRICT, "{\"a\": 1,}", 1, 8),
        (LOOSE, "{\n  \"a\" 1\n}", 2, 7),
        (LOOSE, "{\"m\": 1}", 1, 2),
        (LOOSE, "[]", 1, 1),
        (LOOSE, r#"{"m": {}, "m": {}}"#, 1, 1),
        (Format::Toml, "a = 1\nb = = 2\n", 2, 5),
        (Format::Toml, "m = 1\n", 1, 1),
        (Format::Toml, "a = 1\na = 2\n", 2, 1),
    ];
    for (format, text, line, column) in cases {
        let damage = entry::set(format, text, &["m", NAME], &small()).expect_err(text);
        assert_eq!((damage.line, damage.column), (line, column), "{damage} in {text}");
    }
}

#[test]
fn edited_entry_keeps_user_fields() {
    let before = "[mcp_servers.orchestrator-boss]\ncommand = \"/old\" # moved\ntool_timeout_sec = 1200\n\
                  env_vars = [\"MINE\"]\nenabled = true\ndefault_tools_approval_mode = \"prompt\"\n";
    let registration = codex::registration(&environment(), SetupScope::User);
    let after = entry::set(Format::Toml, before, &registration.keys, &registration.fields).unwrap();
    for line in [
        "command = \"/bin/orchestrator-boss\" # moved",
        "tool_timeout_sec = 1200",
        "enabled = true",
        "default_tools_approval_mode = \"prompt\"",
        "supports_parallel_tool_calls = true",
        "\"MINE\", \"ANTHROPIC_API_KEY\"",
    ] {
        assert!(after.contains(line), "{line} in {after}");
    }
    let kept = entry::user_choices(Format::Toml, before, &registration.keys, &registration.fields).unwrap();
    assert_eq!(kept, ["default_tools_approval_mode keeps its value; the default of setup is \"approve\""]);
}

#[test]
fn client_timeouts_exceed_the_longest_wait() {
    let gemini = entry::new_entry(&gemini::registration(&environment(), SetupScope::User).fields);
    assert_eq!(gemini["timeout"], CALL_SECONDS * 1000);
    let opencode = entry::new_entry(&opencode::registration(&environment(), SetupScope::Project).fields);
    assert_eq!(opencode["command"], json!(["/bin/orchestrator-boss"]));
}

/// Generates JSON with or without lines, comments, trailing commas and CRLF.
fn json_text() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof![Just("1"), Just("\"// x, }\""), Just("null"), Just("[1, 2]"), Just("{}"), Just("{ /* c */ }")];
    let member = ("[a-e]", leaf.prop_map(str::to_owned));
    let members = prop::collection::btree_map("[a-e]", member.prop_map(|(_, value)| value), 0..4);
    let style = (0..5usize, any::<bool>(), any::<bool>(), any::<bool>());
    let object = (members.clone(), members, style, any::<bool>());
    object.prop_map(|(outer, inner, (style, comments, trailing, crlf), has_servers)| {
        let mut outer: Vec<(String, String)> = outer.into_iter().collect();
        if has_servers {
            let inner: Vec<_> = inner.into_iter().collect();
            outer.push(("m".into(), object_text(&inner, style, comments, trailing, 1)));
        }
        let text = object_text(&outer, style, comments, trailing, 0) + if style < 3 { "\n" } else { "" };
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

fn object_text(members: &[(String, String)], style: usize, comments: bool, trailing: bool, depth: usize) -> String {
    let unit = ["  ", "    ", "\t", "", ""][style];
    let (newline, colon) = match style {
        3 => (String::new(), ": "),
        4 => (String::new(), ":"),
        _ => (format!("\n{}", unit.repeat(depth + 1)), ": "),
    };
    if members.is_empty() {
        return "{}".into();
    }
    let mut text = "{".to_owned();
    for (at, (name, value)) in members.iter().enumerate() {
        let last = at + 1 == members.len();
        let comma = if last && !trailing { "" } else { "," };
        let note = if comments && style < 3 { " // of, it" } else { "" };
        let gap = if style == 3 && at > 0 { " " } else { "" };
        text.push_str(&format!("{newline}{gap}\"{name}\"{colon}{value}{comma}{note}"));
    }
    if style < 3 {
        text.push_str(&format!("\n{}", unit.repeat(depth)));
    }
    text + "}"
}

/// An object of one line that got a member stays broken into lines.
fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

fn toml_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("[f]\n"),
        Just("[mcp_servers.b]\n"),
        Just("[mcp_servers]\n"),
        Just("[[l]]\n"),
        Just("# c\n"),
        Just("\n"),
        Just("x = 1 # one\n"),
        Just("y = [\n  1, # one\n]\n"),
        Just("z.a = '#'\n"),
        Just("t = \"\"\"\nx\n\"\"\"\n"),
    ];
    (prop::collection::vec(line, 0..8), 0..3usize).prop_map(|(lines, end)| match end {
        0 => lines.concat(),
        1 => lines.concat().replace('\n', "\r\n"),
        _ => lines.concat().trim_end().to_owned(),
    })
}

proptest! {
    #[test]
    fn removal_undoes_set(json in json_text(), toml in toml_text()) {
        for (format, before, keys) in [(LOOSE, &json, ["m", NAME]), (Format::Toml, &toml, ["mcp_servers", NAME])] {
            let Ok(whole) = format.get(before, &[]) else { continue };
            let after = set(format, before, &keys);
            prop_assert_eq!(&set(format, &after, &keys), &after, "a second time changes nothing");
            let mut removed = format.remove(&after, &keys).unwrap();
            if format == LOOSE && whole.as_ref().is_some_and(|whole| whole.get("m").is_none()) {
                removed = format.remove(&removed, &keys[..1]).unwrap();
            }
            if before.contains('\n') {
                prop_assert_eq!(&removed, before, "after was {}", after);
            } else {
                prop_assert_eq!(without_blanks(&removed), without_blanks(before), "after was {}", after);
            }
        }
    }

    #[test]
    fn field_change_keeps_other_lines(json in json_text()) {
        let after = set(LOOSE, &json, &["m", NAME]);
        let again = LOOSE.set(&after, &["m", NAME, "timeout"], &Value::from(99)).unwrap();
        prop_assert_eq!(again.replace("99", "7"), after);
    }
}
