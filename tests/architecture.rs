//! Dependencies between rooms point down, and the files of a room have no import cycle. The test reads the imports in
//! the sources, and fails on a dependency that is not in [`ARROWS`].

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
    ("launcher", &["attempt", "config", "mission", "process"]),
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
    assert!(wrong.is_empty(), "dependencies that are not in ARROWS:\n{}", wrong.join("\n"));
}

#[test]
fn map_has_every_room_and_no_cycle() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let rooms: BTreeSet<String> = sources(Path::new("src")).iter().map(|file| room_of(file)).collect();
    for room in rooms.iter().filter(|room| !["main", "lib", "crash_point"].contains(&room.as_str())) {
        assert!(arrows.contains_key(room.as_str()), "{room} is not in ARROWS");
    }
    // In the order of ARROWS, each room uses only earlier ones.
    for (at, (room, uses)) in ARROWS.iter().enumerate() {
        for used in *uses {
            assert!(ARROWS[..at].iter().any(|(before, _)| before == used), "{room} uses {used}, which is after it");
        }
    }
}

/// Checks that no files import each other in a cycle, except a module and its own submodules.
#[test]
fn files_of_a_room_form_no_cycle() {
    let mut cycles = Vec::new();
    for (room, _) in ARROWS {
        let modules = Modules::of(room);
        cycles.extend(modules.cycle().map(|cycle| cycle.join(" -> ")));
    }
    assert!(cycles.is_empty(), "files that import each other:\n{}", cycles.join("\n"));
}

/// The modules of one room by path (`backend::codex::stream`), each with its imports.
struct Modules {
    imports: BTreeMap<String, Vec<Import>>,
}

struct Import {
    path: String,
    is_public: bool,
}

impl Modules {
    fn of(room: &str) -> Self {
        let files = sources(Path::new("src")).into_iter().filter(|file| room_of(file) == room);
        let files = files.filter(|file| !file.ends_with("tests.rs") && !file.ends_with("testing.rs"));
        let modules = files.map(|file| {
            let text = std::fs::read_to_string(&file).expect("a readable source");
            (module_of(&file), imports_in(&text))
        });
        Self { imports: modules.collect() }
    }

    /// Returns the modules of one import cycle, if there is any.
    fn cycle(&self) -> Option<Vec<String>> {
        let arrows: BTreeMap<&str, BTreeSet<String>> =
            self.imports.keys().map(|module| (module.as_str(), self.imported_by(module))).collect();
        let mut finished = BTreeSet::new();
        arrows.keys().find_map(|module| cycle_from(module, &arrows, &mut Vec::new(), &mut finished))
    }

    fn imported_by(&self, module: &str) -> BTreeSet<String> {
        let imported = self.imports[module].iter().filter_map(|import| self.module_of(module, &import.path));
        let is_within = |inner: &str, outer: &str| format!("{inner}::").starts_with(&format!("{outer}::"));
        imported.filter(|other| !is_within(other, module) && !is_within(module, other)).collect()
    }

    /// Finds the module of the room that defines an imported item, through re-exports.
    fn module_of(&self, module: &str, path: &str) -> Option<String> {
        let absolute = absolute_path(module, path);
        let (mut found, mut rest) = (String::new(), absolute.split("::").peekable());
        while let Some(name) = rest.peek() {
            let inner = if found.is_empty() { (*name).to_owned() } else { format!("{found}::{name}") };
            // `linux.rs` and `macos.rs` are one module.
            let inner = inner.replace("process::platform", "process::linux");
            if !self.imports.contains_key(&inner) {
                break;
            }
            found = inner;
            rest.next();
        }
        let defined_in = self.imports.get(&found)?;
        let reexport = |item: &&str| {
            defined_in.iter().find(|import| import.is_public && import.path.rsplit("::").next() == Some(*item))
        };
        match rest.peek().and_then(reexport) {
            Some(import) if absolute != absolute_path(&found, &import.path) => self.module_of(&found, &import.path),
            _ => Some(found),
        }
    }
}

/// Returns a path without `crate`, `self` and `super`.
fn absolute_path(module: &str, path: &str) -> String {
    let mut start: Vec<&str> = module.split("::").collect();
    let mut rest = path;
    if let Some(inner) = path.strip_prefix("crate::") {
        return inner.to_owned();
    }
    while let Some(inner) = rest.strip_prefix("super::") {
        start.pop();
        rest = inner;
    }
    start.push(rest.strip_prefix("self::").unwrap_or(rest));
    start.join("::")
}

fn cycle_from(
    module: &str,
    arrows: &BTreeMap<&str, BTreeSet<String>>,
    path: &mut Vec<String>,
    finished: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(at) = path.iter().position(|earlier| earlier == module) {
        return Some(path[at..].iter().cloned().chain([module.to_owned()]).collect());
    }
    if finished.contains(module) {
        return None;
    }
    path.push(module.to_owned());
    let cycle = arrows[module].iter().find_map(|next| cycle_from(next, arrows, path, finished));
    path.pop();
    finished.insert(module.to_owned());
    cycle
}

/// Returns the module of a file: `src/git/facts.rs` is `git::facts`, and `src/git/mod.rs` is `git`.
fn module_of(file: &Path) -> String {
    let path = file.with_extension("");
    let names: Vec<_> = path.components().skip(1).map(|name| name.as_os_str().to_string_lossy()).collect();
    names.join("::").trim_end_matches("::mod").to_owned()
}

/// Returns the imports of a source without its tests, and the paths that it uses without an import.
fn imports_in(text: &str) -> Vec<Import> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut imports = Vec::new();
    for statement in code.split(';') {
        let statement = statement.rsplit("}\n\n").next().unwrap_or_default().trim();
        if let Some((before, tree)) = statement.rsplit_once("use ").filter(|(before, _)| is_visibility(before)) {
            let is_public = before.trim_end().lines().last().is_some_and(|line| line.starts_with("pub"));
            imports.extend(paths_in(tree).into_iter().map(|path| Import { path, is_public }));
        }
    }
    for start in ["super::", "crate::"] {
        let used =
            code.match_indices(start).map(|(at, _)| code[at..].chars().take_while(|it| is_in_path(*it)).collect());
        imports.extend(used.map(|path: String| Import { path, is_public: false }));
    }
    imports
}

/// Returns whether the text before `use` ends a line, apart from a visibility.
fn is_visibility(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default().trim();
    line.is_empty() || line.starts_with("pub")
}

fn is_in_path(character: char) -> bool {
    character.is_alphanumeric() || "_:".contains(character)
}

/// Returns the paths of a `use` with braces, which may be nested.
fn paths_in(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((start, list)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let list = list.trim_end().strip_suffix('}').unwrap_or(list);
    let (mut items, mut depth) = (vec![String::new()], 0);
    for character in list.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if character == ',' && depth == 0 {
            items.push(String::new());
        } else {
            items.last_mut().expect("the list begins with one item").push(character);
        }
    }
    let items = items.iter().filter(|item| !item.trim().is_empty());
    items.flat_map(|item| paths_in(item)).map(|path| format!("{}{path}", start.trim())).collect()
}

#[test]
fn only_the_protocol_room_names_the_protocol_library() {
    for file in sources(Path::new("src")) {
        // The demo acts as a boss, and so is a client.
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

/// Returns the room of a file: `src/git/facts.rs` and `src/git.rs` are both in the room `git`.
fn room_of(file: &Path) -> String {
    let first = file.components().nth(1).expect("a path in src").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the names that follow `crate::`, also within braces.
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

/// Checks that no other text of a mission becomes a command. The demo's project is its own script, the `notify_command` and
/// the editor are the user's, and the shell behind the `command` of a launcher gets each word in quotes.
#[test]
fn only_setup_and_verify_commands_run_through_a_shell() {
    // OpenCode has a tool with the name "bash".
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
    found.sort();
    let expected =
        ["src/cli/open.rs", "src/launcher/slurm/command.rs", "src/process/user_command.rs", "src/supervisor/shell.rs"];
    assert_eq!(found, expected);
}

/// Checks that git runs with the trust that a repository carries, since a worker can change its configuration.
#[test]
fn git_runs_without_trust_only_in_named_places() {
    // The doctor runs nothing that a worker made; the copy of a worker's clone has a configuration of ours.
    let trusting = ["src/cli/doctor/git.rs", "src/cli/doctor/mod.rs", "src/git/own_clone/fetch.rs"];
    let places: [(&str, &[&str]); 3] = [
        // The demo's project and its agent belong to the user.
        ("Command::new(\"git\")", &["src/cli/demo/project.rs", "src/cli/demo_agent.rs", "src/git/command.rs"]),
        (
            "Git::without_trust(",
            &[
                "src/cli/doctor/git.rs",
                "src/cli/doctor/leftovers.rs",
                "src/cli/worktree.rs",
                "src/git/command.rs",
                "src/git/repository.rs",
            ],
        ),
        ("Trust::everything()", &trusting),
    ];
    for (call, allowed) in places {
        let mut found: Vec<String> = Vec::new();
        for file in sources(Path::new("src")) {
            let name = file.to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&file).expect("a readable source");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let is_test = ["tests.rs", "testing.rs", "as_git.rs", "integrate/repositories.rs"]
                .iter()
                .any(|it| name.ends_with(it));
            if !is_test && code.contains(call) {
                found.push(name);
            }
        }
        found.sort();
        assert_eq!(found, allowed, "places with {call}");
    }
}
