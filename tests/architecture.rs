//! Dependencies point down. Single crates drift into import cycles unless something checks: this reads every
//! `crate::<room>` in the sources and fails on an arrow that is not drawn here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each room, and the rooms below it that it may use.
const ARROWS: [(&str, &[&str]); 13] = [
    ("mission", &[]),
    ("files", &["mission"]),
    ("process", &["mission"]),
    ("git", &["mission"]),
    ("backend", &["mission"]),
    ("config", &["backend", "mission"]),
    ("attempt", &["config", "files", "git", "mission", "process"]),
    ("store", &["attempt", "files", "mission"]),
    ("supervisor", &["attempt", "backend", "config", "files", "git", "mission", "process"]),
    ("launcher", &["attempt", "mission", "process"]),
    ("orchestrator", &["attempt", "backend", "config", "files", "git", "launcher", "mission", "process", "store"]),
    ("mcp", &["attempt", "backend", "config", "files", "mission", "orchestrator", "process", "store"]),
    (
        "cli",
        &[
            "attempt",
            "backend",
            "config",
            "files",
            "git",
            "mcp",
            "mission",
            "orchestrator",
            "process",
            "store",
            "supervisor",
        ],
    ),
];

#[test]
fn no_room_uses_one_above_or_beside_it() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for file in sources(Path::new("src")) {
        let room = room_of(&file);
        let Some(allowed) = arrows.get(room.as_str()) else { continue };
        for used in rooms_in(&std::fs::read_to_string(&file).expect("a readable source")) {
            if used != room && arrows.contains_key(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{} uses {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not in the picture:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_picture_and_the_picture_has_no_cycle() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let rooms: BTreeSet<String> = sources(Path::new("src")).iter().map(|file| room_of(file)).collect();
    for room in rooms.iter().filter(|room| !["main", "lib", "crash_point"].contains(&room.as_str())) {
        assert!(arrows.contains_key(room.as_str()), "{room} is not drawn");
    }
    // Drawn in such an order that each uses only what stands before it.
    for (at, (room, uses)) in ARROWS.iter().enumerate() {
        for used in *uses {
            assert!(ARROWS[..at].iter().any(|(before, _)| before == used), "{room} uses {used}, which stands after it");
        }
    }
}

#[test]
fn only_the_protocol_room_names_the_protocol_library() {
    for file in sources(Path::new("src")) {
        // The demo plays a boss, and so is a client.
        if ["mcp", "cli"].contains(&room_of(&file).as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a readable source");
        assert!(!text.contains("rmcp"), "{} names rmcp", file.display());
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// `src/git/facts.rs` and `src/git.rs` are both of the room `git`.
fn room_of(file: &Path) -> String {
    let first = file.components().nth(1).expect("a path in src").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The names that follow `crate::`, also within braces.
fn rooms_in(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split("};").next().unwrap_or_default();
                rooms.extend(list.split(',').map(|item| word(item.trim())));
            }
            None => {
                rooms.insert(word(rest));
            }
        }
    }
    rooms
}

/// A text of a mission must never become a command. The demo's project is a script of its own.
#[test]
fn only_verify_command_runs_through_a_shell() {
    // OpenCode calls a tool of its own "bash".
    let shells = ["\"sh\"", "/bin/sh\"", "/bin/bash\"", "/bin/env\"", "\"zsh\"", "new(\"bash\")", "program: \"bash\""];
    let mut found = Vec::new();
    for file in sources(Path::new("src")) {
        let name = file.to_string_lossy().into_owned();
        if name.contains("tests") || name.contains("testing") || name.contains("src/cli/demo") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a readable source");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        if shells.iter().any(|shell| code.contains(shell)) {
            found.push(name);
        }
    }
    assert_eq!(found, ["src/supervisor/verify.rs"]);
}
