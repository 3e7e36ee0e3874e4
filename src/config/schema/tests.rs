use super::super::Settings;
use super::*;

const REFERENCE: &str = include_str!("../../docs/settings.md");

/// Checks a value with a schema. Fails on a keyword that it does not know, so that no part of a schema is skipped.
fn errors(schema: &Value, value: &Value, root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let is_valid = match keyword.as_str() {
            "$schema" | "$comment" | "title" | "description" | "default" | "definitions" => true,
            "$ref" => {
                let path = rule.as_str().and_then(|path| path.strip_prefix('#')).expect("a path in this schema");
                found.extend(errors(root.pointer(path).expect("a definition"), value, root));
                true
            }
            "allOf" => {
                rule.as_array().expect("a list").iter().for_each(|part| found.extend(errors(part, value, root)));
                true
            }
            "oneOf" => {
                let fitting = rule.as_array().expect("a list").iter().filter(|it| errors(it, value, root).is_empty());
                fitting.count() == 1
            }
            "type" => is_of_type(value, rule.as_str().expect("one type")),
            "enum" => rule.as_array().expect("a list").contains(value),
            "const" => rule == value,
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().expect("a number")),
            "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > rule.as_f64().expect("a number")),
            "minLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().expect("a size"))
            }
            "maxLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().expect("a size"))
            }
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().expect("a size")),
            "pattern" => {
                let pattern = regex_lite::Regex::new(rule.as_str().expect("a text")).expect("a pattern");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "propertyNames" => {
                let names = value.as_object().into_iter().flatten().map(|(name, _)| Value::from(name.as_str()));
                names.for_each(|name| found.extend(errors(rule, &name, root)));
                true
            }
            "required" => {
                let required = rule.as_array().expect("a list").iter().filter_map(Value::as_str);
                value.as_object().is_none_or(|fields| required.into_iter().all(|name| fields.contains_key(name)))
            }
            "items" => {
                value.as_array().into_iter().flatten().for_each(|item| found.extend(errors(rule, item, root)));
                true
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    found.extend(rule.get(name).into_iter().flat_map(|rule| errors(rule, value, root)));
                }
                true
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match rule {
                        _ if schema["properties"].get(name).is_some() => {}
                        Value::Bool(false) => found.push(format!("{name} is unknown")),
                        rule => found.extend(errors(rule, value, root)),
                    }
                }
                true
            }
            unknown => panic!("the test does not know the keyword {unknown}"),
        };
        if !is_valid {
            found.push(format!("{value} breaks {keyword} {rule}"));
        }
    }
    found
}

fn is_of_type(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("an unknown type {other}"),
    }
}

fn errors_in(text: &str) -> Vec<String> {
    let schema = schema();
    let value: Value = toml::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    errors(&schema, &value, &schema)
}

#[test]
fn every_documented_setting_has_type_and_text() {
    let schema = schema();
    let sections = [
        ("## General settings", "/properties"),
        ("## Limits of a boss", "/definitions/BossSettings/properties"),
        ("## Settings of a repository", "/definitions/RepositorySettings/properties"),
        ("## Settings of a backend", "/definitions/BackendSettings/properties"),
        ("## A backend of your own", "/definitions/CustomBackend/properties"),
        ("## A profile of missions", "/definitions/Profile/properties"),
        ("## A launcher", "/definitions/LauncherSettings/properties"),
    ];
    for (heading, place) in sections {
        let (_, section) = REFERENCE.split_once(&format!("\n{heading}")).expect("a section of the reference");
        let section = section.split("\n## ").next().unwrap_or_default();
        let names: Vec<&str> =
            section.split("\n- `").skip(1).filter_map(|item| item.split_once('`').map(|(name, _)| name)).collect();
        assert!(!names.is_empty(), "{heading}");
        for name in names {
            let setting = schema.pointer(&format!("{place}/{name}")).unwrap_or_else(|| panic!("{heading}: {name}"));
            assert!(!setting["description"].as_str().unwrap_or_default().is_empty(), "{name}: {setting}");
            let has_type = ["type", "$ref", "allOf", "enum"].iter().any(|keyword| setting.get(keyword).is_some());
            assert!(has_type, "{name}: {setting}");
        }
    }
    for section in ["boss", "repositories", "backends", "launchers", "profiles", "custom"] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
    assert_eq!(schema["properties"].get("file"), None, "it is no setting");
    assert!(!schema_text().contains("null"), "TOML has no null");
}

#[test]
fn every_example_of_the_reference_is_valid() {
    let examples: Vec<&str> =
        REFERENCE.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(text, _)| text)).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        assert_eq!(errors_in(example), Vec::<String>::new(), "{example}");
        assert!(Settings::parse(example).is_ok(), "{example}");
    }
    let schema = schema();
    let defaults = set_values(serde_json::to_value(Settings::default()).unwrap());
    assert_eq!(errors(&schema, &defaults, &schema), Vec::<String>::new());
}

/// Each text breaks a rule that the parser has too.
#[test]
fn parser_and_schema_refuse_the_same_inputs() {
    for text in [
        "max_worker = 3",
        "max_workers = '3'",
        "max_workers = -1",
        "max_workers = 1.5",
        "stall_minutes = -1",
        "stall_minutes = '5'",
        "setup_timeout_minutes = -0.5",
        "on_stall = 'kill'",
        "notify = ['never']",
        "notify = 'finished'",
        "notify_terminal = 'yes'",
        "worktree_roots = '/x'",
        "integration_branch = ''",
        "file = 'x'",
        "boss = 3",
        "[boss]\nmax_cost = 1.0",
        "[boss]\nmax_cost_usd = -1.0",
        "[boss]\nmax_tokens = 1.5",
        "[backends.codex]\nmodels = 'x'",
        "[backends.codex]\nmax_workers = '2'",
        "[repositories.'/r']\nsetup = 'x'",
        "[repositories.'/r']\nseed = 'x'",
        "[repositories.'/r']\nsetup_timeout_minutes = -1.0",
        "[[custom]]\nname = 'a'",
        "[[custom]]\nname = 'A b'\nprogram = 'x'",
        "[[custom]]\nname = 'a'\nprogram = ''",
        "[[custom]]\nname = 'a'\nprogram = 'x'\noutput = 'xml'",
        "[[custom]]\nname = 'a'\nprogram = 'x'\nstop = 'kill'",
        "[[custom]]\nname = 'a'\nprogram = 'x'\nenv = { A = 1 }",
        "[profiles.a]\ntitle = 'x'",
        "[profiles.a]\nbackend = 3",
        "[profiles.a]\npermissions = 'root'",
        "[profiles.a]\ntimeout_minutes = 0",
        "[profiles.a]\ntimeout_minutes = 10081",
        "[profiles.a]\nmax_attempts = 21",
        "[profiles.a]\nmax_cost_usd = 0.0",
        "[profiles.a]\nmax_cost_usd = 100001.0",
        "[profiles.a]\nmax_tokens = 0",
        "[profiles.a]\nverify_command = ''",
        "[profiles.a]\nfallback_backends = ['a','a','a','a','a','a','a','a','a','a','a']",
        "[profiles.'a b']",
        "[launchers.a]\ncpus = 4",
        "[launchers.a]\nkind = 'pbs'",
        "[launchers.a]\nkind = 'slurm'\ncores = 4",
        "[launchers.a]\nkind = 'slurm'\ncpus = 0",
        "[launchers.a]\nkind = 'slurm'\nmemory = '8 G'",
        "[launchers.a]\nkind = 'slurm'\npartition = ''",
        "[launchers.a]\nkind = 'slurm'\nargs = '--exclusive'",
        "[launchers.a]\nkind = 'slurm'\nmax_jobs = 0",
        "[launchers.a]\nkind = 'slurm'\npoll_seconds = 4",
        "[launchers.a]\nkind = 'slurm'\nlost_after_seconds = 59",
        "[launchers.'a b']\nkind = 'slurm'",
    ] {
        assert!(Settings::parse(text).is_err(), "the parser accepts {text}");
        assert!(!errors_in(text).is_empty(), "the schema accepts {text}");
    }
}

#[test]
fn only_our_schema_is_recognised() {
    assert!(is_our_schema(&schema_text()));
    for other in ["", "{}", "[1]", "{\"$comment\": 3}", "{\"$comment\": \"Written by hand\"}"] {
        assert!(!is_our_schema(other), "{other}");
    }
}
