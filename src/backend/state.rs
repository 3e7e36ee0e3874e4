//! The folders in which CLIs keep their state. A confined CLI can write them as a whole: with less, some lose a renewed
//! login, and others do not start. `~/.claude.json` is not among them: Claude Code works without writing it, and if only
//! that file could be written, it would be written without its lock.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::StateFolder;

pub const CLAUDE_CODE: &[StateFolder] = &[
    StateFolder::named("CLAUDE_CONFIG_DIR", ".claude"),
    // It keeps its login there, and a renewed one would be lost.
    #[cfg(target_os = "macos")]
    StateFolder::at("Library/Keychains"),
];
pub const CODEX: &[StateFolder] = &[StateFolder::named("CODEX_HOME", ".codex")];
pub const GEMINI: &[StateFolder] = &[StateFolder::below("GEMINI_CLI_HOME", ".gemini", ".gemini")];
pub const OPENCODE: &[StateFolder] = &[
    StateFolder::below("XDG_DATA_HOME", "opencode", ".local/share/opencode"),
    StateFolder::below("XDG_STATE_HOME", "opencode", ".local/state/opencode"),
    StateFolder::below("XDG_CACHE_HOME", "opencode", ".cache/opencode"),
];
pub const QWEN: &[StateFolder] = &[StateFolder::named("QWEN_HOME", ".qwen")];
pub const COPILOT: &[StateFolder] = &[
    StateFolder::named("COPILOT_HOME", ".copilot"),
    StateFolder::below("XDG_STATE_HOME", ".copilot", ".copilot"),
    StateFolder::below("XDG_CACHE_HOME", "copilot", ".cache/copilot"),
];
pub const VIBE: &[StateFolder] = &[StateFolder::named("VIBE_HOME", ".vibe")];
pub const KILO: &[StateFolder] = &[
    StateFolder::below("XDG_DATA_HOME", "kilo", ".local/share/kilo"),
    StateFolder::below("XDG_STATE_HOME", "kilo", ".local/state/kilo"),
    StateFolder::below("XDG_CACHE_HOME", "kilo", ".cache/kilo"),
    StateFolder::below("XDG_CONFIG_HOME", "kilo", ".config/kilo"),
];
/// The variable moves its settings alone. Its login is in the second folder.
pub const CURSOR: &[StateFolder] = &[
    StateFolder::at(".cursor"),
    StateFolder::below("XDG_CONFIG_HOME", "cursor", ".config/cursor"),
    StateFolder::named("CURSOR_CONFIG_DIR", ".cursor"),
];
pub const DROID: &[StateFolder] = &[StateFolder::at(".factory")];
pub const GOOSE: &[StateFolder] = &[
    StateFolder::below("XDG_DATA_HOME", "goose", ".local/share/goose"),
    StateFolder::below("XDG_STATE_HOME", "goose", ".local/state/goose"),
    StateFolder::below("XDG_CONFIG_HOME", "goose", ".config/goose"),
    StateFolder::named("GOOSE_PATH_ROOT", ".local/share/goose"),
];
pub const GROK: &[StateFolder] = &[StateFolder::named("GROK_HOME", ".grok")];
pub const JUNIE: &[StateFolder] = &[StateFolder::at(".junie")];
/// Its successor has the same program name, and looks for the first folder of its predecessor.
pub const KIMI: &[StateFolder] = &[
    StateFolder::named("KIMI_SHARE_DIR", ".kimi").if_exists(),
    StateFolder::named("KIMI_CODE_HOME", ".kimi-code"),
    StateFolder::below("XDG_CACHE_HOME", "kimi-code", ".cache/kimi-code").if_exists(),
];
/// If the last variable is not set, its logs are in the temporary folder.
pub const KIRO: &[StateFolder] = &[
    StateFolder::at(".kiro"),
    #[cfg(not(target_os = "macos"))]
    StateFolder::below("XDG_DATA_HOME", "kiro-cli", ".local/share/kiro-cli"),
    #[cfg(target_os = "macos")]
    StateFolder::at("Library/Application Support/kiro-cli"),
    StateFolder::below("XDG_RUNTIME_DIR", "kiro-log", ""),
];
pub const PI: &[StateFolder] = &[StateFolder::at(".pi"), StateFolder::named("PI_CODING_AGENT_DIR", ".pi/agent")];

/// Programs that run another one, which their arguments name.
const RUNNERS: &str = "npx npm pnpm yarn bun bunx node deno tsx uv uvx pipx python python3 env sh bash zsh fish timeout nice \
                       ssh docker podman nix mise";
/// Names whose folders belong to other programs, or hold keys.
const OTHERS: &str = "ssh gnupg gpg aws azure gcloud kube docker git gh config local cache systemd autostart mozilla pki \
                      cargo rustup vim nvim emacs";
/// Endings by which programs differ from the names of their folders.
const ENDINGS: [&str; 9] = [".js", ".mjs", ".py", ".sh", "-acp", "-cli", "-agent", "-code", "-bin"];

/// Returns the state folders of a custom backend. An unknown CLI has the existing folders of its name.
pub fn of_custom(name: &str, program: &str, args: &[String], env: &BTreeMap<String, String>) -> Vec<StateFolder> {
    let names = names(name, program, args);
    let known = names.iter().map(|name| of_program(name)).find(|folders| !folders.is_empty());
    let folders = match known {
        Some(folders) => folders.to_vec(),
        None => names.iter().filter(|name| !is_in(OTHERS, name)).flat_map(|name| named_after(name)).collect(),
    };
    folders.into_iter().map(|folder| moved_by(folder, env)).collect()
}

/// Returns the folders of a known CLI.
fn of_program(name: &str) -> &'static [StateFolder] {
    match name {
        "claude" => CLAUDE_CODE,
        "codex" => CODEX,
        "gemini" => GEMINI,
        "opencode" => OPENCODE,
        "qwen" => QWEN,
        "copilot" => COPILOT,
        "vibe" => VIBE,
        "kilo" => KILO,
        "cursor" => CURSOR,
        "droid" => DROID,
        "goose" => GOOSE,
        "grok" => GROK,
        "junie" => JUNIE,
        "kimi" => KIMI,
        "kiro" => KIRO,
        "pi" => PI,
        _ => &[],
    }
}

/// Returns the names that a CLI may use for its folders: of its program, or of what a runner runs, and of the backend.
fn names(name: &str, program: &str, args: &[String]) -> Vec<String> {
    let program = base(program);
    let programs = if is_in(RUNNERS, program) {
        args.iter().filter(|arg| !arg.starts_with(['-', '{'])).map(|arg| base(arg)).collect()
    } else {
        vec![program]
    };
    let mut names = Vec::new();
    for mut name in programs.into_iter().chain([name]) {
        loop {
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if is_name && !name.starts_with('.') && !is_in(RUNNERS, name) && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
            match ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
                Some(shorter) => name = shorter,
                None => break,
            }
        }
    }
    names
}

/// Returns whether a list has this word.
fn is_in(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

/// Returns the name in a path, a command, or the name of a package with its version.
fn base(text: &str) -> &str {
    let word = text.split_whitespace().next().unwrap_or_default();
    let name = word.rsplit('/').next().unwrap_or_default();
    name.split(['@', '=']).next().unwrap_or_default()
}

fn named_after(name: &str) -> Vec<StateFolder> {
    let in_folder = |folder: &str| StateFolder { default: format!("{folder}{name}").into(), ..StateFolder::at("") };
    let below = |variable, folder: &str| StateFolder {
        variable: Some(variable),
        below: Cow::Owned(name.to_owned()),
        ..in_folder(folder)
    };
    let mut folders = vec![
        in_folder("."),
        below("XDG_CONFIG_HOME", ".config/"),
        below("XDG_DATA_HOME", ".local/share/"),
        below("XDG_STATE_HOME", ".local/state/"),
        below("XDG_CACHE_HOME", ".cache/"),
    ];
    if cfg!(target_os = "macos") {
        folders.extend(["Application Support", "Caches", "Logs"].map(|kind| in_folder(&format!("Library/{kind}/"))));
    }
    folders.into_iter().map(StateFolder::if_exists).collect()
}

/// Returns the folder that the settings of the backend name, if they do.
fn moved_by(folder: StateFolder, env: &BTreeMap<String, String>) -> StateFolder {
    let named = folder.variable.and_then(|name| env.get(name)).filter(|path| path.starts_with('/'));
    match named {
        Some(path) => {
            let path = format!("{}/{}", path.trim_end_matches('/'), folder.below);
            StateFolder { variable: None, default: path.into(), ..folder }
        }
        None => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, program: &str, args: &[&str]) -> Vec<StateFolder> {
        of_custom(name, program, &args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>(), &BTreeMap::new())
    }

    #[test]
    fn known_program_has_its_folders_however_it_is_run() {
        assert_eq!(of("mine", "/opt/bin/codex", &[]), CODEX);
        assert_eq!(of("mine", "npx", &["-y", "@agentclientprotocol/claude-agent-acp@0.101.0"]), CLAUDE_CODE);
        assert_eq!(of("mine", "npx", &["@google/gemini-cli", "--acp"]), GEMINI);
        assert_eq!(of("mine", "bash", &["-c", "exec 2>&1; codex"]).first().map(|it| it.is_created), Some(false));
        assert_eq!(of("mine", "cursor-agent", &["acp"]), CURSOR);
    }

    #[test]
    fn unknown_program_has_existing_folders_of_its_name() {
        let folders = |name, program, args: &[&str]| -> Vec<String> {
            let found = of(name, program, args);
            assert!(found.iter().all(|folder| !folder.is_created));
            found.iter().map(|folder| folder.default.to_string()).filter(|name| !name.contains('/')).collect()
        };
        assert_eq!(folders("mine", "/opt/crush", &[]), [".crush", ".mine"]);
        assert_eq!(
            folders("mine", "uvx", &["--quiet", "aider-cli==1.2", "{model}"]),
            [".aider-cli", ".aider", ".mine"]
        );
        assert_eq!(folders("mine", "ssh", &["host", "~/run.sh"]), [".host", ".run.sh", ".run", ".mine"]);
        assert_eq!(folders("git", "node", &["/x/../.."]), Vec::<String>::new(), "no folder of another program");
        assert_eq!(of("mine", "crush", &[])[2].default, ".local/share/crush");
    }

    #[test]
    fn variables_of_the_backend_move_a_folder() {
        let env = BTreeMap::from([("CODEX_HOME".to_owned(), "/second/".to_owned())]);
        let moved = of_custom("mine", "codex", &[], &env);
        assert_eq!((moved[0].variable, &*moved[0].default), (None, "/second/"));
    }
}
