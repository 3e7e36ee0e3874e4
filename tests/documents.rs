//! The documents are true: tables name existing tests, links lead somewhere, generated text is current, and the README
//! stays short.
//!
//! `ORCHESTRATOR_BLESS=1 cargo test --test documents` regenerates the settings in `src/docs/settings.md` and the table
//! in `src/docs/agents.md`.

use std::fs;
use std::path::{Path, PathBuf};

use orchestrator_boss::backend::{AcpAgent, AgentFacts, Enforcement, Evidence, UsageMeaning};
use orchestrator_boss::config::Settings;
use serde_json::Value;

const DOCUMENTS: [&str; 12] = [
    "README.md",
    ".github/ARCHITECTURE.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
    "src/docs/agents.md",
    "src/docs/clients.md",
    "src/docs/cluster.md",
    "src/docs/commands.md",
    "src/docs/settings.md",
    "src/docs/tools.md",
    "tests/README.md",
    "tests/bench/README.md",
];

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn readme_stays_short() {
    let size = read("README.md").len();
    assert!(size <= 10_240, "README.md has {size} bytes");
}

#[test]
fn readme_names_the_checks_of_ci() {
    let readme = read("README.md");
    let steps = read(".ci/run");
    let named = steps.lines().filter_map(|line| line.strip_prefix("step '")?.split_once(" (README)' "));
    let commands: Vec<&str> = named.filter_map(|(_, run)| run.find("cargo").map(|at| &run[at..])).collect();
    assert!(!commands.is_empty(), "no step is marked");
    for command in commands {
        assert!(readme.contains(command), "README.md does not have `{command}`");
    }
}

#[test]
fn tables_name_existing_tests() {
    let sources = sources(Path::new("."));
    for section in ["## Clients", "## Promises"] {
        let document = read("tests/README.md");
        let text = section_of(&document, section).unwrap_or_else(|| panic!("tests/README.md has no {section}"));
        let names = names_in(text);
        assert!(!names.is_empty(), "{section} names no tests");
        let missing: Vec<&str> = names.into_iter().filter(|name| !is_there(name, &sources)).collect();
        assert!(missing.is_empty(), "{section} names tests that do not exist: {missing:#?}");
    }
}

#[test]
fn only_a_function_in_the_named_file_counts() {
    let sources = [(PathBuf::from("tests/real/waits.rs"), "async fn it_waits(world: &World) {}".to_owned())];
    for name in ["it_waits", "waits::it_waits", "real::it_waits", "real::waits::it_waits"] {
        assert!(is_there(name, &sources), "{name}");
    }
    for name in ["it_wait", "t_waits", "setup::it_waits", "waits::"] {
        assert!(!is_there(name, &sources), "{name}");
    }
    let table = "| a | held by |\n|---|---|\n| `x` | `one`, `m::two` |\ntext `three`\n";
    assert_eq!(names_in(table), ["one", "m::two"]);
}

#[test]
fn links_lead_to_files_and_headings() {
    let broken: Vec<String> = DOCUMENTS.iter().flat_map(|path| broken(path)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn named_source_files_exist() {
    let map = read("src/lib.rs");
    let map = map.lines().filter_map(|line| line.strip_prefix("//!")).collect::<Vec<_>>().join("\n");
    let documents = DOCUMENTS.map(|path| (path, read(path))).into_iter().chain([("src/lib.rs", map)]);
    let mut missing = Vec::new();
    for (document, text) in documents {
        let folder = Path::new(document).parent().expect("a document is in a folder");
        let names = text.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
        // Capital letters stand for a name that the reader chooses.
        let files =
            names.filter(|name| name.ends_with(".rs") && !name.contains(|c: char| c == '*' || c.is_uppercase()));
        let exists = |name: &&str| [Path::new(""), Path::new("src"), folder].iter().any(|at| at.join(name).exists());
        missing.extend(files.filter(|name| !exists(name)).map(|name| format!("{document}: {name}")));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn heading_has_the_anchor_of_the_forges() {
    for (heading, expected) in [
        ("At a terminal", "at-a-terminal"),
        ("What `completed` means", "what-completed-means"),
        ("Backends of your own: `[[custom]]`", "backends-of-your-own-custom"),
        ("Claude Code's plugin", "claude-codes-plugin"),
    ] {
        assert_eq!(anchor(heading), expected);
    }
    assert_eq!(links("a [b](c.md#d) `[no](x)` ![e](f.png)\n```sh\n[no](y)\n```\n[g](#h)"), ["c.md#d", "f.png", "#h"]);
}

#[test]
fn settings_reference_is_current() {
    let path = "src/docs/settings.md";
    let schema = serde_json::to_value(schemars::schema_for!(Settings)).expect("a schema is JSON");
    let mut current = read(path);
    for (heading, pointer) in [
        ("## General settings", ""),
        ("## Limits of a boss: `[boss]`", "/$defs/BossSettings"),
        ("## Settings of a repository: `[repositories.\"PATH or URL\"]`", "/$defs/RepositorySettings"),
        ("## Settings of a backend: `[backends.NAME]`", "/$defs/BackendSettings"),
        ("## A backend of your own: `[[custom]]`", "/$defs/CustomBackend"),
        ("## A profile of missions: `[profiles.NAME]`", "/$defs/Profile"),
        ("## A launcher: `[launchers.NAME]`", "/$defs/LauncherSettings"),
    ] {
        let old = section_of(&current, heading).unwrap_or_else(|| panic!("{path} has no {heading}")).to_owned();
        let object = schema.pointer(pointer).expect("the schema has it");
        let prose = old.split("\n- `").next().unwrap_or_default().trim_end();
        let gap = if prose.is_empty() { "\n" } else { "\n\n" };
        let new = format!("{prose}{gap}{}\n", settings_of(object, &schema["$defs"]));
        current = current.replacen(&format!("\n{heading}\n{old}"), &format!("\n{heading}\n{new}"), 1);
    }
    if std::env::var_os("ORCHESTRATOR_BLESS").is_some() {
        fs::write(path, &current).expect("the reference can be written");
    }
    assert!(read(path) == current, "{path} is out of date: ORCHESTRATOR_BLESS=1 regenerates it");
    let long: Vec<&str> = current.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "too long for a terminal: {long:#?}");
}

#[test]
fn table_of_agents_is_current() {
    let path = "src/docs/agents.md";
    let text = read(path);
    let begin = text.find("|---|").and_then(|at| Some(at + text[at..].find('\n')? + 1)).expect("a table");
    let end = begin + text[begin..].find("\n##").expect("a section after the table");
    let rows: String = AcpAgent::all().map(|agent| row(&agent.facts())).collect();
    let current = format!("{}{rows}{}", &text[..begin], &text[end..]);
    if std::env::var_os("ORCHESTRATOR_BLESS").is_some() {
        fs::write(path, &current).expect("the table can be written");
    }
    assert!(read(path) == current, "{path} is out of date: ORCHESTRATOR_BLESS=1 regenerates it");
}

#[test]
fn tried_agents_are_those_that_tests_install() {
    let files = ["tests/real/package.json", "tests/real/agents/package.json"].map(read);
    let vibe = read("tests/real/agents/requirements.txt");
    for facts in AcpAgent::all().map(|agent| agent.facts()) {
        let Evidence::Tried(version) = facts.evidence else { continue };
        // The last word of the command is the package. Kilo's is pinned by its part for one platform.
        let package = facts.install.rsplit(' ').next().unwrap_or_default();
        let npm = ["", "-linux-x64"].map(|platform| format!("\"{package}{platform}\": \"{version}\""));
        let is_pinned = npm.iter().any(|pin| files.iter().any(|file| file.contains(pin.as_str())));
        let name = facts.name;
        assert!(is_pinned || vibe.contains(&format!("{package}=={version}\n")), "{name} {version} is not pinned");
    }
}

fn row(facts: &AgentFacts) -> String {
    let evidence = match facts.evidence {
        Evidence::Tried(version) => format!("tried {version}"),
        Evidence::Documentation => "documentation".to_owned(),
    };
    let read_only = match facts.read_only {
        None => "refused",
        Some(Enforcement::Kernel) => "by the kernel",
        Some(Enforcement::Sandbox) => "by its sandbox",
        Some(Enforcement::Cli | Enforcement::None) => "by its rules",
    };
    let tokens = match facts.usage {
        UsageMeaning::Unknown => "not counted",
        usage if usage.is_in_time() => "while it works",
        _ => "at the end",
    };
    let messages = if facts.accepts_live_messages { "yes" } else { "no" };
    let choice = match (facts.has_models, facts.efforts) {
        (false, _) => "no".to_owned(),
        (true, []) => "model".to_owned(),
        (true, efforts) => format!("model, effort ({})", efforts.join(", ")),
    };
    let install = match facts.install.strip_prefix("see ") {
        Some(address) => format!("[instructions]({address})"),
        None => format!("`{}`", facts.install.replace('|', "\\|")),
    };
    let AgentFacts { name, command, .. } = facts;
    format!("| `{name}` | `{command}` | {evidence} | {read_only} | {tokens} | {messages} | {choice} | {install} |\n")
}

#[test]
fn every_agent_is_in_readme_and_skill() {
    let (readme, skill) = (read("README.md"), read("skills/orchestrator-boss/SKILL.md"));
    for agent in AcpAgent::all() {
        let facts = agent.facts();
        let entry = match facts.evidence {
            Evidence::Tried(version) => format!("`{}` {version}", facts.name),
            Evidence::Documentation => format!("`{}`", facts.name),
        };
        let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(readme.contains(&entry), "README.md does not have {entry}");
        assert!(skill.contains(&format!("`{}`", facts.name)), "the skill does not have {}", facts.name);
    }
}

/// Settings with a section of their own.
const SECTIONS: [&str; 6] = ["boss", "repositories", "backends", "launchers", "profiles", "custom"];

/// Returns a list of the settings of one section, each with its type, meaning and default. A setting with a section of
/// its own is left out.
fn settings_of(object: &Value, definitions: &Value) -> String {
    let required = object["required"].as_array().cloned().unwrap_or_default();
    let properties = object["properties"].as_object().expect("a section has properties");
    let mut list = Vec::new();
    for (name, setting) in properties.iter().filter(|(name, _)| !SECTIONS.contains(&name.as_str())) {
        let definition = setting["$ref"].as_str().and_then(|path| definitions.get(path.rsplit('/').next()?));
        let text = setting["description"].as_str().unwrap_or_else(|| panic!("{name} has no doc comment"));
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = match (text.contains("Default: "), required.contains(&Value::from(name.as_str()))) {
            (true, _) => text,
            (false, true) => format!("{text} Required."),
            (false, false) => format!("{text} Default: {}.", default_of(&setting["default"], definition.is_some())),
        };
        list.push(wrapped(&format!("- `{name}` ({}): {text}", type_of(name, setting, definition)), "  "));
        for choice in definition.into_iter().filter_map(|it| it["oneOf"].as_array()).flatten() {
            let text =
                choice["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            list.push(wrapped(
                &format!("  - `{}`: {text}", choice["const"].as_str().expect("a choice has a name")),
                "    ",
            ));
        }
    }
    list.join("\n")
}

fn type_of(name: &str, setting: &Value, definition: Option<&Value>) -> String {
    if let Some(choices) = definition.or_else(|| setting.get("enum").map(|_| setting)) {
        let list = choices["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .chain(choices["oneOf"].as_array().into_iter().flatten().map(|choice| &choice["const"]));
        let names: Vec<String> = list.filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
        return names.join(", ");
    }
    let plain = setting["type"].as_str().or_else(|| setting["type"][0].as_str()).unwrap_or_default();
    let kind = match plain {
        "integer" => "whole number",
        "boolean" => "`true` or `false`",
        "string" => "text",
        "array" => "list of texts",
        "object" => "table of texts",
        other => other,
    };
    let units = [("_minutes", "minutes"), ("_seconds", "seconds"), ("_mib", "MiB"), ("_usd", "US dollars")];
    match units.iter().find(|(suffix, _)| name.ends_with(suffix)) {
        Some((_, unit)) => format!("{kind}, {unit}"),
        None => kind.to_owned(),
    }
}

/// Returns the default of a setting. A text is in quotes, as in the file, unless it is one of several names.
fn default_of(value: &Value, is_name: bool) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(|item| default_of(item, true)).collect::<Vec<_>>().join(", "),
        Value::String(name) if is_name => format!("`{name}`"),
        Value::Number(number) => format!("`{}`", number.to_string().trim_end_matches(".0")),
        other => format!("`{other}`"),
    }
}

/// Breaks a text into lines of at most 80 columns. Further lines begin with `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    let (start, rest) = text.split_at(text.len() - text.trim_start().len());
    lines[0].push_str(start);
    for word in rest.split(' ') {
        let line = lines.last().expect("there is a first line");
        if line.chars().count() + word.chars().count() >= 80 {
            lines.push(format!("{indent}{word}"));
        } else {
            let gap = if line.trim().is_empty() { "" } else { " " };
            *lines.last_mut().expect("there is a first line") = format!("{line}{gap}{word}");
        }
    }
    lines.join("\n")
}

fn section_of<'a>(document: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("\n{heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest))
}

/// Returns the relative links of a document that lead to no file or to no heading.
fn broken(document: &str) -> Vec<String> {
    let text = read(document);
    let folder = Path::new(document).parent().expect("a document is in a folder");
    let is_broken = |link: &&str| {
        let (file, heading) = link.split_once('#').map_or((*link, None), |(file, heading)| (file, Some(heading)));
        let path = if file.is_empty() { PathBuf::from(document) } else { folder.join(file) };
        match (path.exists(), heading) {
            (true, Some(heading)) => {
                !headings(&fs::read_to_string(&path).unwrap_or_default()).contains(&heading.into())
            }
            (exists, _) => !exists,
        }
    };
    let relative = links(&text).into_iter().filter(|link| !link.contains("://"));
    relative.filter(is_broken).map(|link| format!("{document}: {link}")).collect()
}

/// Returns the targets of all links outside code.
fn links(text: &str) -> Vec<&str> {
    let outside_blocks = text.split("```").step_by(2);
    let outside_code = outside_blocks.flat_map(|text| text.split('`').step_by(2));
    outside_code.flat_map(|text| text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))).collect()
}

fn headings(text: &str) -> Vec<String> {
    let outside_blocks = text.split("```").step_by(2).flat_map(str::lines);
    outside_blocks
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Returns the names in backticks in the last column of all tables.
fn names_in(section: &str) -> Vec<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|'));
    let last = rows.filter_map(|row| row.rsplit('|').next());
    last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// Returns whether the function is defined. A path before its name must be in the path of its file.
fn is_there(name: &str, sources: &[(PathBuf, String)]) -> bool {
    let mut path: Vec<&str> = name.split("::").collect();
    let Some(function) = path.pop().filter(|function| !function.is_empty()) else { return false };
    let defined = [format!(" {function}("), format!(" {function}<")].map(|end| format!("fn{end}"));
    sources.iter().any(|(file, text)| {
        let file = file.with_extension("");
        let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
        path.iter().all(|part| parts.contains(part)) && defined.iter().any(|defined| text.contains(defined))
    })
}

/// Returns all Rust files of src and tests, by their path from the root.
fn sources(root: &Path) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the sources").flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "node_modules" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                sources.push((path.strip_prefix(root).expect("it is below it").to_owned(), text));
            }
        }
    }
    sources
}
